"""A table of tenants' rows beside the outbox."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import RowLevelSecurity, TenantMixin, outbox_table


class Base(DeclarativeBase):
    pass


class Order(TenantMixin, Base):
    __tablename__ = "outbox_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


OUTBOX = outbox_table(Base.metadata)
RLS = RowLevelSecurity(Base.metadata)
ROLE = "dotmac_outbox_app"
