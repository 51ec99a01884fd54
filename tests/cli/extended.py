"""A class that all tenants share, whose child belongs to tenants; and a tenant that may be NULL."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import TenantMixin


class Base(DeclarativeBase):
    pass


class Item(Base):
    """Only the rows of its children belong to tenants."""

    __tablename__ = "extended_items"
    __mapper_args__: ClassVar[dict[str, object]] = {"polymorphic_on": "kind", "polymorphic_identity": "item"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class OwnItem(TenantMixin, Item):
    __tablename__ = "extended_own_items"
    __mapper_args__: ClassVar[dict[str, object]] = {"polymorphic_identity": "own"}

    id: Mapped[int] = mapped_column(ForeignKey("extended_items.id"), primary_key=True)


class Note(TenantMixin, Base):
    __tablename__ = "extended_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(String(64), index=True)


class Draft(TenantMixin, Base):
    """An index of some of its rows begins with the tenant."""

    __tablename__ = "extended_drafts"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))


some = Draft.__table__.c.id > 2  # type: ignore[operator]  # a column
Index("ix_extended_drafts", Draft.__table__.c.tenant_id, postgresql_where=some, sqlite_where=some)
