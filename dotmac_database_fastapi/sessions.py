"""The sessions of a request, each with one transaction that ends with the request.

The blocks of this module are classes and not generators, because each generator around another one adds calls to every
request (`tests/fastapi/test_calls.py` counts them).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from starlette.requests import HTTPConnection
from starlette.types import Scope

from dotmac_database import (
    ALL_TENANTS,
    DatabaseTransaction,
    TenantNotGivenError,
    TransactionOptions,
    acting_as,
    bind_tenant,
    is_guarded,
    restrict_to_reads,
    tenant_scope,
    unscoped,
)

from .identity import IDENTITY_SESSIONS, NOBODY, IdentitySession, RequestIdentity
from .internals import ending_stack, fail_endpoint, is_first_exit
from .request_telemetry import continued, observe_request
from .session_callers import CALLER, AnySession, SessionCaller
from .source import Source

T = TypeVar("T")
A = TypeVar("A", bound=AsyncSession | async_scoped_session[Any])
S = TypeVar("S", bound=Session | scoped_session[Any])
O = TypeVar("O", Session, AsyncSession)  # noqa: E741 - not read as a zero here
Bind: TypeAlias = Callable[[AnySession, RequestIdentity], AbstractContextManager[None] | None]

_SCOPE = "dotmac_database.sessions"
_COMMITTED = "dotmac_database.committed"


def async_unit(
    source: Source, identity: RequestIdentity, *, unlimited: bool = False
) -> AbstractAsyncContextManager[AsyncSession]:
    """A session of the caller's tenant, in one lazy transaction: committed at the end, rolled back by any exception.

    With ``unlimited`` the transaction begins at once, and the server's time limits are lifted for it.
    """
    return _AsyncUnit(source, identity, _limitless(source) if unlimited else None)


def sync_unit(source: Source, identity: RequestIdentity, *, unlimited: bool = False) -> AbstractContextManager[Session]:
    """As `async_unit`, on a `Session`."""
    return _SyncUnit(source, identity, _limitless(source) if unlimited else None)


def _limitless(source: Source) -> TransactionOptions | None:
    """The options that lift the time limits of a transaction; None: the database has no such limits."""
    if not source.database.limits_time:
        return None
    return TransactionOptions(statement_timeout=0, idle_in_transaction_timeout=0)


async def request_session(source: Source, connection: HTTPConnection, identity: RequestIdentity) -> AsyncSession:
    """The request's async session, which ends when the endpoint has returned."""
    if source.database.is_observed:
        observe_request(source, connection, identity.tenant)
    return await _opened_once(connection, (id(source), "async"), _AsyncUnit(source, identity, None, connection.scope))


async def request_sync_session(source: Source, connection: HTTPConnection, identity: RequestIdentity) -> Session:
    """The request's sync session, for ``def`` endpoints; its COMMIT runs in a thread."""
    if source.database.is_observed:
        observe_request(source, connection, identity.tenant)
    return await _opened_once(connection, (id(source), "sync"), _ThreadedUnit(source, identity, connection.scope))


async def identity_session(source: Source, connection: HTTPConnection) -> AsyncSession:
    """A session without a tenant that only reads, for the dependencies that find the tenant and the actor."""
    if source.database.is_observed:
        observe_request(source, connection, None)
    return await _opened_for_identity(connection, (id(source), "async"), _AsyncUnit(source, NOBODY))


async def identity_sync_session(source: Source, connection: HTTPConnection) -> Session:
    """As `identity_session`, on a `Session`."""
    if source.database.is_observed:
        observe_request(source, connection, None)
    return await _opened_for_identity(connection, (id(source), "sync"), _ThreadedUnit(source, NOBODY))


async def _opened_for_identity(
    connection: HTTPConnection, key: tuple[object, object], unit: AbstractAsyncContextManager[O]
) -> O:
    sessions: dict[object, IdentitySession] = connection.scope.setdefault(IDENTITY_SESSIONS, {})
    known = sessions.get(key)
    if isinstance(known, _IdentitySession):
        return known.session  # type: ignore[no-any-return]  # the key names the kind of session
    session = await unit.__aenter__()
    restrict_to_reads(session)
    opened = sessions[key] = _IdentitySession(sessions, key, session, unit)
    ending_stack(connection).push_async_callback(opened.end)
    return session


