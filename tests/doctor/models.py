"""Models without a fault; the tests plant faults in their tables."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Enum, ForeignKey, Index, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import HistoryMixin, LivingUnique, SoftDeleteMixin, TenantMixin, tenant_foreign_key


class Base(DeclarativeBase):
    """The healthy models."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "it's blue"


def values(members: type[enum.Enum]) -> list[str]:
    return [each.value for each in members]


class Account(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        LivingUnique("email"),
        CheckConstraint("email <> ''", name="email_is_not_empty"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(20))
    email: Mapped[str]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    colour: Mapped[Colour] = mapped_column(Enum(Colour, values_callable=values, name="colour"))
    mood: Mapped[Colour | None] = mapped_column(
        Enum(Colour, values_callable=values, native_enum=False, create_constraint=True, name="mood", length=20)
    )


class Note(TenantMixin, Base):
    """With a reserved word as a column, and a name that needs quotes."""

    __tablename__ = "Note"
    __table_args__ = (
        tenant_foreign_key("account_id", "accounts.id"),
        Index("notes_by_account", "tenant_id", "account_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(20))
    account_id: Mapped[int | None]
    order: Mapped[int]


class Ledger(TenantMixin, HistoryMixin, Base):
    __tablename__ = "ledgers"
    __table_args__ = (Index("ledgers_by_tenant", "tenant_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(20))
    amount: Mapped[int]


def loose() -> MetaData:
    """Models whose keys do not carry the tenant."""

    class Loose(DeclarativeBase):
        pass

    class Parent(TenantMixin, Loose):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[str] = mapped_column(String(20), index=True)
        code: Mapped[str] = mapped_column(unique=True)

    class Child(TenantMixin, Loose):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[str] = mapped_column(String(20), index=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"), index=True)

    return Loose.metadata
