"""An app for the command line, as its user would write it."""

from __future__ import annotations

import os
from datetime import datetime

from sqlalchemy import Column, ForeignKey, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import (
    AuditMixin,
    Database,
    HistoryMixin,
    Policy,
    RowLevelSecurity,
    SoftDeleteMixin,
    TenantMixin,
    UTCDateTime,
    create_database,
    outbox_table,
)
from dotmac_database_fastapi import DatabasePlugin, tenant_from_header


class Base(DeclarativeBase):
    pass


class Plan(Base):
    """What all tenants share."""

    __tablename__ = "shop_plans"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class User(TenantMixin, SoftDeleteMixin, AuditMixin, HistoryMixin, Base):
    __tablename__ = "shop_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="active")
    score: Mapped[int] = mapped_column(default=0)
    orders: Mapped[list[Order]] = relationship(back_populates="user")


tags = Table(
    "shop_order_tags",
    Base.metadata,
    Column("order_id", ForeignKey("shop_orders.id"), primary_key=True),
    Column("tag_id", ForeignKey("shop_tags.id"), primary_key=True),
)


class Tag(TenantMixin, Base):
    __tablename__ = "shop_tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(TenantMixin, Base):
    """No index of it begins with the tenant."""

    __tablename__ = "shop_orders"

    tenant_id: Mapped[str] = mapped_column(String(64))
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("shop_users.id"))
    placed_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    user: Mapped[User] = relationship(back_populates="orders")
    tags: Mapped[list[Tag]] = relationship(secondary=tags)


outbox = outbox_table(Base.metadata)

rls = RowLevelSecurity(Base.metadata)
signed = RowLevelSecurity(Base.metadata, secret="a secret of the shop")
closed = RowLevelSecurity(Base.metadata, all_tenants=False)
database: Database = create_database("postgresql://shop:geheim@127.0.0.1:1/shop")


def current_user() -> str:
    return "ada"


ada_sees_her_tags = [Policy(Tag, read=lambda actor: Tag.name == actor.id)]
ruled = DatabasePlugin(
    os.environ.get("SHOP_URL", "postgresql://shop:geheim@127.0.0.1:1/shop"),
    tenant=tenant_from_header("X-Tenant-ID"),
    actor=current_user,
    rls=RowLevelSecurity(Base.metadata, policies=ada_sees_her_tags),
    policies=ada_sees_her_tags,
    name="ruled",
)
without_rls = DatabasePlugin(
    os.environ.get("SHOP_URL", "postgresql://shop:geheim@127.0.0.1:1/shop"),
    tenant=tenant_from_header("X-Tenant-ID"),
    actor=current_user,
    policies=ada_sees_her_tags,
    name="without_rls",
)
plugin = DatabasePlugin(
    os.environ.get("SHOP_URL", "postgresql://shop:geheim@127.0.0.1:1/shop"),
    tenant=tenant_from_header("X-Tenant-ID"),
    rls=rls,
)
nothing = 42
