"""The sessions of a request, each with one transaction that ends with the request."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any, TypeAlias, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from starlette.requests import HTTPConnection

from dotmac_database import (
    ALL_TENANTS,
    DatabaseTransaction,
    TenantNotGivenError,
    TransactionOptions,
    acting_as,
    bind_tenant,
    is_guarded,
    tenant_scope,
    unscoped,
)

from .identity import RequestIdentity
from .internals import fail_endpoint
from .source import Source

T = TypeVar("T")
A = TypeVar("A", bound=AsyncSession | async_scoped_session[Any])
S = TypeVar("S", bound=Session | scoped_session[Any])
AnySession: TypeAlias = Session | scoped_session[Any] | AsyncSession | async_scoped_session[Any]

_SCOPE = "dotmac_database.sessions"
_COMMITTED = "dotmac_database.committed"


@asynccontextmanager
async def async_unit(
    source: Source, identity: RequestIdentity, *, unlimited: bool = False
) -> AsyncIterator[AsyncSession]:
    """A session of the caller's tenant, in one lazy transaction: committed at the end, rolled back by any exception.

    With ``unlimited`` the transaction begins at once, and the server's time limits are lifted for it.
    """
    options = _limitless(source) if unlimited else None
    session = source.makers.new_async_session()
    try:
        with _acting_as(session, identity):
            async with DatabaseTransaction.async_transaction(session, options, lazy=options is None):
                yield session
    finally:
        if session.in_transaction():
            with CancelScope(shield=True):
                await session.close()
        else:
            session.sync_session.close()


@contextmanager
def sync_unit(source: Source, identity: RequestIdentity, *, unlimited: bool = False) -> Iterator[Session]:
    """As `async_unit`, on a `Session`."""
    options = _limitless(source) if unlimited else None
    session = source.makers.new_sync_session()
    try:
        transaction = DatabaseTransaction.sync_transaction(session, options, lazy=options is None)
        with _acting_as(session, identity), transaction:
            yield session
    finally:
        session.close()


def _limitless(source: Source) -> TransactionOptions | None:
    """The options that lift the time limits of a transaction; None: the database has no such limits."""
    if not source.database.limits_time:
        return None
    return TransactionOptions(statement_timeout=0, idle_in_transaction_timeout=0)


def request_session(
    source: Source, connection: HTTPConnection, identity: RequestIdentity
) -> AbstractAsyncContextManager[AsyncSession]:
    """The request's async session. The first dependency that needs it opens it, and closes it when it exits."""
    return _opened_once(connection, (id(source), "async"), async_unit(source, identity))


def request_sync_session(
    source: Source, connection: HTTPConnection, identity: RequestIdentity
) -> AbstractAsyncContextManager[Session]:
    """The request's sync session, for ``def`` endpoints; its COMMIT runs in a thread."""
    return _opened_once(connection, (id(source), "sync"), _threaded_unit(source, identity))


def lent_session(connection: HTTPConnection, identity: RequestIdentity, session: T) -> AbstractAsyncContextManager[T]:
    """A session that the app supplies in place of the request's, with the request's unit of work, tenant and actor.

    The session belongs to the app: it is not closed here, and if it is already in a transaction, the unit of work is a
    savepoint. An object that is not a session is returned unchanged.
    """
    key = "lent", id(session)
    if isinstance(session, (AsyncSession, async_scoped_session)):
        return _opened_once(connection, key, _lent_async_unit(session, identity))
    if isinstance(session, (Session, scoped_session)):
        return _opened_once(connection, key, _lent_sync_unit(session, identity))
    return nullcontext(session)


@asynccontextmanager
async def _opened_once(
    connection: HTTPConnection, key: tuple[object, object], opening: AbstractAsyncContextManager[T]
) -> AsyncIterator[T]:
    """One session for a request: the first dependency opens and closes it, later ones share it while it is open."""
    open_sessions: dict[tuple[object, object], Any] = connection.scope.setdefault(_SCOPE, {})
    if key in open_sessions:
        yield open_sessions[key]
        return
    session: Any
    async with _failing_endpoint(connection), opening as session:
        open_sessions[key] = session
        try:
            yield session
        finally:
            del open_sessions[key]
        begun = (session() if isinstance(session, (scoped_session, async_scoped_session)) else session).in_transaction()
    if begun:
        connection.scope[_COMMITTED] = True


