"""The factories of a plugin's sessions: guarded, and SQLModel's own classes if SQLModel is installed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cached_property

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import Database, RowLevelSecurity, guard_tenants

from .aliases import JsonObject

SessionClass: type[Session] = Session
AsyncSessionClass: type[AsyncSession] = AsyncSession

with suppress(ImportError):
    import sqlmodel
    from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

    class _AsyncSession(SQLModelSession):
        """SQLModel's session, whose ``exec`` is for its models; ``execute`` is not deprecated for all others."""

        execute = AsyncSession.execute

    SessionClass, AsyncSessionClass = sqlmodel.Session, _AsyncSession


class SessionMakers:
    """The factories of guarded sessions for one database. Each is made at its first use.

    ``rls`` and ``tenant_free`` are those of `guard_tenants`.
    """

    def __init__(
        self, database: Database, *, rls: RowLevelSecurity | None = None, tenant_free: frozenset[str] = frozenset()
    ) -> None:
        self._database = database
        self._rls = rls
        self._tenant_free = tenant_free
        self._loop: asyncio.AbstractEventLoop | None = None

    @cached_property
    def async_maker(self) -> async_sessionmaker[AsyncSession]:
        """The factory of guarded async sessions."""
        maker = async_sessionmaker(self._database.async_engine, class_=AsyncSessionClass, **self._options)
        return guard_tenants(maker, rls=self._rls, tenant_free=self._tenant_free)

    @cached_property
    def sync_maker(self) -> sessionmaker[Session]:
        """The factory of guarded sync sessions, on an engine of its own for the same database."""
        maker = sessionmaker(self._database.engine, class_=SessionClass, **self._options)
        return guard_tenants(maker, rls=self._rls, tenant_free=self._tenant_free)

    @property
    def _options(self) -> JsonObject:
        return {"expire_on_commit": False, "close_resets_only": False, "info": self._database.session_info}

    def new_async_session(self) -> AsyncSession:
        """A guarded session for the running event loop.

        PostgreSQL's connections belong to the event loop that opened them. Connections of a closed loop are unusable,
        and are dropped from the pool. (A test client runs each request in a new loop, unless it runs the lifespan.)
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_closed() and self._database.needs_event_loop:
                self._database.async_engine.sync_engine.dispose(close=False)
            self._loop = loop
        return self.async_maker()

    def new_sync_session(self) -> Session:
        """A guarded sync session."""
        return self.sync_maker()
