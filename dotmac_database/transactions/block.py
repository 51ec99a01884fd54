"""`DatabaseTransaction`: a block that is a transaction or a savepoint."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..errors import TransactionError
from ..execution.state import AnySession, state_of, sync_session
from ..retry.transient import database_error
from .hooks import has_callbacks
from .options import TransactionOptions
from .sync_block import SyncBlock

S = TypeVar("S", bound="Session | scoped_session[Any]")
A = TypeVar("A", bound="AsyncSession | async_scoped_session[Any]")

ROLLBACK_TIMEOUT = 5.0
"""How long a cancelled block waits for its ROLLBACK, in seconds. After that it discards its connection.

It waits at most ``_GRACE`` seconds for that.
"""
_GRACE = 2.0


class DatabaseTransaction:
    """A block that is committed as a whole, or not at all.

    It commits when it ends, and rolls back when an exception leaves it. The user's own exceptions are raised unchanged;
    those of the database, including those of COMMIT, are raised as the toolkit's. Inside the block, a repository with
    ``auto_commit`` only flushes. A block inside another block is a savepoint, and so is a block inside a transaction
    that was begun with ``session.begin()``: the user commits that transaction. If earlier statements have opened a
    transaction implicitly, the block continues and commits it. An explicit commit or rollback inside the block ends the
    block's transaction. Then later work in the block is rolled back, and the block raises `TransactionError` at its
    end.

    With ``lazy`` the outermost block has no database transaction until its first write; each earlier read is sent
    without one. ``options`` raise `TransactionError` if the transaction has already begun, if the database does not
    support them, or if the block is ``lazy``.

    A write of a repository inside the block is atomic: if it fails, only the write is undone, and the block can go on.
    On PostgreSQL this takes a savepoint, one more message for each write. ``savepoints=False`` leaves it out: a write
    that fails then dooms the block, which can only be rolled back.

    ``nested`` is for a session of other code, which also owns the session's open transaction. The block is then a
    savepoint even inside a transaction that earlier statements have opened implicitly. If an explicit commit inside the
    block ends that transaction, later work in the block is in a new transaction, which the block commits.
    """

    @staticmethod
    def sync_transaction(
        session: S,
        options: TransactionOptions | None = None,
        *,
        lazy: bool = False,
        nested: bool = False,
        savepoints: bool = True,
    ) -> AbstractContextManager[S]:
        """The block for a `Session`; ``with ... as`` gives the session itself."""
        if isinstance(session, (AsyncSession, async_scoped_session)):
            raise TransactionError("An AsyncSession takes async_transaction.")
        return _Block(session, options, lazy=lazy, nested=nested, savepoints=savepoints)

    @staticmethod
    def async_transaction(
        session: A,
        options: TransactionOptions | None = None,
        *,
        lazy: bool = False,
        nested: bool = False,
        savepoints: bool = True,
    ) -> AbstractAsyncContextManager[A]:
        """As `sync_transaction`, for an `AsyncSession`.

        If the task is cancelled in the block, the block rolls back, even if the task is cancelled again meanwhile. If
        the task is cancelled during COMMIT, the outcome is unknown. In both cases the connection is either usable
        afterwards, or discarded.
        """
        if isinstance(session, (Session, scoped_session)):
            raise TransactionError("A Session takes sync_transaction.")
        return _AsyncBlock(session, options, lazy=lazy, nested=nested, savepoints=savepoints)

    @staticmethod
    def last_write(session: AnySession) -> AbstractContextManager[bool]:
        """A block for the last write in a lazy `DatabaseTransaction`: one call of a repository's method.

        Use it only if nothing can fail after the write, since the write may then be committed already. If nothing was
        begun before, and the write is one statement that needs no transaction, it is sent without BEGIN and COMMIT: one
        message instead of three. The session is then in no transaction afterwards. Otherwise this block has no effect.
        ``with ... as`` gives False if that is known before the write, since the session has callbacks (`on_commit`).
        """
        return _LastWrite(sync_session(session))


class _LastWrite(AbstractContextManager[bool]):
    def __init__(self, session: Session) -> None:
        self._session = session
        self._state = state_of(session)

    def __enter__(self) -> bool:
        allowed = self._state.last_write = not has_callbacks(self._session)
        return allowed

    def __exit__(self, *_: object) -> None:
        self._state.last_write = False


class _Block(Generic[S]):
    def __init__(self, session: S, options: TransactionOptions | None, **kind: bool) -> None:
        self._session = session
        self._block = SyncBlock(sync_session(session), options, **kind)

    def __enter__(self) -> S:
        self._block.begin()
        return self._session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._block.abandon()
            _raise_translated(error)
            return
        try:
            self._block.succeed()
        finally:
            self._block.abandon()


class _AsyncBlock(Generic[A]):
    def __init__(self, session: A, options: TransactionOptions | None, **kind: bool) -> None:
        self._session = session
        self._plain: AsyncSession = session() if isinstance(session, async_scoped_session) else session
        inner = sync_session(self._plain)
        state_of(inner).asynchronous = True
        self._block = SyncBlock(inner, options, **kind)

    async def __aenter__(self) -> A:
        try:
            if not self._block.begin_silently():
                await self._plain.run_sync(lambda _: self._block.begin())
        except BaseException:
            await self._abandon()
            raise
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await self._abandon()
            _raise_translated(error)
            return
        try:
            if self._block.has_nothing_to_commit:
                self._block.succeed()
            else:
                await self._plain.run_sync(lambda _: self._block.succeed())
        except BaseException:
            await self._abandon()
            raise

    async def _abandon(self) -> None:
        await _to_its_end(self._plain.run_sync(lambda _: self._block.abandon()))


def _raise_translated(error: BaseException) -> None:
    failure = database_error(error)
    if failure is not None and failure is not error:
        raise failure from failure.__cause__


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` in a separate task, so that a cancellation of the current task does not interrupt it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    loop = asyncio.get_running_loop()
    end = loop.time() + ROLLBACK_TIMEOUT
    while not task.done():
        try:
            await asyncio.wait({task}, timeout=max(0.0, end - loop.time()))
        except asyncio.CancelledError as again:
            cancelled = again
        if loop.time() >= end:
            task.cancel()
            end = loop.time() + _GRACE
    if not task.cancelled():
        task.result()
    if cancelled is not None:
        raise cancelled
