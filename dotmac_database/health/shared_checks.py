"""Health checks that concurrent callers share: while a check is running, further callers get its outcome.

A check uses a connection outside of the pool, so that it does not wait for a full pool, and does not fill the pool. If
a check exceeds its time, it cuts its connection itself, since all of its callers may have stopped waiting, and the next
caller starts a new check. Callers get the outcome as soon
as the database has responded. The connection is closed after that. For an async engine this has a time limit of its
own, since a proxy may never close it; a sync check has a daemon thread, which may wait.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import Pool

from ..dialects.features import has_thread
from ..dialects.isolation import is_initialized
from ..dialects.postgresql_engine import cut
from ..dialects.sqlite_engine import shared_pool
from ..sqlalchemy_internals import remove_once_listeners

CLOSING = 1.0
"""The time for the server to close the connection, in seconds. After that it is cut."""

Work = Callable[[Connection], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The details that a check found, or its failure. ``duration_ms`` includes connecting."""

    details: dict[str, Any]
    duration_ms: float
    failure: Exception | None = None


@dataclass(eq=False)
class SharedCheck:
    """A running check. ``deadline`` is a time of `time.monotonic`."""

    deadline: float
    outcome: Future[Outcome] = field(default_factory=Future)
    task: asyncio.Task[Any] | None = None
    _driver: object = None
    _is_given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ended(self) -> bool:
        """Whether it has an outcome, or its deadline has passed."""
        return self.outcome.done() or time.monotonic() >= self.deadline

    def hold(self, driver: Any) -> None:
        """Remember the driver's connection, so that `abandon` can cut it. None: there is nothing to cut any more.

        Raises TimeoutError if the check was abandoned while it connected: nothing would cut this connection later.
        """
        with self._lock:
            if driver is not None and self._is_given_up:
                raise TimeoutError
            self._driver = driver

    def answer(self, outcome: Outcome) -> None:
        """Set the outcome, unless there is one already."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def abandon(self) -> bool:
        """Cut the connection, if it is open. Returns whether it was. Can be called from any thread for psycopg."""
        with self._lock:
            self._is_given_up = True
            return self._driver is not None and cut(self._driver)

    def abandon_task(self, task: asyncio.Task[object]) -> None:
        """As `abandon`, in the event loop of the ``task`` that runs the check. Without a connection it is cancelled."""
        # The connection is cut before the task is cancelled. Otherwise asyncpg would send a cancel request to the
        # frozen server, and wait for it.
        if not self.outcome.done() and not self.abandon():
            task.cancel()

    async def ending(self) -> None:
        """Wait at most 0.1 seconds for the task of a check to end, after its deadline.

        The event loop may be closed after that. If the task were still running then, psycopg would wait five seconds
        for a server that does not respond.
        """
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=0.1)


_LOCK = threading.Lock()
# The key is the pool and not the engine, because `Engine.execution_options` makes another engine with the same pool.
_SHARED: WeakKeyDictionary[Pool, dict[object, SharedCheck]] = WeakKeyDictionary()


def shared_check(engine: Engine, kind: str, seconds: float, work: Work) -> SharedCheck:
    """The running check of this ``kind``, or a new one in a thread of its own."""

    def start(check: SharedCheck) -> None:
        # A daemon thread, since a frozen server must not keep the process alive.
        threading.Thread(target=_run, args=(check, engine, work), name="database-health", daemon=True).start()

    return _shared(engine, (kind, None), seconds, start)


def shared_check_async(engine: Engine, kind: str, seconds: float, work: Work) -> SharedCheck:
    """As `shared_check`, but the check of an async engine runs in a task of the running event loop."""
    if not engine.dialect.is_async:
        return shared_check(engine, kind, seconds, work)

    def start(check: SharedCheck) -> None:
        check.task = asyncio.create_task(_run_async(check, engine, work))
        # If the task is cancelled before it starts, its ``finally`` does not run.
        check.task.add_done_callback(lambda _: check.answer(Outcome({}, 0.0, TimeoutError())))

    return _shared(engine, (kind, id(asyncio.get_running_loop())), seconds, start)


def _shared(engine: Engine, key: object, seconds: float, start: Callable[[SharedCheck], None]) -> SharedCheck:
    with _LOCK:
        checks = _SHARED.setdefault(engine.pool, {})
        check = checks.get(key)
        if check is None or check.ended:
            check = checks[key] = SharedCheck(time.monotonic() + seconds)
            start(check)
        return check


def _run(check: SharedCheck, engine: Engine, work: Work) -> None:
    if engine.dialect.is_async:
        with suppress(asyncio.CancelledError):  # the check was abandoned
            asyncio.run(_run_async(check, engine, work))
        return
    started = time.perf_counter()
    overdue = threading.Timer(check.deadline - time.monotonic(), check.abandon)
    overdue.daemon = True
    overdue.start()
    try:
        separate = beside_the_pool(engine)
        try:
            with separate.connect() as connection:
                check.answer(Outcome(_run_work(check, connection, work), _since(started)))
        finally:
            if separate is not engine:
                separate.dispose()
    except Exception as error:  # noqa: BLE001 - any failure is the outcome of the check
        check.answer(Outcome({}, _since(started), error))
    finally:
        overdue.cancel()


async def _run_async(check: SharedCheck, engine: Engine, work: Work) -> None:
    started = time.perf_counter()
    task = check.task = cast("asyncio.Task[object]", asyncio.current_task())
    overdue = asyncio.get_running_loop().call_later(check.deadline - time.monotonic(), check.abandon_task, task)
    connection: AsyncConnection | None = None
    outcome = Outcome({}, 0.0, TimeoutError())
    try:
        connection = await AsyncEngine(beside_the_pool(engine)).connect()
        details = await connection.run_sync(lambda sync: _run_work(check, sync, work))
        outcome = Outcome(details, _since(started))
    except Exception as error:  # noqa: BLE001 - any failure is the outcome of the check
        outcome = Outcome({}, _since(started), error)
    finally:
        overdue.cancel()
        # SQLite's outcome is set only after closing, which takes no time: the thread of aiosqlite must end before the
        # caller closes the event loop.
        if not has_thread(engine.dialect.name):
            check.answer(outcome)
        if connection is not None:
            await _close(connection, own=connection.sync_engine is not engine)
        check.answer(outcome)


async def _close(connection: AsyncConnection, *, own: bool) -> None:
    """Close the connection. If it belongs to the check (``own``), it is cut after at most `CLOSING` seconds."""
    sync = connection.sync_connection
    if sync is None or sync.invalidated:
        return
    if not own:
        await connection.close()
        return
    driver = sync.connection.driver_connection
    # Detached, since the pool would log an error if the event loop ended before the connection is closed.
    sync.detach()
    try:
        with suppress(Exception):
            async with asyncio.timeout(CLOSING):
                await driver.close()  # type: ignore[union-attr]  # it is connected
    finally:
        cut(driver)


def _run_work(check: SharedCheck, connection: Connection, work: Work) -> dict[str, object]:
    check.hold(connection.connection.driver_connection)
    try:
        if not is_initialized(connection.dialect):
            connection.dialect.initialize(connection)
            connection.rollback()
        return work(connection)
    finally:
        check.hold(None)


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def in_memory(engine: Engine) -> Any:
    """The driver's connection of an SQLite database in memory, if it is open; else None."""
    pool = shared_pool(engine)
    return pool.connection.driver_connection if pool is not None and "connection" in pool.__dict__ else None


def beside_the_pool(engine: Engine) -> Engine:
    """An engine like this one, with a new pool. For a database in memory, it is the engine itself.

    Another connection would not see a database in memory. If the app has not connected yet, the new engine gets a copy
    of the dialect. Otherwise the check could still be initializing the app's dialect while the app's first connections
    use it already.
    """
    if shared_pool(engine) is not None:
        return engine
    pool = engine.pool.recreate()
    remove_once_listeners(pool)
    return Engine(pool, engine.dialect if is_initialized(engine.dialect) else copy(engine.dialect), engine.url)
