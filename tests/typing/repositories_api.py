"""Calls of repositories that the type checkers must accept, with the types that they must see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, assert_type
from uuid import UUID

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlmodel import Session as SQLModelSession
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncSQLModelSession

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    AsyncTenantRepository,
    BaseRepository,
    BaseTenantRepository,
    Count,
    CursorPaginationResult,
    FullText,
    LivingUnique,
    OffsetParams,
    OffsetResult,
    PaginationParams,
    PaginationResult,
    QueryFilter,
    QueryOptions,
    SortField,
    TenantMixin,
    any_of,
    create_async_repository,
    create_repository,
    field,
    guard_tenants,
    tenant_foreign_key,
    tenant_primary_key,
    tenant_unique,
)
from dotmac_database.repositories.values import ValueReads
from dotmac_database.testing import AsyncMockRepository, MockRepository
from dotmac_database_fastapi import get_repository, get_sync_repository


class Base(DeclarativeBase):
    """The models of these calls."""


class User(TenantMixin, Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]


class Country(Base):
    __tablename__ = "countries"
    __table_args__ = (LivingUnique("code"),)

    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class Town(TenantMixin, Base):
    """Its keys name the columns themselves."""

    __tablename__ = "towns"

    id: Mapped[int] = mapped_column()
    name: Mapped[str] = mapped_column()
    country_code: Mapped[str | None] = mapped_column()
    is_deleted: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (
        tenant_primary_key(id),
        tenant_unique(name),
        tenant_foreign_key(country_code, Country.code),
        LivingUnique(name, deleted=is_deleted),
        FullText(name),
    )


@dataclass
class Card:
    name: str


class Users(BaseTenantRepository[User]):
    """Knows its model."""


class AsyncUsers(AsyncTenantRepository[User]):
    """Knows its model."""


class ExecutingUsers(AsyncTenantRepository[User, AsyncSQLModelSession]):
    """Knows its model, and the class of its session."""


def sync(session: Session, key: UUID) -> None:
    users = create_repository(session, User, tenant_id="a")
    assert_type(users.get_by_id(key), User | None)
    assert_type(users.get_by_id_or_raise(key, relationships=["posts"]), User)
    assert_type(users.get_many([key]), list[User])
    assert_type(users.first(), User | None)
    assert_type(users.list({"filters": [QueryFilter("name", value="x")]}), list[User])
    assert_type(users.list_paginated(QueryOptions(pagination=PaginationParams(1, 20, "none"))), PaginationResult[User])
    assert_type(users.cursor_paginate(QueryOptions(sorts=[SortField("name")])), CursorPaginationResult[User])
    assert_type(users.page({}), PaginationResult[User] | CursorPaginationResult[User])
    assert_type(users.page(QueryOptions(pagination=OffsetParams(5, 10))), OffsetResult[User])
    assert_type(session.scalars(users.select().where(User.name == "x")).all(), Sequence[User])
    assert_type(users.page({"pagination": {"skip": 5, "limit": 10}}), OffsetResult[User])
    assert_type(users.page({"pagination": {"page": 5}}), PaginationResult[User] | CursorPaginationResult[User])
    assert_type(users.list(QueryOptions(pagination=OffsetParams(5, 10))), list[User])
    assert_type(users.stream(), Iterator[User])
    assert_type(users.count(any_of(QueryFilter("name", value="x"))), int)
    assert_type(users.exists(key), bool)
    assert_type(users.create({"name": "x"}), User)
    assert_type(users.bulk_create([{"name": "x"}]), list[User])
    assert_type(users.bulk_create([{"name": "x"}], returning=False), int)
    assert_type(users.upsert({"name": "x"}, ["name"]), User)
    assert_type(users.get_or_create({"name": "x"}, ["name"]), tuple[User, bool])
    assert_type(users.link(key, "posts", [key]), int)
    assert_type(users.set_links(key, "posts", [key]), tuple[int, int])
    assert_type(users.update(key, {"name": "y"}, expected_version=1), User)
    assert_type(users.delete(key), bool)
    assert_type(users.update_where([QueryFilter("name", value="x")], {"name": "y"}, at_most=5), int)
    assert_type(users.for_update(skip_locked=True).first(), User | None)
    assert_type(users.with_tenant("b").list(), list[User])
    assert_type(users.with_tenant(ALL_TENANTS).count(), int)
    assert_type(users.strict().first(), User | None)
    assert_type(users.get_by_id(key, relationships={"posts": {"pagination": {"per_page": 3}}}), User | None)
    assert_type(users.list({"relationships": {"posts": QueryOptions(), "posts.author": None}}), list[User])
    assert_type(users.list(QueryOptions(relationships={"posts": QueryOptions()})), list[User])
    assert_type(users.values("name").list(), list[dict[str, Any]])
    assert_type(users.values("name", posts=Count("posts")).first(), dict[str, Any] | None)
    assert_type(users.values(Card, posts=Count("posts")), ValueReads[Card])
    assert_type(users.values(Card).list(), list[Card])
    assert_type(users.values(Card).page(), PaginationResult[Card] | CursorPaginationResult[Card])
    assert_type(users.values(Card).stream(), Iterator[Card])
    assert_type(users.aggregate({"n": "count", "last": ("max", "name")}, group_by="name"), list[dict[str, Any]])
    assert_type(users.distinct_values("name"), list[Any])
    assert_type(users.in_batches(lambda batch: batch.clear(), batch_size=10), int)
    assert_type(Users(session, tenant_id="a").first(), User | None)
    assert_type(Users(session, tenant_id="a").for_update(), Users)
    plain: BaseRepository[User] = users
    assert_type(MockRepository(User, tenant_id="a").add_mock_data([{"name": "x"}]), list[User])
    assert plain


async def asynchronous(session: AsyncSession, key: UUID) -> None:
    users = create_async_repository(session, User, tenant_id="a")
    assert_type(await users.get_by_id(key), User | None)
    assert_type(await users.list_paginated(), PaginationResult[User])
    assert_type(await users.bulk_create([{"name": "x"}], returning=False), int)
    assert_type((await session.scalars(users.select())).all(), Sequence[User])
    assert_type(await users.page(QueryOptions(pagination=OffsetParams(5, 10))), OffsetResult[User])
    assert_type(await users.page(), PaginationResult[User] | CursorPaginationResult[User])
    assert_type(users.stream(), AsyncIterator[User])
    assert_type(await users.values("name").first(), dict[str, Any] | None)
    assert_type(await users.values(Card, posts=Count("posts")).cursor_paginate(), CursorPaginationResult[Card])
    assert_type(users.values(Card).stream(), AsyncIterator[Card])
    assert_type(await users.for_update(nowait=True).get_by_id_or_raise(key), User)
    assert_type(await AsyncUsers(session, tenant_id="a").first(), User | None)
    assert_type(await AsyncMockRepository(User, tenant_id="a").list(), list[User])
    plain: AsyncRepository[User] = users
    assert plain


def of_sqlmodel(session: SQLModelSession, async_session: AsyncSQLModelSession) -> None:
    """``db`` is the session that was given, so that SQLModel's ``exec`` is known."""
    assert_type(create_repository(session, User, tenant_id="a").db, SQLModelSession)
    assert_type(create_async_repository(async_session, User, tenant_id="a").db, AsyncSQLModelSession)
    assert_type(AsyncRepository(async_session, User).db, AsyncSQLModelSession)
    assert_type(BaseRepository(session, User).with_tenant("b").db, SQLModelSession)
    assert_type(AsyncUsers(async_session, tenant_id="a").db, AsyncSession)
    assert_type(ExecutingUsers(async_session, tenant_id="a").db, AsyncSQLModelSession)