class _IdentitySession(IdentitySession):
    """An open session for the identity. It ends with the identity's dependencies, else with the endpoint."""

    def __init__(
        self,
        sessions: dict[object, IdentitySession],
        key: object,
        session: AnySession,
        unit: AbstractAsyncContextManager[AnySession],
    ) -> None:
        self._sessions = sessions
        self._key = key
        self.session: Any = session
        self._unit = unit

    async def end(self) -> None:
        """End the session, and detach its objects. The second call has no effect."""
        if self._sessions.get(self._key) is self:
            del self._sessions[self._key]
            await self._unit.__aexit__(None, None, None)


async def lent_session(
    connection: HTTPConnection, identity: RequestIdentity, session: T, source: Source | None = None
) -> T:
    """A session that the app supplies in place of the request's, with the request's unit of work, tenant and actor.

    The session belongs to the app: it is not closed here, and if it is already in a transaction, the unit of work is a
    savepoint. An object that is not a session is returned unchanged.
    """
    key = "lent", id(session)
    caller: SessionCaller = source, identity, connection.scope
    if isinstance(session, (AsyncSession, async_scoped_session)):
        return await _opened_once(connection, key, _LentAsyncUnit(session, caller))
    if isinstance(session, (Session, scoped_session)):
        return await _opened_once(connection, key, _LentSyncUnit(session, caller))
    return session


async def _opened_once(
    connection: HTTPConnection, key: tuple[object, object], unit: AbstractAsyncContextManager[T]
) -> T:
    """One session for a request: the first call opens it, and later ones share it until the request's stack ends it."""
    open_sessions: dict[tuple[object, object], _Ending[Any]] = connection.scope.setdefault(_SCOPE, {})
    ending: _Ending[T] | None = open_sessions.get(key)
    if ending is not None:
        return ending.session
    try:
        session = await unit.__aenter__()
    except BaseException as failure:
        fail_endpoint(connection, failure)
        raise
    ending = open_sessions[key] = _Ending(connection, key, session, unit)
    ending_stack(connection).push_async_exit(ending.exit)
    return session


