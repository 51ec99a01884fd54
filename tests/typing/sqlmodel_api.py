"""SQLModel classes with the toolkit's mixins, and calls that name their fields, which type checkers must accept.

Without ``from __future__ import annotations``: SQLModel reads the class of a relationship from the annotation itself.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, assert_type
from uuid import UUID, uuid4

from pydantic import EmailStr
from sqlalchemy import MetaData
from sqlalchemy.orm import (
    DeclarativeBase,
    InstrumentedAttribute,
    Mapped,
    mapped_column,
    relationship,
)
from sqlmodel import Field, Relationship, Session, SQLModel, col, select

from dotmac_database import (
    Aggregate,
    AsyncTenantRepository,
    BaseTenantRepository,
    Count,
    CursorPaginationParams,
    PaginationParams,
    QueryFilter,
    QueryOptions,
    SortField,
    create_repository,
    field,
    tenant_unique,
)
from dotmac_database import TenantMixin as DeclarativeTenantMixin
from dotmac_database.sqlmodel import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin


class Model(SQLModel):
    """The base class of an app's models."""

    metadata = MetaData()


class UserBase(SQLModel):
    name: str
    email: EmailStr | None = None


class User(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, UserBase, table=True):
    __tablename__ = "users"
    __table_args__ = (tenant_unique("email"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    age: int | None = None
    posts: list["Post"] = Relationship(back_populates="author")


class Post(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str
    author_id: UUID | None = Field(default=None, foreign_key="users.id")
    author: User | None = Relationship(back_populates="posts")


class Tag(TenantMixin, table=True):
    """A mixin is an SQLModel, so no other base class is needed."""

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: str = Field(default=None, foreign_key="tenant.id", index=True)


class Note(UserBase, TenantMixin, Model, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Doc(AuditMixin, Model, table=True):
    """Tenants whose ids are of another type need no mixin."""

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: UUID = Field(default=None, index=True)


class Org(TenantMixin, Model, table=True):
    __tenant_column__ = "org_id"

    id: int | None = Field(default=None, primary_key=True)
    org_id: str


class UserRead(AuditMixin, UserBase):
    """A schema that is no table."""

    id: UUID


def models(session: Session) -> None:
    user = User(name="Ann", age=3, tenant_id="a")
    assert_type(user.tenant_id, str)
    assert_type(user.created_at, datetime)
    assert_type(user.updated_at, datetime)
    assert_type(user.created_by, str | None)
    assert_type(user.is_deleted, bool)
    assert_type(user.deleted_at, datetime | None)
    assert_type(user.version, int)
    assert_type(User.model_validate({"name": "Ann"}), User)
    assert_type(UserRead.model_validate(user), UserRead)
    assert_type(user.model_dump(), dict[str, Any])
    assert_type(session.exec(select(User).where(User.tenant_id == "a", col(User.age) > 3)).all(), Sequence[User])
    assert_type(Doc(tenant_id=uuid4()).tenant_id, UUID)
    assert_type(Note(name="x").tenant_id, str)
    model: type[SQLModel] = Tag
    row: SQLModel = Tag()
    assert model
    assert row
    assert Org(org_id="o")


class Base(DeclarativeBase):
    """Declarative models beside those of SQLModel."""


class Declared(DeclarativeTenantMixin, Base):
    __tablename__ = "declared"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(index=True)
    name: Mapped[str]
    others: Mapped[list["Declared"]] = relationship()


def names(session: Session, key: UUID) -> None:
    """Fields by name, and by attribute."""
    users = create_repository(session, User, tenant_id="a")
    assert_type(users.list(QueryOptions(sorts=["-created_at", "name"])), list[User])
    assert_type(users.list(QueryOptions(sorts="-created_at")), list[User])
    assert_type(users.list({"sorts": ["-created_at", User.age, SortField(User.name, "desc")]}), list[User])
    assert_type(users.list(QueryOptions(sorts=[User.age, col(User.age), SortField("name")])), list[User])
    assert_type(users.list(QueryOptions([QueryFilter(User.age, "gte", 3)], relationships=[User.posts])), list[User])
    assert_type(users.first({"relationships": {"posts": {"sorts": "-title"}}}), User | None)
    assert_type(users.get_by_id(key, relationships={"posts": QueryOptions(sorts=["-title"])}), User | None)
    assert_type(users.get_by_id(key, relationships="posts"), User | None)
    assert_type(users.get_by_field(User.age, 3, relationships=[User.posts]), User | None)
    assert_type(users.list_by_field(col(User.name), "x"), list[User])
    assert_type(users.values(User.name, User.age, posts=Count(User.posts)).first(), dict[str, Any] | None)
    assert_type(users.values(UserRead).list(), list[UserRead])
    assert_type(users.upsert({}, [User.email]), User)
    assert_type(users.bulk_upsert([], [User.email]), list[User])
    assert_type(users.get_or_create({}, [User.email]), tuple[User, bool])
    assert_type(users.link(key, User.posts, []), int)
    assert_type(
        users.aggregate({"m": ("max", User.age), "n": Aggregate("sum", User.age)}, group_by=User.name),
        list[dict[str, Any]],
    )
    assert_type(users.distinct_values(User.age), list[Any])
    assert_type(users.create({User.name: "x", "age": 3}), User)
    assert_type(users.update(key, {User.age: 4}), User)
    assert_type(users.create(User(name="x", tenant_id="a")), User)
    assert_type(users.list({"sorts": field(User.age)}), list[User])
    assert_type(users.count(QueryFilter(field(User.posts, Post.title), "ilike", "x")), int)
    assert_type(create_repository(session, User, tenant_id="a"), BaseTenantRepository[User, Session])
    users.values(User.nmae)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    users.create({User.aeg: 3})  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    field(User.posts, Post.titel)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    cursor = CursorPaginationParams(cursor_field=User.created_at)
    users.cursor_paginate(QueryOptions(cursor_pagination=cursor, pagination=None))
    users.page(QueryOptions(pagination=PaginationParams(1), sorts=("-name",)))


async def declared_names(users: AsyncTenantRepository[Declared]) -> None:
    assert_type(Declared.name, InstrumentedAttribute[str])
    assert_type(await users.list(QueryOptions(sorts=[Declared.name, "-id"])), list[Declared])
    assert_type(await users.list(QueryOptions(sorts=Declared.name, relationships=Declared.others)), list[Declared])
    assert_type(await users.count(QueryFilter(Declared.name, "starts_with", "x")), int)
    assert_type(await users.get_by_field(Declared.name, "x", relationships=[Declared.others]), Declared | None)
    assert_type(await users.values(Declared.name, n=Count(Declared.others)).first(), dict[str, Any] | None)
    assert_type(await users.set_links(1, Declared.others, [2]), tuple[int, int])
    assert_type(await users.distinct_values(Declared.name), list[Any])
