"""The conditions on PostgreSQL that differ in their sessions, engines and drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from itertools import cycle

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dotmac_database import RowLevelSecurity, bind_tenant, guard_tenants

from ..contenders import TENANT
from ..schema import Base, User
from .by_hand import ByHand, SyncByHand
from .by_toolkit import ByToolkit, SyncByToolkit
from .site import Site, async_engine, sync_engine
from .ways import Subject, Ways

APP_ROLE = "bench_app"
NAME_TENANT = text("SELECT set_config('dotmac.tenant_id', :tenant, true)")


def new_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """The factory of sessions that both ways use."""
    return async_sessionmaker(engine, expire_on_commit=False)


def ways_on(engine: AsyncEngine, subject: Subject) -> Ways:
    """Both ways, with a new session for each call."""
    sessions = new_sessions(engine)
    return Ways(ByHand(subject, sessions), ByToolkit(subject, sessions))


@asynccontextmanager
async def on_asyncpg(site: Site) -> AsyncIterator[Ways]:
    """asyncpg, and nothing that the toolkit must take into account."""
    site.tidied(User)
    async with async_engine(site.url("asyncpg")) as engine:
        yield ways_on(engine, site.main)


@asynccontextmanager
async def on_psycopg(site: Site) -> AsyncIterator[Ways]:
    """psycopg, async."""
    site.tidied(User)
    async with async_engine(site.url("psycopg")) as engine:
        yield ways_on(engine, site.main)


@asynccontextmanager
async def on_sync_psycopg(site: Site) -> AsyncIterator[Ways]:
    """psycopg, sync."""
    site.tidied(User)
    with sync_engine(site.url("psycopg")) as engine:
        sessions = sessionmaker(engine, expire_on_commit=False)
        yield Ways(SyncByHand(site.main, sessions), SyncByToolkit(site.main, sessions))


def in_turn(makers: list[async_sessionmaker[AsyncSession]]) -> Callable[[], AsyncSession]:
    """A function that opens a session of the next maker."""
    turns = cycle(makers)

    def opened() -> AsyncSession:
        return next(turns)()

    return opened


@asynccontextmanager
async def in_two_databases(site: Site) -> AsyncIterator[Ways]:
    """Two engines for two databases of the server; each call uses the other one than the call before."""
    site.copied("second")
    site.tidied(User)
    site.tidied(User, "second")
    async with async_engine(site.url("asyncpg")) as first, async_engine(site.url("asyncpg", "second")) as second:
        makers = [new_sessions(first), new_sessions(second)]
        yield Ways(ByHand(site.main, in_turn(makers)), ByToolkit(site.main, in_turn(makers)))


class OpenTransaction:
    """A session with a transaction that stays open from call to call, and is rolled back after a turn."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.session = sessions()

    def __call__(self) -> AbstractAsyncContextManager[AsyncSession]:
        """The session, which is not closed at the end of the block."""
        return nullcontext(self.session)

    async def renew(self) -> None:
        """Roll back, and begin again. The statement opens the transaction on the server too."""
        await self.session.rollback()
        await self.session.begin()
        await self.session.execute(text("SELECT 1"))


@asynccontextmanager
async def in_open_transaction(site: Site) -> AsyncIterator[Ways]:
    """Each call is one operation in a transaction that is open already."""
    site.tidied(User)
    async with async_engine(site.url("asyncpg")) as engine:
        by_hand, toolkit = OpenTransaction(new_sessions(engine)), OpenTransaction(new_sessions(engine))
        async with by_hand.session, toolkit.session:
            await by_hand.renew()
            await toolkit.renew()
            yield Ways(
                ByHand(site.main, by_hand, AsyncSession.flush, by_hand.renew),
                ByToolkit(site.main, toolkit, nullcontext, toolkit.renew),
            )


def bound(sessions: async_sessionmaker[AsyncSession]) -> AbstractAsyncContextManager[AsyncSession]:
    """A guarded session that is bound to the tenant."""
    session = sessions()
    bind_tenant(session, TENANT)
    return session


@asynccontextmanager
async def announced(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A session whose transaction names the tenant to the policies."""
    async with sessions() as session:
        await session.execute(NAME_TENANT, {"tenant": TENANT})
        yield session


@asynccontextmanager
async def guarded(site: Site) -> AsyncIterator[Ways]:
    """The toolkit's sessions are guarded, and bound to the tenant."""
    site.tidied(User)
    async with async_engine(site.url("asyncpg")) as engine:
        sessions = guard_tenants(new_sessions(engine))
        yield Ways(ByHand(site.main, new_sessions(engine)), ByToolkit(site.main, lambda: bound(sessions)))


def _protect(site: Site, database: str, policies: RowLevelSecurity) -> None:
    """Apply the policies to a copy of the main database, for a role that they bind."""
    site.copied(database)
    with sync_engine(site.owner_url(database)) as engine, engine.begin() as connection:
        policies.apply(connection)
        if connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": APP_ROLE}) is None:
            connection.execute(text(f"CREATE ROLE {APP_ROLE} LOGIN NOSUPERUSER NOBYPASSRLS"))
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON bench_users TO {APP_ROLE}"))
    site.tidied(User, database)


@asynccontextmanager
async def behind_policies(site: Site) -> AsyncIterator[Ways]:
    """Row-level security: each transaction names its tenant, by hand or by the guard."""
    policies = RowLevelSecurity(Base.metadata)
    _protect(site, "confined", policies)
    async with async_engine(site.url("asyncpg", "confined", APP_ROLE)) as engine:
        plain, sessions = new_sessions(engine), guard_tenants(new_sessions(engine), rls=policies)
        yield Ways(ByHand(site.main, lambda: announced(plain)), ByToolkit(site.main, lambda: bound(sessions)))
