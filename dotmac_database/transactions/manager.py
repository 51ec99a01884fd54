"""`TransactionManager`: runs transactions, and retries them after transient failures."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from sqlalchemy import inspect as sa_inspect
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..dialects import translated
from ..errors import TransactionError, ValidationError
from ..execution.state import keep, sync_session
from ..retry.enclosed import encloses
from ..retry.policy import RetryPolicy
from ..retry.runner import Retries
from .block import DatabaseTransaction
from .options import TransactionOptions

R = TypeVar("R")


class TransactionManager:
    """Runs operations in transactions of their own, and retries them after transient failures.

    ``session_factory`` makes the sessions for calls without one: a ``sessionmaker``, an ``async_sessionmaker``, or any
    callable without arguments. ``max_retries`` is the number of attempts after the first one; ``retry_delay`` is in
    seconds, and grows by ``backoff_multiplier``. A ``policy`` replaces these three. ``options`` apply to each
    transaction. Raises `ValidationError` for invalid values.
    """

    def __init__(
        self,
        session_factory: Callable[[], Any] | None = None,
        max_retries: int = 3,
        retry_delay: float = 1.0,
        backoff_multiplier: float = 2.0,
        *,
        policy: RetryPolicy | None = None,
        options: TransactionOptions | None = None,
    ) -> None:
        if max_retries < 0:
            raise ValidationError("max_retries must not be negative.", field="max_retries")
        self.session_factory = session_factory
        self.policy = policy or RetryPolicy(
            max_attempts=max_retries + 1, base_delay=retry_delay, multiplier=backoff_multiplier
        )
        self.options = options

    def execute_with_retry(self, operation: Callable[[Any], R], session: Any = None, *, idempotent: bool = False) -> R:
        """Call ``operation(session)`` in a transaction, commit it, and return its result.

        After a transient failure (see `is_transient`) it rolls back, waits without a connection, and tries again: on
        ``session``, or, if that is None, in a new session of the manager's ``session_factory`` for each attempt, which
        is closed at its end. Without a session and without a factory it raises `TransactionError`: pass one of them, as
        in ``TransactionManager(database.sessions)``. If the connection is lost during COMMIT, the outcome is
        unknown. Then it tries again only if the operation may be run twice (``idempotent``), and otherwise raises
        `TransactionError` with ``outcome="unknown"``.

        There is only one attempt if ``session`` is already in a block, or in a transaction that was begun explicitly or
        that may have changed rows, since only the whole transaction could be retried. In a block, or in a transaction
        that was begun explicitly, the operation runs in a savepoint. Entities that the operation returns, alone or in a
        list or tuple, keep their loaded values after the commit.
        """
        if inspect.iscoroutinefunction(operation):
            raise TransactionError("A coroutine function takes async_execute_with_retry.")

        def attempt() -> R:
            with self.sync_transaction(session) as current:
                result = operation(current)
                _keep(sync_session(current), result)
                return result

        enclosed = False
        if session is not None:
            with translated():
                enclosed = encloses(sync_session(session))
        return self._retries(operation, idempotent, enclosed).run(attempt)

    async def async_execute_with_retry(
        self, operation: Callable[[Any], Awaitable[R]], session: Any = None, *, idempotent: bool = False
    ) -> R:
        """As `execute_with_retry`, with a coroutine function and an `AsyncSession`."""

        async def attempt() -> R:
            async with self.async_transaction(session) as current:
                return await operation(current)

        enclosed = False
        if session is not None:
            with translated():
                enclosed = await _plain(session).run_sync(encloses)
        return await self._retries(operation, idempotent, enclosed).run_async(attempt)

    @contextmanager
    def sync_transaction(self, session: Any = None) -> Iterator[Any]:
        """A `DatabaseTransaction` on ``session``. None: on a new session of the factory, which is closed at the end."""
        if session is not None:
            with DatabaseTransaction.sync_transaction(session, self.options) as tx:
                yield tx
            return
        own = self._new_session((Session, scoped_session), "Session")
        try:
            with DatabaseTransaction.sync_transaction(own, self.options) as tx:
                yield tx
        finally:
            own.close()

    @asynccontextmanager
    async def async_transaction(self, session: Any = None) -> AsyncIterator[Any]:
        """As `sync_transaction`, for an `AsyncSession`."""
        if session is not None:
            async with DatabaseTransaction.async_transaction(session, self.options) as tx:
                yield tx
            return
        own = _plain(self._new_session((AsyncSession, async_scoped_session), "AsyncSession"))
        async with own, DatabaseTransaction.async_transaction(own, self.options) as tx:
            yield tx

    def _new_session(self, classes: tuple[type, ...], name: str) -> Any:
        if self.session_factory is None:
            factory = "database.sessions" if name == "Session" else "database.async_sessions"
            raise TransactionError(
                f"There is neither a session nor a session_factory. Pass {_a(name)} as the argument session, or make "
                f"the manager with a factory, TransactionManager({factory}), which makes a session for each attempt."
            )
        session = self.session_factory()
        if not isinstance(session, classes):
            raise TransactionError(f"The session_factory made a {type(session).__name__}; this needs {_a(name)}.")
        return session

    def _retries(self, operation: Callable[..., Any], idempotent: bool, enclosed: bool) -> Retries:
        name = getattr(operation, "__qualname__", None) or type(operation).__name__
        return Retries(self.policy, name, idempotent, enclosed)


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"


def _plain(session: Any) -> AsyncSession:
    if isinstance(session, async_scoped_session):
        session = session()
    if not isinstance(session, AsyncSession):
        raise TransactionError(f"An AsyncSession was expected, not {type(session).__name__}.")
    return session


def _keep(session: Session, result: Any) -> None:
    """Preserve the values of the entities in ``result`` at the commit. An `AsyncSession` expires nothing."""
    items = result if isinstance(result, (list, tuple)) else [result]
    mapped = [item for item in items if getattr(sa_inspect(item, raiseerr=False), "session", None) is session]
    if mapped:
        session.flush()
        keep(session, *mapped)
