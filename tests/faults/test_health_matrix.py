"""Health checks over driver, face, kind of check and kind of target: answers in time, and no trace."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from dotmac_database import Database, DatabaseHealthChecker, HealthCheckResult, HealthStatus, create_database
from dotmac_database.health import shared_checks
from dotmac_database.health.pools import subject_of
from tests.matrices import sampled
from tests.postgres import OwnServer

DRIVERS = ["psycopg", "psycopg/async", "asyncpg"]
KINDS = ["health", "connectivity"]
QUICK: dict[str, Any] = {"connection_timeout": 0.15, "query_timeout": 0.2}
PATIENT: dict[str, Any] = {"connection_timeout": 15.0, "query_timeout": 15.0}
IN_TIME = 30
"""Seconds. Without the limits of a check its caller waits longer; a busy machine may take some seconds more."""


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    own = OwnServer(max_connections=60).start()
    yield own
    own.stop()


class Proxy:
    """A proxy before a PostgreSQL that never hangs up: it swallows the client's Terminate, and closes nothing."""

    def __init__(self, server: OwnServer) -> None:
        self._upstream = make_url(server.url())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.clients = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        port = self._listener.getsockname()[1]
        return f"postgresql://{self._upstream.username}@127.0.0.1:{port}/{self._upstream.database}"

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.clients += 1
                server = self._connect()
                self._sockets += [client, server]
                threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
                threading.Thread(target=self._to_client, args=(client, server), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._upstream.query.get("host") or self._upstream.host, self._upstream.port or 5432
        if not str(host).startswith("/"):
            return socket.create_connection((str(host), port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if not data.endswith(b"X\x00\x00\x00\x04"):
                    server.sendall(data)
        self.clients -= 1

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)


@pytest.fixture
def proxy(server: OwnServer) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_trace(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that was asked for is left: no thread, and no task that was destroyed."""
    with caplog.at_level(logging.WARNING):
        yield
        until(lambda: not health_threads(), 60)
        gc.collect()
    assert not health_threads()
    assert [record.getMessage() for record in caplog.records if record.name != "dotmac_database"] == []


def health_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "database-health"]


def until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


async def alone() -> None:
    """Wait until no other task of this event loop is left."""
    async with asyncio.timeout(60):
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - they are not known
            await asyncio.sleep(0.01)


def made(driver: str, url: str, **options: Any) -> tuple[Database, Any]:
    """A database, and its engine of the driver."""
    name, _, twin = driver.partition("/")
    database = create_database(url.replace("postgresql", f"postgresql+{name}", 1), **options)
    return database, database.async_engine if twin or name == "asyncpg" else database.engine


TARGETS: dict[str, Callable[[Database, Any], Any]] = {
    "engine": lambda _, engine: engine,
    "session": lambda _, engine: AsyncSession(engine) if isinstance(engine, AsyncEngine) else Session(engine),
    "database": lambda database, _: database,
}
USUAL = [("health", "database"), ("connectivity", "engine")]
CELLS = [
    pytest.param(
        *cell, id="-".join(cell), marks=() if cell[2:] == USUAL[(number + number // 2) % 2] else pytest.mark.matrix
    )
    for number, (driver, face) in enumerate(product(DRIVERS, ["sync", "async"]))
    for cell in product([driver], [face], KINDS, sorted(TARGETS))
]


def timed(
    face: str,
    checker: DatabaseHealthChecker,
    kind: str,
    target: Any,
    at_result: Callable[[], None] = lambda: None,
) -> tuple[HealthCheckResult, float, float]:
    """The result, how long the caller waited for it, and how long until the app had ended."""
    started = time.perf_counter()
    if face == "sync":
        result: HealthCheckResult = getattr(checker, f"check_{kind}")(target)
        at_result()
        took = time.perf_counter() - started
        return result, took, took

    async def run() -> tuple[HealthCheckResult, float]:
        result = await getattr(checker, f"async_check_{kind}")(target)
        at_result()
        return result, time.perf_counter() - started

    result, took = asyncio.run(run())
    return result, took, time.perf_counter() - started


@pytest.mark.parametrize(("driver", "face", "kind", "target"), CELLS)
def test_a_proxy_that_does_not_hang_up(proxy: Proxy, driver: str, face: str, kind: str, target: str) -> None:
    database, engine = made(driver, proxy.url)
    open_then: list[int] = []
    asked = TARGETS[target](database, engine)
    result, _, _ = timed(face, DatabaseHealthChecker(**PATIENT), kind, asked, lambda: open_then.append(proxy.clients))
    assert result.status is HealthStatus.HEALTHY, result
    if driver == "asyncpg":  # psycopg itself waits for nobody
        assert open_then == [1]  # nor did the result wait for the end of its connection
    # What was left behind is cut.
    assert until(lambda: proxy.clients == 0, 60), proxy.clients


@pytest.mark.parametrize("driver", ["psycopg/async", "asyncpg"])
def test_an_app_that_goes_on_loses_the_connection_too(proxy: Proxy, driver: str) -> None:
    _, engine = made(driver, proxy.url)

    async def run() -> None:
        results = [await DatabaseHealthChecker(**PATIENT).async_check_connectivity(engine) for _ in range(3)]
        assert {result.status for result in results} == {HealthStatus.HEALTHY}
        await alone()
        assert until(lambda: proxy.clients == 0, 60), proxy.clients

    asyncio.run(run())


def silenced(server: OwnServer) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"


def frozen(server: OwnServer) -> Iterator[str]:
    server.freeze()
    try:
        yield server.url()
    finally:
        server.thaw()


def gone(server: OwnServer) -> Iterator[str]:
    with socket.socket() as taken:  # it is bound, so that nobody else takes the port, and does not listen
        taken.bind(("127.0.0.1", 0))
        yield f"postgresql://u@127.0.0.1:{taken.getsockname()[1]}/d"


FAULTS: dict[str, Callable[[OwnServer], Iterator[str]]] = {"frozen": frozen, "gone": gone, "silent": silenced}


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("kinds", "targets"),
    [
        pytest.param(["health"], ["database"], id="some"),
        pytest.param(KINDS, sorted(TARGETS), id="all", marks=pytest.mark.matrix),
    ],
)
def test_a_server_that_does_not_serve(
    server: OwnServer, fault: str, driver: str, kinds: list[str], targets: list[str]
) -> None:
    wrong: list[tuple[Any, ...]] = []
    faulty = FAULTS[fault](server)
    url = next(faulty)
    try:
        for face, kind, target in product(["sync", "async"], kinds, targets):
            # psycopg waits for a connection in C: nothing ends that wait but its own timeout, or the end of the fault.
            database, engine = made(driver, url, connect_timeout=2 * IN_TIME)
            result, took, ended = timed(face, DatabaseHealthChecker(**QUICK), kind, TARGETS[target](database, engine))
            sound = result.status is HealthStatus.UNHEALTHY and took < IN_TIME and ended < IN_TIME
            if not sound:
                wrong.append((face, kind, target, result, took, ended))
    finally:
        faulty.close()  # type: ignore[attr-defined]  # it is a generator
    assert not wrong


def freeze_at_work(server: OwnServer, place: str, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Freeze the server when a check has its connection, before its statements or after them. Set the event then."""
    work, frozen = shared_checks._run_work, threading.Event()

    def freeze() -> None:
        server.freeze()
        frozen.set()

    def freezing(*arguments: Any) -> Any:
        if place == "before":
            freeze()
            return work(*arguments)
        details = work(*arguments)
        freeze()
        return details

    monkeypatch.setattr(shared_checks, "_run_work", freezing)
    return frozen


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_server_that_freezes_on_the_way(
    server: OwnServer, driver: str, face: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the answer it is unhealthy; after it nothing is wrong, though nobody says goodbye."""
    freeze_at_work(server, place, monkeypatch)
    _, engine = made(driver, server.url())
    try:
        # A healthy answer may take its time on a busy machine.
        limits = QUICK if place == "before" else PATIENT
        result, took, ended = timed(face, DatabaseHealthChecker(**limits), "connectivity", engine)
        assert until(lambda: not health_threads(), 60)
    finally:
        server.thaw()
    assert result.status is (HealthStatus.UNHEALTHY if place == "before" else HealthStatus.HEALTHY), result
    assert took < IN_TIME
    assert ended < 2 * IN_TIME


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_check_whose_callers_stop_waiting_before_its_deadline_ends_itself(
    server: OwnServer, driver: str, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def subject_later(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.05)  # the caller's time has begun, and the check's has not
        return subject_of(*arguments, **options)

    monkeypatch.setattr("dotmac_database.health.checker.subject_of", subject_later)
    freeze_at_work(server, "before", monkeypatch)
    _, engine = made(driver, server.url())
    try:
        result, *_ = timed(face, DatabaseHealthChecker(**QUICK), "connectivity", engine)
        assert result.status is HealthStatus.UNHEALTHY, result
        assert until(lambda: not health_threads(), 60)
    finally:
        server.thaw()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_check_whose_callers_are_cancelled_at_work_ends_itself(
    server: OwnServer, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = freeze_at_work(server, "before", monkeypatch)
    _, engine = made(driver, server.url())

    async def run() -> None:
        caller = asyncio.create_task(
            DatabaseHealthChecker(connection_timeout=1, query_timeout=1).async_check_connectivity(engine)
        )
        while not frozen.is_set():  # noqa: ASYNC110 - a thread may set it
            await asyncio.sleep(0.01)
        caller.cancel()
        await alone()

    try:
        asyncio.run(run())
        assert until(lambda: not health_threads(), 60)
    finally:
        server.thaw()


def test_a_check_that_is_given_up_while_it_connects_asks_nothing(
    server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would end its thread if the server froze after that."""
    connects = threading.Event()
    freeze_at_work(server, "before", monkeypatch)
    _, engine = made("psycopg", server.url())
    event.listen(engine, "do_connect", lambda *_: connects.wait(60) and None)
    try:
        assert DatabaseHealthChecker(**QUICK).check_connectivity(engine).status is HealthStatus.UNHEALTHY
        connects.set()
        assert until(lambda: not health_threads(), 60)
    finally:
        server.thaw()


@pytest.mark.parametrize(
    ("driver", "fault"), sampled(list(product(["psycopg/async", "asyncpg"], ["frozen", "silent"])), 3)
)
def test_callers_that_are_all_cancelled_leave_nothing(server: OwnServer, driver: str, fault: str) -> None:
    faulty = FAULTS[fault](server)
    _, engine = made(driver, next(faulty))

    async def run() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(DatabaseHealthChecker(**QUICK).async_check_health(engine), 0.1)
        await alone()

    try:
        asyncio.run(run())
    finally:
        faulty.close()  # type: ignore[attr-defined]  # it is a generator


POOLS: list[tuple[str, dict[str, Any], int, str | None]] = [
    ("all out", {"pool_size": 2, "max_overflow": 1}, 3, "3 of 3"),
    ("one left", {"pool_size": 2, "max_overflow": 1}, 2, None),
    ("no overflow", {"pool_size": 1, "max_overflow": 0}, 1, "1 of 1"),
    ("any overflow", {"pool_size": 1, "max_overflow": -1}, 3, None),
    ("any size", {"pool_size": 0}, 3, None),
    ("no pool", {"poolclass": NullPool}, 3, None),
]


async def _sync(call: Callable[[], Any]) -> Any:
    return call()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_full_pool_is_degraded_by_name(server: OwnServer, driver: str) -> None:
    """On the face of the engine; each way to ask, and each size of a pool."""
    wrong: list[tuple[Any, ...]] = []

    async def run(name: str, options: dict[str, Any], out: int, full: str | None) -> None:
        database, engine = made(driver, server.url(), **options)
        is_async = isinstance(engine, AsyncEngine)
        checker = DatabaseHealthChecker(**PATIENT)
        async with AsyncExitStack() as stack:
            for _ in range(out):
                if is_async:
                    await stack.enter_async_context(engine.connect())
                else:
                    stack.enter_context(engine.connect())
            for kind, target in product(KINDS, TARGETS):
                prefix = "async_" if is_async else ""
                found = getattr(checker, f"{prefix}check_{kind}")(TARGETS[target](database, engine))
                result = await found if isinstance(found, Awaitable) else found
                message = f"the app's connection pool is full: {full} connections are in use"
                expected = "The database answers." if full is None else message
                status = HealthStatus.HEALTHY if full is None else HealthStatus.DEGRADED
                if (result.status, result.message) != (status, expected):
                    wrong.append((name, kind, target, result))
        after = checker.async_check_connectivity(database)
        if (await after).status is not HealthStatus.HEALTHY:
            wrong.append((name, "after"))
        await database.dispose_async()

    for pool in POOLS:
        asyncio.run(run(*pool))
    assert not wrong


def test_of_two_engines_the_one_in_use_is_asked_and_both_pools_count(server: OwnServer) -> None:
    database = create_database(server.url(), pool_size=1, max_overflow=0)
    checker = DatabaseHealthChecker(**PATIENT)

    async def run() -> None:
        assert database.engines == []
        with ExitStack() as stack:
            stack.enter_context(database.engine.connect())
            result = await checker.async_check_connectivity(database)
            assert result.message.startswith("the app's connection pool is full: 1 of 1")
            assert "pools" not in result.details
            assert database.engines == [database.engine]
            unused = database.async_engine
            assert len(database.engines) == 2
            assert "pools" not in (await checker.async_check_connectivity(database)).details
            async with unused.connect() as connection:
                await connection.execute(text("SELECT 1"))
                both = await checker.async_check_health(database)
            assert both.message.count("connection pool is full") == 2
            assert [pool["kind"] for pool in both.details["pools"]] == ["AsyncAdaptedQueuePool", "QueuePool"]
        assert (await checker.async_check_health(database)).status is HealthStatus.HEALTHY
        await database.dispose_async()

    asyncio.run(run())


def test_the_limit_of_a_pool_is_known() -> None:
    """SQLAlchemy has no public name for it."""
    from dotmac_database.health.pools import capacity

    found = {
        size: capacity(create_database("postgresql://x/y", pool_size=size, max_overflow=overflow).engine.pool)  # type: ignore[arg-type]  # a queue
        for size, overflow in ((3, 2), (4, 0), (5, -1), (0, 7))
    }
    assert found == {3: 5, 4: 4, 5: None, 0: None}


@pytest.mark.parametrize("missing", ["asyncpg", "psycopg"])
def test_one_of_the_drivers_is_enough(server: OwnServer, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    database = create_database(server.url())
    result, *_ = timed("async", DatabaseHealthChecker(**PATIENT), "health", database)
    assert result.status is HealthStatus.HEALTHY, result


@pytest.mark.parametrize(("face", "kind"), sampled(list(product(["sync", "async"], KINDS)), 2))
def test_an_sqlite_file_through_either_driver(tmp_path: Any, face: str, kind: str) -> None:
    for name in ("engine", "async_engine"):
        database = create_database(f"sqlite:///{tmp_path}/x.db")
        result, _, ended = timed(face, DatabaseHealthChecker(), kind, getattr(database, name))
        assert result.status is HealthStatus.HEALTHY, result
        assert ended < IN_TIME


def test_a_check_from_a_loop_leaves_a_memory_s_transaction_alone() -> None:
    """The one connection of a database in memory is in somebody's transaction."""
    database = create_database("sqlite://")
    with database.sessions() as session:
        session.execute(text("CREATE TABLE kept (id INTEGER)"))
        session.commit()
        session.execute(text("INSERT INTO kept VALUES (1)"))
        result, *_ = timed("async", DatabaseHealthChecker(), "health", database)
        assert result.status is HealthStatus.HEALTHY, result
        assert session.execute(text("SELECT count(*) FROM kept")).scalar() == 1
        session.commit()
        assert session.execute(text("SELECT count(*) FROM kept")).scalar() == 1
    database.dispose()
