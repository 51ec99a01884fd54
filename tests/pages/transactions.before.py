from fastapi import APIRouter, Depends

from dotmac_database import AsyncTenantRepository, RetryPolicy, idempotency_metadata
from dotmac_database_fastapi import get_repository


class Order(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    number: int


class Line(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    order_id: int


class Account(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    balance: int = 0


Accounts = AsyncTenantRepository[Account]
SQLModel.metadata.create_all(database.engine)
idempotency_metadata.create_all(database.engine)
orders, lines = (create_repository(session, each, "acme") for each in (Order, Line))
async_session = create_database("sqlite://").async_sessions()