@asynccontextmanager
async def _threaded_unit(source: Source, identity: RequestIdentity) -> AsyncIterator[Session]:
    async with source.sync_limit.hold():
        session = source.makers.new_sync_session()
        # The actor is set in the request's own context: one that is set in a worker thread would stay there.
        with _acting_as(session, identity):
            block = _closing(session)
            block.__enter__()  # a lazy transaction sends nothing
            async with _ended_in_thread(block):
                yield session


@asynccontextmanager
async def _lent_async_unit(session: A, identity: RequestIdentity) -> AsyncIterator[A]:
    with _acting_as(session, identity, _bind_lent):
        async with DatabaseTransaction.async_transaction(session, lazy=True, nested=True):
            yield session


@asynccontextmanager
async def _lent_sync_unit(session: S, identity: RequestIdentity) -> AsyncIterator[S]:
    with _acting_as(session, identity, _bind_lent):
        block = DatabaseTransaction.sync_transaction(session, lazy=True, nested=True)
        await to_thread.run_sync(block.__enter__, limiter=CapacityLimiter(1))
        async with _ended_in_thread(block):
            yield session


@asynccontextmanager
async def _failing_endpoint(connection: HTTPConnection) -> AsyncIterator[None]:
    """If the unit of work fails, the endpoint fails too, even if an outer dependency swallows the exception."""
    try:
        yield
    except BaseException as failure:
        fail_endpoint(connection, failure)
        raise


def has_committed(connection: HTTPConnection) -> bool:
    """Whether one of the request's sessions has committed since the last call of this function."""
    return bool(connection.scope.pop(_COMMITTED, False))


@contextmanager
def _closing(session: Session) -> Iterator[None]:
    try:
        with DatabaseTransaction.sync_transaction(session, lazy=True):
            yield
    finally:
        session.close()


@asynccontextmanager
async def _ended_in_thread(block: AbstractContextManager[object]) -> AsyncIterator[None]:
    """Exit ``block``, which has been entered, in a worker thread.

    The thread does not count against anyio's limit of threads. Otherwise a request that waits for a thread in order to
    commit could hold the connection for which the requests in all other threads are waiting: a deadlock.
    """
    limiter = CapacityLimiter(1)
    try:
        yield
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(block.__exit__, *sys.exc_info(), limiter=limiter)
        raise
    with CancelScope(shield=True):
        await to_thread.run_sync(block.__exit__, None, None, None, limiter=limiter)


def _bind_own(session: AnySession, identity: RequestIdentity) -> AbstractContextManager[None] | None:
    """Bind the request's own session to the caller's tenant until it is closed."""
    if identity.tenant is ALL_TENANTS:
        return _unscoped_block(session, identity)
    if identity.tenant is not None:
        bind_tenant(session, identity.tenant)
    return None


def _bind_lent(session: AnySession, identity: RequestIdentity) -> AbstractContextManager[None] | None:
    """Bind a session of the app's, if it is guarded, to the caller's tenant until the request ends."""
    if identity.tenant is None or not is_guarded(session):
        return None
    if identity.tenant is ALL_TENANTS:
        return _unscoped_block(session, identity)
    return tenant_scope(session, identity.tenant, release=True)


def _unscoped_block(session: AnySession, identity: RequestIdentity) -> AbstractContextManager[None]:
    reason = f"the tenant is ALL_TENANTS; actor {identity.actor!r}; {identity.request or 'no request'}"
    # In a request the app's own dependency has returned ALL_TENANTS, as for an administrator. That is not a warning.
    return unscoped(session, reason=reason, level=logging.WARNING if identity.request is None else logging.INFO)


@contextmanager
def _acting_as(
    session: AnySession,
    identity: RequestIdentity,
    bind: Callable[[AnySession, RequestIdentity], AbstractContextManager[None] | None] = _bind_own,
) -> Iterator[None]:
    """Bind the session to the caller's tenant, and record the caller's actor in audit columns."""
    with ExitStack() as stack:
        if identity.actor is not None:
            stack.enter_context(acting_as(identity.actor))
        scope = bind(session, identity)
        if scope is not None:
            stack.enter_context(scope)
        try:
            yield
        except TenantNotGivenError as refused:
            # The guard finds that a tenant is missing; the identity knows where the request should have named it.
            raise identity.refusal(str(refused)) from refused
