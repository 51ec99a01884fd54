"""One check at a time: whoever asks while it is under way gets its outcome.

A check runs on a connection of its own, beside the pool: a full pool can't keep it waiting, and it can't fill the
pool. One that outlasts its time is cut off, and the next caller starts another. The outcome is there as soon as the
database has answered: closing the connection goes on behind it, since a proxy may never hang up, and has its own bound.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import Pool, StaticPool

from ..dialects.postgresql_engine import cut

CLOSING = 1.0
"""How long the other side may take to hang up, in seconds; after that the connection is cut."""

Work = Callable[[Connection], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found, or what it failed with; ``duration_ms`` with connecting."""

    details: dict[str, Any]
    duration_ms: float
    failure: Exception | None = None


@dataclass(eq=False)
class SharedCheck:
    """A check under way; ``deadline`` is on the monotonic clock."""

    deadline: float
    outcome: Future[Outcome] = field(default_factory=Future)
    task: asyncio.Task[Any] | None = None
    _driver: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ended(self) -> bool:
        """Whether it has its outcome, or should long have had it."""
        return self.outcome.done() or time.monotonic() >= self.deadline

    def hold(self, driver: Any) -> None:
        """Remember the driver's connection while it may have to be cut; None when it is about to be closed."""
        with self._lock:
            self._driver = driver

    def answer(self, outcome: Outcome) -> None:
        """Give the outcome to all who wait, unless they have one."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def abandon(self) -> None:
        """Let a check that is overdue end: nobody waits for it any more. From any thread."""
        if self.outcome.done() or time.monotonic() < self.deadline:
            return
        if self.task is None:
            self._cut()
            return
        with suppress(RuntimeError):  # its loop is closed, and it has ended
            self.task.get_loop().call_soon_threadsafe(self._stop, self.task)

    async def ending(self) -> None:
        """Let the abandoned task of this loop end, a tenth of a second at most.

        The loop may be about to close, and psycopg would have it wait five seconds for a server that is frozen.
        """
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=0.1)

    def _stop(self, task: asyncio.Task[Any]) -> None:
        # A task that is cancelled has asyncpg ask the frozen server to cancel: one that is cut has nothing to ask.
        if not self._cut():
            task.cancel()

    def _cut(self) -> bool:
        with self._lock:
            return self._driver is not None and cut(self._driver)


_LOCK = threading.Lock()
# By pool and not by engine: `Engine.execution_options` gives another engine on the same pool.
_SHARED: WeakKeyDictionary[Pool, dict[Any, SharedCheck]] = WeakKeyDictionary()


def shared_check(engine: Engine, kind: str, seconds: float, work: Work) -> SharedCheck:
    """The check of this ``kind`` that is under way, or a new one in a thread of its own."""

    def start(check: SharedCheck) -> None:
        # A daemon: where the server is frozen for good it must not keep the process alive.
        threading.Thread(target=_run, args=(check, engine, work), name="database-health", daemon=True).start()

    return _shared(engine, (kind, None), seconds, start)


def shared_check_async(engine: Engine, kind: str, seconds: float, work: Work) -> SharedCheck:
    """As `shared_check`, in a task of the running loop; a sync engine gets its thread."""
    if not engine.dialect.is_async:
        return shared_check(engine, kind, seconds, work)

    def start(check: SharedCheck) -> None:
        check.task = asyncio.create_task(_run_async(check, engine, work))
        # A task that is cancelled before its first step runs no ``finally``.
        check.task.add_done_callback(lambda _: check.answer(Outcome({}, 0.0, TimeoutError())))

    return _shared(engine, (kind, id(asyncio.get_running_loop())), seconds, start)


def _shared(engine: Engine, key: Any, seconds: float, start: Callable[[SharedCheck], None]) -> SharedCheck:
    with _LOCK:
        checks = _SHARED.setdefault(engine.pool, {})
        check = checks.get(key)
        if check is None or check.ended:
            check = checks[key] = SharedCheck(time.monotonic() + seconds)
            start(check)
        return check


def _run(check: SharedCheck, engine: Engine, work: Work) -> None:
    if engine.dialect.is_async:
        with suppress(asyncio.CancelledError):  # it was abandoned
            asyncio.run(_run_async(check, engine, work))
        return
    started = time.perf_counter()
    try:
        beside = beside_the_pool(engine)
        try:
            with beside.connect() as connection:
                check.answer(Outcome(_held(check, connection, work), _since(started)))
        finally:
            if beside is not engine:
                beside.dispose()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is what the check found
        check.answer(Outcome({}, _since(started), error))


async def _run_async(check: SharedCheck, engine: Engine, work: Work) -> None:
    started = time.perf_counter()
    check.task = asyncio.current_task()
    # The callers may all be cancelled, and then nobody abandons it.
    overdue = asyncio.get_running_loop().call_later(check.deadline - time.monotonic() + 0.1, check.abandon)
    connection: AsyncConnection | None = None
    outcome = Outcome({}, 0.0, TimeoutError())
    try:
        connection = await AsyncEngine(beside_the_pool(engine)).connect()
        details = await connection.run_sync(lambda sync: _held(check, sync, work))
        outcome = Outcome(details, _since(started))
    except Exception as error:  # noqa: BLE001 - whatever it was, it is what the check found
        outcome = Outcome({}, _since(started), error)
    finally:
        overdue.cancel()
        # A file closes at once, and its driver's thread must have ended before the caller's loop may.
        if engine.dialect.name != "sqlite":
            check.answer(outcome)
        if connection is not None:
            await _let_go(connection, own=connection.sync_engine is not engine)
        check.answer(outcome)


async def _let_go(connection: AsyncConnection, *, own: bool) -> None:
    """Close the connection if it is the check's ``own``; cut it when the other side takes too long to hang up."""
    sync = connection.sync_connection
    if sync is None or sync.invalidated:
        return
    if not own:
        await connection.close()
        return
    driver = sync.connection.driver_connection
    # No pool knows it any more: one would log an error when the loop ends before the other side hangs up.
    sync.detach()
    try:
        with suppress(Exception):
            async with asyncio.timeout(CLOSING):
                await driver.close()  # type: ignore[union-attr]  # it is connected
    finally:
        cut(driver)


def _held(check: SharedCheck, connection: Connection, work: Work) -> dict[str, Any]:
    check.hold(connection.connection.driver_connection)
    try:
        return work(connection)
    finally:
        check.hold(None)


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def in_memory(engine: Engine) -> Any:
    """The driver's one connection of an SQLite database in memory, if it is there; else None."""
    if engine.dialect.name != "sqlite" or not isinstance(engine.pool, StaticPool):
        return None
    return engine.pool.connection.driver_connection if "connection" in engine.pool.__dict__ else None


def beside_the_pool(engine: Engine) -> Engine:
    """An engine whose connections are its own; a database in memory has just the one that there is."""
    if engine.dialect.name == "sqlite" and isinstance(engine.pool, StaticPool):
        return engine
    return Engine(engine.pool.recreate(), engine.dialect, engine.url)
