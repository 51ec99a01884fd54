"""The peers: other libraries that do some of the cases, used as their documentation shows, if they are installed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from dotmac_database.types import UTCDateTime, utc_now

from .contenders import TENANT, ByHand, Contender, Values, values_of
from .schema import COLUMNS, User

_SCORE, _EMAIL = COLUMNS.index("score"), COLUMNS.index("email")
_OWN: dict[str, Any] = {"tenant_id": TENANT, "is_deleted": False}


class Peer(Contender):
    """A library that works on sessions which this class makes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)


def _new(row: dict[str, Any]) -> User:
    return User(tenant_id=TENANT, id=uuid4(), **row)


@cache
def sqlmodel_user() -> Any:
    """The table ``bench_users`` as a SQLModel class."""
    from sqlmodel import Field, SQLModel

    class SqlUser(SQLModel, table=True):
        __tablename__ = "bench_users"
        tenant_id: str
        id: UUID = Field(default_factory=uuid4, primary_key=True)
        name: str
        email: str
        status: str = "active"
        score: int = 0
        bio: str | None = None
        created_at: datetime = Field(default_factory=utc_now, sa_type=UTCDateTime)
        is_deleted: bool = False
        deleted_at: datetime | None = Field(default=None, sa_type=UTCDateTime)

    return SqlUser


def sqlmodel_by_hand(engine: AsyncEngine) -> Contender:
    """SQLModel, as its documentation shows it: with a refresh after each commit."""
    from sqlmodel.ext.asyncio.session import AsyncSession

    user_class = sqlmodel_user()

    class ByModel(ByHand):
        name = "SQLModel by hand"
        model = user_class

        def __init__(self) -> None:
            super().__init__(engine)
            self.sessions = async_sessionmaker(engine, expire_on_commit=False, class_=AsyncSession)

        async def create(self, row: dict[str, Any]) -> str:
            async with self.sessions() as session:
                user = user_class(tenant_id=TENANT, **row)
                session.add(user)
                await session.commit()
                await session.refresh(user)
                return str(values_of(user)[_EMAIL])

        async def update(self, key: UUID, score: int) -> int:
            async with self.sessions() as session:
                user = (await session.execute(select(user_class).where(user_class.id == key, self._own()))).scalar_one()
                user.score = score
                session.add(user)
                await session.commit()
                await session.refresh(user)
                return int(values_of(user)[_SCORE])

    return ByModel()


def advanced_alchemy(engine: AsyncEngine) -> Contender:
    """advanced-alchemy's repository."""
    from advanced_alchemy.filters import LimitOffset
    from advanced_alchemy.repository import SQLAlchemyAsyncRepository

    class Users(SQLAlchemyAsyncRepository[User]):  # type: ignore[type-var]  # it wants models derived from its own base class
        model_type = User

    class AdvancedAlchemy(Peer):
        name = "advanced-alchemy"

        async def get(self, key: UUID) -> Values:
            async with self.sessions() as session:
                return values_of(await Users(session=session).get_one(id=key, **_OWN))

        async def listed(self, limit: int) -> list[Values]:
            async with self.sessions() as session:
                users = await Users(session=session).list(
                    LimitOffset(limit, 0), order_by=[("created_at", True), ("id", True)], status="active", **_OWN
                )
                return [values_of(user) for user in users]

        async def paged(self, page: int) -> tuple[list[Values], int]:
            async with self.sessions() as session:
                users, total = await Users(session=session).list_and_count(
                    LimitOffset(20, (page - 1) * 20),
                    order_by=[("created_at", True), ("id", True)],
                    status="active",
                    **_OWN,
                )
                return [values_of(user) for user in users], total

        async def create(self, row: dict[str, Any]) -> str:
            async with self.sessions() as session:
                return str(values_of(await Users(session=session).add(_new(row), auto_commit=True))[_EMAIL])

        async def update(self, key: UUID, score: int) -> int:
            async with self.sessions() as session:
                users = Users(session=session)
                user = await users.get_one(id=key, **_OWN)
                user.score = score
                return int(values_of(await users.update(user, auto_commit=True))[_SCORE])

        async def create_many(self, rows: list[dict[str, Any]]) -> int:
            async with self.sessions() as session:
                return len(await Users(session=session).add_many([_new(row) for row in rows], auto_commit=True))

        async def upsert_many(self, rows: list[dict[str, Any]]) -> int:
            async with self.sessions() as session:
                users = await Users(session=session).upsert_many(
                    [_new(row) for row in rows], match_fields=["tenant_id", "email"], auto_commit=True
                )
                return len(users)

    return AdvancedAlchemy(engine)


