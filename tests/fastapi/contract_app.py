"""An app with generated routes for every kind of model. Schemathesis compares it with its OpenAPI document."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database.models import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from dotmac_database_fastapi import (
    OPERATIONS,
    DatabasePlugin,
    crud_router,
    health_router,
    list_router,
    register_exception_handlers,
    tenant_from_header,
)


class Base(DeclarativeBase):
    """The base class of the tables of this app."""


class Colour(enum.Enum):
    """An enum with values that differ from the names."""

    RED = "r"
    BLUE = "b"


class Ordinal(sa.TypeDecorator[date]):
    """A date that is stored as an integer."""

    impl = sa.BigInteger
    cache_ok = True

    @property
    def python_type(self) -> type[date]:
        return date

    def process_bind_param(self, value: Any, _dialect: Any) -> Any:
        return None if value is None else value.toordinal()

    def process_result_value(self, value: Any, _dialect: Any) -> Any:
        return None if value is None else date.fromordinal(value)


class Customer(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    """A class with a tenant and the columns of all mixins."""

    __tablename__ = "customers"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "email"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))
    email: Mapped[str | None]
    score: Mapped[int | None]
    balance: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2), default=0)
    colour: Mapped[Colour] = mapped_column(default=Colour.RED)

    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(TenantMixin, Base):
    """A class with a tenant and a foreign key to a customer."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(80))
    customer_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey("customers.id"))

    customer: Mapped[Customer | None] = relationship(back_populates="orders")


class Country(Base):
    """A class without a tenant, with a primary key that the client sets."""

    __tablename__ = "countries"

    code: Mapped[str] = mapped_column(sa.String(8), primary_key=True)
    name: Mapped[str]


class Seat(Base):
    """A class with a composite key."""

    __tablename__ = "seats"

    hall: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    taken: Mapped[bool] = mapped_column(default=False)


def odd_columns(dialect: str) -> dict[str, sa.Column[Any]]:
    """A column for each type that clients can see."""
    kinds: dict[str, Any] = {
        "small": sa.SmallInteger,
        "large": sa.BigInteger,
        "exact": sa.Numeric(10, 4),
        "whole": sa.Numeric(6),
        "free": sa.Numeric,
        "double": sa.Float,
        "ordinal": Ordinal,
        "raw": sa.LargeBinary(64),
        "moment": sa.DateTime(timezone=True),
        "naive": sa.DateTime,
        "day": sa.Date,
        "hour": sa.Time,
        "span": sa.Interval,
        "identity": sa.Uuid,
        "word": sa.Enum("on", "off", name="word"),
        "fixed": sa.CHAR(4),
        "document": sa.JSON,
        "flag": sa.Boolean,
    }
    if dialect == "postgresql":
        kinds |= {
            "texts": sa.ARRAY(sa.String),
            "numbers": sa.ARRAY(sa.Integer),
            "jsonb": pg.JSONB,
            "address": pg.INET,
            "zoned": sa.Time(timezone=True),
        }
    return {name: sa.Column(type_, nullable=True) for name, type_ in kinds.items()}


_MADE: dict[str, type[Any]] = {}


def odd_model(dialect: str) -> type[Any]:
    """The class with the columns of `odd_columns`. It has its own metadata: its columns depend on the dialect."""
    if dialect not in _MADE:
        members = {"__tablename__": "odd_rows", "id": sa.Column(sa.Integer, primary_key=True), **odd_columns(dialect)}
        _MADE[dialect] = type("OddRow", (type("OddBase", (DeclarativeBase,), {}),), members)
    return _MADE[dialect]


def models(dialect: str) -> tuple[type[Any], ...]:
    """All classes of the app."""
    return Customer, Order, Country, Seat, odd_model(dialect)


def create_app(url: Any) -> FastAPI:
    """The app on a database. Its tables are dropped and created again."""
    plugin = DatabasePlugin(url, tenant=tenant_from_header("X-Tenant-ID"))
    engine = plugin.database.engine
    odd = odd_model(engine.dialect.name)
    for metadata in (odd.metadata, Base.metadata):
        metadata.drop_all(engine)
        metadata.create_all(engine)
    app = FastAPI(title="Contract", version="1", lifespan=plugin.lifespan)
    register_exception_handlers(app)
    every: Any = [*OPERATIONS, "bulk_create", "bulk_update"]
    for model, prefix in ((Order, "/orders"), (Country, "/countries"), (Seat, "/seats"), (odd, "/odd")):
        app.include_router(crud_router(model, prefix=prefix, operations=every))
    linking: Any = [*every, "link"]
    app.include_router(crud_router(Customer, prefix="/customers", operations=linking, links=("orders",)))
    app.include_router(crud_router(Customer, prefix="/parents", operations=["create"], nested=("orders",)))
    app.include_router(list_router(Customer, prefix="/searched", search=("name", "email"), facets=("colour", "score")))
    selected: dict[str, Any] = {"fields": ("id", "title"), "include": ("customer.orders",), "list_etag": True}
    app.include_router(crud_router(Order, prefix="/selected", **selected))
    app.include_router(health_router())
    return app
