"""The models of most tests: each column type that both dialects have, and each kind of relationship."""

from __future__ import annotations

import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    ForeignKey,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database.models import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin


class Base(DeclarativeBase):
    """The base class of the tables of most tests."""


class Status(enum.Enum):
    """An enum with members that are not declared in alphabetical order."""

    NEW = "new"
    ACTIVE = "active"
    CLOSED = "closed"


class User(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant_id", "email"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    email: Mapped[str | None]
    status: Mapped[Status] = mapped_column(default=Status.NEW)
    score: Mapped[int | None]
    ratio: Mapped[float | None]
    balance: Mapped[Decimal] = mapped_column(Numeric(12, 2), default=0)
    settings: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    born: Mapped[date | None]
    wakes: Mapped[time | None]
    patience: Mapped[timedelta | None] = mapped_column(Interval)
    avatar: Mapped[bytes | None] = mapped_column(LargeBinary)
    active: Mapped[bool] = mapped_column(default=True)

    posts: Mapped[list[Post]] = relationship(back_populates="author")


post_tags = Table(
    "post_tags",
    Base.metadata,
    Column("post_id", ForeignKey("posts.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Post(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    words: Mapped[int | None]
    author_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("posts.id"))

    author: Mapped[User | None] = relationship(back_populates="posts")
    parent: Mapped[Post | None] = relationship(back_populates="replies", remote_side=[id])
    replies: Mapped[list[Post]] = relationship(back_populates="parent")
    tags: Mapped[list[Tag]] = relationship(secondary=post_tags, back_populates="posts")


class Tag(TenantMixin, Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    posts: Mapped[list[Post]] = relationship(secondary=post_tags, back_populates="tags")


class Country(Base):
    """A class without a tenant."""

    __tablename__ = "countries"

    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str]


class Seat(Base):
    """A class with a composite key, which has its own tenant and version columns instead of the mixins."""

    __tablename__ = "seats"
    __tenant_column__ = "org"

    org: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