def fastcrud(engine: AsyncEngine) -> Contender:
    """FastCRUD: reads return dicts, creates take and return Pydantic objects."""
    from fastcrud import FastCRUD
    from pydantic import BaseModel

    class NewUser(BaseModel):
        tenant_id: str
        id: UUID
        name: str
        email: str
        score: int
        bio: str | None

    class ReadUser(NewUser):
        status: str
        created_at: datetime
        is_deleted: bool
        deleted_at: datetime | None

    users: Any = FastCRUD(User)

    def values(row: Any) -> Values:
        return tuple(row[name] for name in COLUMNS)

    class FastCrud(Peer):
        name = "FastCRUD"

        async def get(self, key: UUID) -> Values:
            async with self.sessions() as session:
                return values(await users.get(session, id=key, **_OWN))

        async def _page(self, limit: int, offset: int, total: bool) -> Any:
            async with self.sessions() as session:
                return await users.get_multi(
                    session,
                    offset=offset,
                    limit=limit,
                    sort_columns=["created_at", "id"],
                    sort_orders=["desc", "desc"],
                    return_total_count=total,
                    status="active",
                    **_OWN,
                )

        async def listed(self, limit: int) -> list[Values]:
            return [values(row) for row in (await self._page(limit, 0, False))["data"]]

        async def paged(self, page: int) -> tuple[list[Values], int]:
            result = await self._page(20, (page - 1) * 20, True)
            return [values(row) for row in result["data"]], result["total_count"]

        async def create(self, row: dict[str, Any]) -> str:
            async with self.sessions() as session:
                new = NewUser(tenant_id=TENANT, id=uuid4(), **row)
                user = await users.create(session, new, schema_to_select=ReadUser, return_as_model=True)
                return str(values_of(user)[_EMAIL])

        async def update(self, key: UUID, score: int) -> int:
            async with self.sessions() as session:
                row = await users.update(
                    session, {"score": score}, id=key, return_columns=list(COLUMNS), one_or_none=True, **_OWN
                )
                return int(values(row)[_SCORE])

    return FastCrud(engine)


def fastapi_pagination(engine: AsyncEngine) -> Contender:
    """fastapi-pagination, which pages a hand-written select()."""
    from fastapi_pagination import Page as Numbered
    from fastapi_pagination import Params, set_page
    from fastapi_pagination.ext.sqlalchemy import apaginate

    class FastapiPagination(ByHandQueries):
        name = "fastapi-pagination"

        async def paged(self, page: int) -> tuple[list[Values], int]:
            async with self.sessions() as session:
                with set_page(Numbered[Any]):
                    result = await apaginate(session, self.active(), Params(page=page, size=20))
                return [values_of(user) for user in result.items], result.total

    return FastapiPagination(engine)


class ByHandQueries(Peer):
    """A peer that pages a hand-written statement."""

    def active(self) -> Any:
        """The statement of case C."""
        own = (User.tenant_id == TENANT, User.is_deleted.is_(False), User.status == "active")
        return select(User).where(*own).order_by(User.created_at.desc(), User.id.desc())


def sqlakeyset(engine: AsyncEngine) -> Contender:
    """sqlakeyset, which pages a hand-written select()."""
    from sqlakeyset.asyncio import select_page

    class Sqlakeyset(ByHandQueries):
        name = "sqlakeyset"

        async def after(self, position: tuple[datetime, UUID] | None) -> list[Values]:
            own = (User.tenant_id == TENANT, User.is_deleted.is_(False))
            statement = select(User).where(*own).order_by(User.created_at, User.id)
            async with self.sessions() as session:
                return [values_of(row[0]) for row in await select_page(session, statement, per_page=20, after=position)]

    return Sqlakeyset(engine)


MAKERS: tuple[Callable[[AsyncEngine], Contender], ...] = (
    sqlmodel_by_hand,
    advanced_alchemy,
    fastcrud,
    fastapi_pagination,
    sqlakeyset,
)


def installed(engine: AsyncEngine) -> list[Contender]:
    """The peers whose package is installed. For each of the others a line is printed."""
    peers: list[Contender] = []
    for make in MAKERS:
        try:
            peers.append(make(engine))
        except ImportError as error:
            print(f"({make.__name__} is left out: {error})")
    return peers
