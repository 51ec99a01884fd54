from datetime import datetime


class Order(TenantMixin, SoftDeleteMixin, SQLModel, table=True):
    __tablename__ = "orders"

    id: int | None = Field(default=None, primary_key=True)
    status: str
    created_at: datetime


SQLModel.metadata.create_all(database.engine)
engine, orders = database.engine, create_repository(session, Order, "acme")
