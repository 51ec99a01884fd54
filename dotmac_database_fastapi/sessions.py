"""The request's session and its one transaction."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, CapacityLimiter, to_thread
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from dotmac_database import (
    ALL_TENANTS,
    DatabaseTransaction,
    TenantNotGivenError,
    TransactionOptions,
    acting_as,
    bind_tenant,
    unscoped,
)

from .callers import Caller
from .internals import insist

if TYPE_CHECKING:
    from .plugin import DatabasePlugin

_SCOPE = "dotmac_database.sessions"
_COMMITTED = "dotmac_database.committed"

SessionClass: type[Session] = Session
AsyncSessionClass: type[AsyncSession] = AsyncSession

with suppress(ImportError):
    import sqlmodel
    from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

    class _AsyncSession(SQLModelSession):
        """SQLModel's session, whose ``exec`` is for its models; ``execute`` is not deprecated for all others."""

        execute = AsyncSession.execute

    SessionClass, AsyncSessionClass = sqlmodel.Session, _AsyncSession


@asynccontextmanager
async def async_unit(plugin: DatabasePlugin, caller: Caller, *, unlimited: bool = False) -> AsyncIterator[AsyncSession]:
    """A session of the caller's in one lazy transaction: committed at the end, rolled back by any exception.

    ``unlimited``: in one that begins at once and has no time limits.
    """
    options = _limitless(plugin) if unlimited else None
    session = plugin.new_session()
    try:
        with _as_caller(session, caller):
            async with DatabaseTransaction.async_transaction(session, options, lazy=options is None):
                yield session
    finally:
        if session.in_transaction():
            with CancelScope(shield=True):
                await session.close()
        else:
            session.sync_session.close()


@contextmanager
def sync_unit(plugin: DatabasePlugin, caller: Caller, *, unlimited: bool = False) -> Iterator[Session]:
    """As `async_unit`, on a `Session`."""
    options = _limitless(plugin) if unlimited else None
    session = plugin.sync_maker()
    try:
        transaction = DatabaseTransaction.sync_transaction(session, options, lazy=options is None)
        with _as_caller(session, caller), transaction:
            yield session
    finally:
        session.close()


def _limitless(plugin: DatabasePlugin) -> TransactionOptions | None:
    """The options that lift the time limits of a transaction; None: the database knows none."""
    if plugin.database.url.get_backend_name() != "postgresql":
        return None
    return TransactionOptions(statement_timeout=0, idle_in_transaction_timeout=0)


@asynccontextmanager
async def request_session(
    plugin: DatabasePlugin, connection: HTTPConnection, caller: Caller
) -> AsyncIterator[AsyncSession]:
    """The request's async session: the first to ask opens it, and ends it."""
    open_sessions: dict[Any, Any] = connection.scope.setdefault(_SCOPE, {})
    key = (id(plugin), "async")
    if key in open_sessions:
        yield open_sessions[key]
        return
    async with _heard(connection), async_unit(plugin, caller) as session:
        open_sessions[key] = session
        try:
            yield session
        finally:
            del open_sessions[key]
        begun = session.in_transaction()
    if begun:
        connection.scope[_COMMITTED] = True


@asynccontextmanager
async def request_sync_session(
    plugin: DatabasePlugin, connection: HTTPConnection, caller: Caller
) -> AsyncIterator[Session]:
    """The request's sync session, for ``def`` endpoints; its COMMIT runs in a thread."""
    open_sessions: dict[Any, Any] = connection.scope.setdefault(_SCOPE, {})
    key = (id(plugin), "sync")
    if key in open_sessions:
        yield open_sessions[key]
        return
    async with _heard(connection), plugin.slots.one():
        session = plugin.sync_maker()
        # The caller is told in the request's own context: one that is set in a worker thread would stay there.
        with _as_caller(session, caller):
            async with _ended_in_thread(_closing(session)):
                open_sessions[key] = session
                try:
                    yield session
                finally:
                    del open_sessions[key]
                begun = session.in_transaction()
    if begun:
        connection.scope[_COMMITTED] = True


@asynccontextmanager
async def _heard(connection: HTTPConnection) -> AsyncIterator[None]:
    """Nobody turns a transaction's failure into a success."""
    try:
        yield
    except BaseException as failure:
        insist(connection, failure)
        raise


def has_committed(connection: HTTPConnection) -> bool:
    """Whether one of the request's sessions has ended with a COMMIT, since this was last asked."""
    return bool(connection.scope.pop(_COMMITTED, False))


@contextmanager
def _closing(session: Session) -> Iterator[None]:
    try:
        with DatabaseTransaction.sync_transaction(session, lazy=True):
            yield
    finally:
        session.close()


@asynccontextmanager
async def _ended_in_thread(block: AbstractContextManager[None]) -> AsyncIterator[None]:
    """Enter ``block`` here, as a lazy transaction sends nothing; leave it in a thread.

    The thread is beyond the pool's size: a request that waits for a thread to commit holds a connection that
    those in all the threads may be waiting for.
    """
    block.__enter__()
    limiter = CapacityLimiter(1)
    try:
        yield
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(block.__exit__, *sys.exc_info(), limiter=limiter)
        raise
    with CancelScope(shield=True):
        await to_thread.run_sync(block.__exit__, None, None, None, limiter=limiter)


@contextmanager
def _as_caller(session: Any, caller: Caller) -> Iterator[None]:
    """Bind the session to the caller's tenant, and let what is written name the caller's actor."""
    with ExitStack() as stack:
        if caller.actor is not None:
            stack.enter_context(acting_as(caller.actor))
        if caller.tenant is ALL_TENANTS:
            reason = f"the tenant is ALL_TENANTS; actor {caller.actor!r}; {caller.request or 'no request'}"
            # What the app's own dependency gives each administrator is a matter of course, not a warning.
            level = logging.WARNING if caller.request is None else logging.INFO
            stack.enter_context(unscoped(session, reason=reason, level=level))
        elif caller.tenant is not None:
            bind_tenant(session, caller.tenant)
        try:
            yield
        except TenantNotGivenError as refused:
            # The guard knows that a tenant is missing; the caller knows where it should have been.
            raise caller.refusal(str(refused)) from refused