class _Ending(Generic[T]):
    """The end of a session that a request has opened.

    If the unit of work fails, the endpoint fails too, even if an outer dependency swallows the exception.
    """

    def __init__(
        self, connection: HTTPConnection, key: tuple[object, object], session: T, unit: AbstractAsyncContextManager[T]
    ) -> None:
        self._connection = connection
        self._key = key
        self.session = session
        self._is_async = isinstance(session, (AsyncSession, async_scoped_session))
        self.unit = unit

    async def exit(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit, or roll back if there is an error, and close the session."""
        del self._connection.scope[_SCOPE][self._key]
        session = self.session.sync_session if isinstance(self.session, AsyncSession) else self._sync_session()
        begun = session.in_transaction()
        try:
            if self._is_async and not _is_idle(session):
                with CancelScope(shield=True):
                    await self.unit.__aexit__(kind, error, traceback)
            else:  # no COMMIT is awaited, or it runs in a thread, which is shielded
                await self.unit.__aexit__(kind, error, traceback)
        except BaseException as failure:
            fail_endpoint(self._connection, failure)
            raise
        if error is not None:
            fail_endpoint(self._connection, error)
        elif begun:
            self._connection.scope[_COMMITTED] = True

    def _sync_session(self) -> Session:
        session: Any = self.session
        if isinstance(session, (scoped_session, async_scoped_session)):
            session = session()
        return session.sync_session if isinstance(session, AsyncSession) else session


def can_end_with_write(connection: HTTPConnection, session: object) -> bool:
    """Whether a write on this session may be committed at once, if it is the endpoint's last work.

    The session must be the request's own, and not one that the app supplies. Its COMMIT must come first when the
    endpoint has returned: what ends before it, such as a dependency of the user's, could still fail or write.
    """
    open_sessions: dict[tuple[object, object], _Ending[Any]] = connection.scope.get(_SCOPE, {})
    for ending in open_sessions.values():
        if ending.session is session:
            return type(ending.unit) is _AsyncUnit and is_first_exit(connection, ending.exit)
    return False


def later_session(connection: HTTPConnection, session: AsyncSession) -> AbstractAsyncContextManager[AsyncSession]:
    """A block with a session for work after one of the request's sessions has ended, such as the body of a response.

    It is a unit of work like that of ``session``, for the same tenant and actor: on a session of its own, or on
    ``session`` again if the app supplies that. A session that does not end with the request is given unchanged. For the
    telemetry, and for a budget of statements, the block belongs to the request.
    """
    open_sessions: dict[tuple[object, object], _Ending[Any]] = connection.scope.get(_SCOPE, {})
    for ending in open_sessions.values():
        if ending.session is session and isinstance(ending.unit, (_AsyncUnit, _LentAsyncUnit)):
            again: AbstractAsyncContextManager[AsyncSession] = ending.unit.again()
            return continued(again)
    return continued(nullcontext(session))


def _is_idle(session: Session) -> bool:
    """Whether nothing was begun in a session, and no callback waits for a commit.

    `on_commit` and `on_rollback` listen to the session's transactions.
    """
    # SQLAlchemy makes the dispatcher of a session when a listener is registered on it.
    listens = "dispatch" in vars(session) and bool(session.dispatch.after_transaction_create)
    return not listens and not session.in_transaction()


def has_committed(connection: HTTPConnection) -> bool:
    """Whether one of the request's sessions has committed since the last call of this function."""
    return bool(connection.scope.pop(_COMMITTED, False))


class _AsyncUnit(AbstractAsyncContextManager[AsyncSession]):
    """The block of `async_unit`. Without ``options`` its transaction is lazy."""

    def __init__(
        self,
        source: Source,
        identity: RequestIdentity,
        options: TransactionOptions | None = None,
        scope: Scope | None = None,
    ) -> None:
        self._source = source
        self._identity = identity
        self._options = options
        self._scope = scope

    def again(self) -> _AsyncUnit:
        """A block like this one, which may begin after it."""
        return _AsyncUnit(self._source, self._identity, self._options, self._scope)

    async def __aenter__(self) -> AsyncSession:
        session = self._session = self._source.makers.new_async_session()
        session.sync_session.info[CALLER] = self._source, self._identity, self._scope
        if self._source.policies is not None:
            self._source.policies.bind(session, self._identity.person, self._scope)
        try:
            self._caller = _Caller(session, self._identity)
            self._block = DatabaseTransaction.async_transaction(session, self._options, lazy=self._options is None)
            try:
                return await self._block.__aenter__()
            except BaseException:
                with self._caller:
                    raise
        except BaseException:
            await self._close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._caller:
                await self._block.__aexit__(kind, error, traceback)
                if error is not None:
                    _raise_missing(error)
        finally:
            await self._close()

    async def _close(self) -> None:
        session = self._session
        if session.sync_session.in_transaction():
            with CancelScope(shield=True):
                await session.close()
        else:
            session.sync_session.close()


class _SyncUnit(AbstractContextManager[Session]):
    """The block of `sync_unit`. Without ``options`` its transaction is lazy."""

    def __init__(
        self,
        source: Source,
        identity: RequestIdentity,
        options: TransactionOptions | None = None,
        scope: Scope | None = None,
    ) -> None:
        self._source = source
        self._identity = identity
        self._options = options
        self._scope = scope

    def __enter__(self) -> Session:
        session = self._session = self._source.makers.new_sync_session()
        session.info[CALLER] = self._source, self._identity, self._scope
        if self._source.policies is not None:
            self._source.policies.bind(session, self._identity.person, self._scope)
        try:
            self.caller = _Caller(session, self._identity)
            self._block = DatabaseTransaction.sync_transaction(session, self._options, lazy=self._options is None)
            try:
                return self._block.__enter__()
            except BaseException:
                with self.caller:
                    raise
        except BaseException:
            session.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self.caller:
            self.finish(kind, error, traceback)
            _raise_missing(error)

    def finish(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit or roll back, and close the session."""
        try:
            self._block.__exit__(kind, error, traceback)
        finally:
            self._session.close()

    @property
    def is_idle(self) -> bool:
        """Whether `finish` will send no statement and call no callback."""
        return _is_idle(self._session)


class _ThreadedUnit(AbstractAsyncContextManager[Session]):
    """A `_SyncUnit` that the event loop opens and closes. Only a transaction that was begun is ended in a thread."""

    def __init__(self, source: Source, identity: RequestIdentity, scope: Scope | None = None) -> None:
        self._limit = source.sync_limit
        self._unit = _SyncUnit(source, identity, None, scope)

    async def __aenter__(self) -> Session:
        self._slot = await self._limit.acquire()
        try:
            # A lazy transaction sends nothing. The actor is set in the request's own context: one that is set in a
            # worker thread would stay there.
            return self._unit.__enter__()
        except BaseException:
            self._slot.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._unit.is_idle:
                self._unit.__exit__(kind, error, traceback)
                return
            with self._unit.caller:
                await _in_own_thread(self._unit.finish, kind, error, traceback)
                _raise_missing(error)
        finally:
            self._slot.release()


class _LentAsyncUnit(AbstractAsyncContextManager[A]):
    """The unit of work of a request on an async session of the app's."""

    def __init__(self, session: A, caller: SessionCaller) -> None:
        self._session = session
        self._lent_to = caller

    def again(self) -> _LentAsyncUnit[A]:
        """A block like this one, which may begin after it."""
        return _LentAsyncUnit(self._session, self._lent_to)

    async def __aenter__(self) -> A:
        self._caller = _LentCaller(self._session, self._lent_to)
        self._block = DatabaseTransaction.async_transaction(self._session, lazy=True, nested=True)
        try:
            return await self._block.__aenter__()
        except BaseException:
            with self._caller:
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._caller:
            await self._block.__aexit__(kind, error, traceback)
            _raise_missing(error)


class _LentSyncUnit(AbstractAsyncContextManager[S]):
    """The unit of work of a request on a sync session of the app's."""

    def __init__(self, session: S, caller: SessionCaller) -> None:
        self._session = session
        self._lent_to = caller

    async def __aenter__(self) -> S:
        self._caller = _LentCaller(self._session, self._lent_to)
        self._block = DatabaseTransaction.sync_transaction(self._session, lazy=True, nested=True)
        try:
            return await to_thread.run_sync(self._block.__enter__, limiter=CapacityLimiter(1))
        except BaseException:
            with self._caller:
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._caller:
            await _in_own_thread(self._block.__exit__, kind, error, traceback)
            _raise_missing(error)


async def _in_own_thread(
    finish: Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], object],
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    """End a transaction in a worker thread.

    The thread does not count against anyio's limit of threads. Otherwise a request that waits for a thread in order to
    commit could hold the connection for which the requests in all other threads are waiting: a deadlock.
    """
    with CancelScope(shield=True):
        await to_thread.run_sync(finish, kind, error, traceback, limiter=CapacityLimiter(1))


def _raise_missing(error: BaseException | None) -> None:
    """Raise the exception that leaves a block again, if it says that the tenant is missing; see `_Caller`."""
    if isinstance(error, TenantNotGivenError):
        raise error


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


class _Caller:
    """Binds the session to the caller's tenant, and records the caller's actor in audit columns.

    Both begin when the object is made. ``with caller:`` is the last part of the session's block: it ends both.
    """

    def __init__(self, session: AnySession, identity: RequestIdentity, bind: Bind = _bind_own) -> None:
        self._identity = identity
        self._undo: ExitStack | None = None
        if identity.tenant is None and identity.actor is None:
            return
        scope = bind(session, identity)
        if identity.actor is None and scope is None:
            return
        with ExitStack() as undo:
            if identity.actor is not None:
                undo.enter_context(acting_as(identity.actor))
            if scope is not None:
                undo.enter_context(scope)
            self._undo = undo.pop_all()

    def __enter__(self) -> None:
        """Does nothing: the caller is bound already."""

    def __exit__(self, _kind: object, refused: BaseException | None, _traceback: object) -> None:
        if self._undo is not None:
            self._undo.close()
        if isinstance(refused, TenantNotGivenError):
            # The guard finds that a tenant is missing; the identity knows where the request should have named it.
            raise self._identity.refusal(str(refused)) from refused


class _LentCaller(_Caller):
    """The caller of a request on a session of the app's, which has its own caller again when the request ends."""

    def __init__(self, session: AnySession, caller: SessionCaller) -> None:
        self._info: MutableMapping[Any, Any] = session.info
        self._before = self._info.get(CALLER)
        super().__init__(session, caller[1], _bind_lent)
        self._info[CALLER] = caller
        source, identity, scope = caller
        self._rules = ExitStack()
        if source is not None and source.policies is not None:
            self._rules.enter_context(source.policies.lend(session, identity.person, scope))

    def __exit__(self, kind: object, refused: BaseException | None, traceback: object) -> None:
        self._rules.close()
        if self._before is None:
            del self._info[CALLER]
        else:
            self._info[CALLER] = self._before
        super().__exit__(kind, refused, traceback)