def dicts(users: BaseTenantRepository[User], key: UUID) -> None:
    """The dicts that stand for options and data: their keys are completed and checked."""
    assert_type(users.list({"filters": [{"field": "name", "operator": "ilike", "value": "x"}]}), list[User])
    assert_type(users.list({"sorts": {"field": User.name, "order": "desc"}, "include_deleted": True}), list[User])
    assert_type(users.list({"cursor_pagination": {"limit": 5, "cursor_field": User.name}}), list[User])
    assert_type(users.list({"relationships": {"posts": {"sorts": "-title"}}}), list[User])
    assert_type(users.count([{"mode": "any", "members": [{"field": User.name, "value": "x"}]}]), int)
    assert_type(users.aggregate({"n": {"function": "sum", "field": User.name}}), list[dict[str, Any]])
    assert_type(users.create({User.name: "x"}), User)
    assert_type(users.create(User(name="x")), User)
    assert_type(users.update(key, {User.name: "x", "name": "y"}), User)
    assert_type(users.update_where(QueryFilter(User.name, value="x"), {User.name: "y"}), int)
    assert_type(users.bulk_update([{User.id: key, User.name: "y"}]), int)
    users.list({"fliters": []})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.list({"filters": [{"feild": "name"}]})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.list({"pagination": {"pgae": 2}})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.count([QueryFilter(User.nmae)])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    users.create({User.nmae: "x"})  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    users.create(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.aggregate({"n": "cuont"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


def scoped(session: scoped_session[Session], async_session: async_scoped_session[AsyncSession]) -> None:
    assert_type(create_repository(session, User, tenant_id="a").db, scoped_session[Session])
    assert_type(create_async_repository(async_session, User, tenant_id="a").db, async_scoped_session[AsyncSession])


async def with_exec(users: ExecutingUsers, plain: AsyncRepository[User], both: BaseRepository[User]) -> None:
    assert_type((await users.db.exec(select(User))).all(), Sequence[User])
    assert_type(plain.db, AsyncSession)
    assert_type(both.db, Session)


def makers(sync_maker: sessionmaker[Session], async_maker: async_sessionmaker[AsyncSession]) -> None:
    assert_type(guard_tenants(sync_maker), sessionmaker[Session])
    assert_type(guard_tenants(async_maker), async_sessionmaker[AsyncSession])


def made(session: Session, async_session: AsyncSession) -> None:
    """The repository of a class with tenants is a tenant repository."""
    assert_type(create_repository(session, User, tenant_id="a"), BaseTenantRepository[User])
    assert_type(create_async_repository(async_session, User, tenant_id="a"), AsyncTenantRepository[User])
    assert_type(create_repository(session, Country), BaseRepository[Country])
    assert_type(field(User.name), str)
    assert_type(create_repository(session, User, tenant_id="a").get_tenant_stats(), dict[str, Any])
    field(User.nmae)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def endpoint(
    users: Annotated[AsyncTenantRepository[User], Depends(get_repository(User))],
    own: Annotated[AsyncUsers, Depends(get_repository(AsyncUsers))],
) -> list[str]:
    assert_type(await own.list(), list[User])
    return [user.name for user in await users.list()]


def sync_endpoint(users: Annotated[BaseTenantRepository[User], Depends(get_sync_repository(User))]) -> list[str]:
    return [user.name for user in users.list()]
