"""A health check of a server that is frozen, silent, gone or full returns in time and says so."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from dotmac_database import create_database
from dotmac_database.health import DatabaseHealthChecker, HealthCheckResult, HealthStatus
from tests.postgres import OwnServer

FACES = ["sync", "async"]
IN_TIME = 30
"""Seconds. A check that had no limit of its own would wait for ever; a busy machine may take some seconds more."""


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    own = OwnServer(max_connections=20).start()
    yield own
    own.stop()


def checked(
    face: str, url: str, checker: DatabaseHealthChecker, kind: str = "health", times: int = 1
) -> list[HealthCheckResult]:
    """``times`` checks at once, through either face."""
    database = create_database(url, connect_timeout=None)
    if face == "sync":
        results: list[HealthCheckResult] = []
        check = getattr(checker, f"check_{kind}")
        threads = [threading.Thread(target=lambda: results.append(check(database.engine))) for _ in range(times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    async def run() -> list[HealthCheckResult]:
        check = getattr(checker, f"async_check_{kind}")
        return list(await asyncio.gather(*(check(database.async_engine) for _ in range(times))))

    return asyncio.run(run())


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("kind", ["health", "connectivity"])
def test_a_sound_server_is_healthy(server: OwnServer, face: str, kind: str) -> None:
    (result,) = checked(face, server.url(), DatabaseHealthChecker(), kind)
    assert result.status is HealthStatus.HEALTHY, result
    assert f"{result.status}" == "healthy"
    assert result.error is None
    assert 0 < result.details["latency_ms"] <= result.duration_ms
    if kind == "health":
        assert result.details["connections"]["allowed"] == 17  # three are the superuser's
        assert all("error" not in detail for detail in result.details.values() if isinstance(detail, dict))


@pytest.mark.parametrize("face", FACES)
def test_a_frozen_server_is_unhealthy_in_time(server: OwnServer, face: str) -> None:
    checker = DatabaseHealthChecker(connection_timeout=0.4, query_timeout=0.6)
    server.freeze()
    try:
        started = time.perf_counter()
        (result,) = checked(face, server.url(), checker)
        assert time.perf_counter() - started < IN_TIME
    finally:
        server.thaw()
    assert result.status is HealthStatus.UNHEALTHY
    assert "did not answer" in result.message


@pytest.mark.parametrize("face", FACES)
def test_a_socket_that_accepts_and_says_nothing_is_unhealthy_in_time(face: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        started = time.perf_counter()
        (result,) = checked(face, url, DatabaseHealthChecker(connection_timeout=0.4, query_timeout=0.6))
        assert time.perf_counter() - started < IN_TIME
    assert result.status is HealthStatus.UNHEALTHY


@pytest.mark.parametrize("face", FACES)
def test_no_server_is_unhealthy(face: str) -> None:
    with socket.socket() as taken:  # it is bound, so that nobody else takes the port, and does not listen
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://u@127.0.0.1:{taken.getsockname()[1]}/d"
        (result,) = checked(face, url, DatabaseHealthChecker())
    assert result.status is HealthStatus.UNHEALTHY
    assert "DatabaseUnavailableError" in (result.error or "")


@pytest.mark.parametrize("face", FACES)
def test_a_storm_of_checks_is_one_check(server: OwnServer, face: str) -> None:
    results = checked(face, server.url(), DatabaseHealthChecker(), times=50)
    assert len(results) == 50
    assert {result.status for result in results} == {HealthStatus.HEALTHY}
    assert max(result.details["connections"]["used"] for result in results) < 10


@pytest.mark.parametrize("face", FACES)
def test_a_server_without_free_connections_is_unhealthy(server: OwnServer, face: str) -> None:
    held: list[Any] = []
    try:
        with suppress(psycopg.OperationalError):
            while len(held) < 30:
                held.append(psycopg.connect(server.url()))
        assert len(held) < 30
        (result,) = checked(face, server.url(), DatabaseHealthChecker())
        assert result.status is HealthStatus.UNHEALTHY
        assert "DatabaseUnavailableError" in (result.error or ""), result
    finally:
        for connection in held:
            connection.close()


DRIVERS = ["psycopg", "psycopg/async", "asyncpg"]


class Checking:
    """One engine of a driver, checked again and again."""

    def __init__(self, driver: str, url: str, **options: Any) -> None:
        name, _, twin = driver.partition("/")
        self.is_async = bool(twin) or name == "asyncpg"
        self.database = create_database(url.replace("postgresql", f"postgresql+{name}", 1), **options)
        self.runner = asyncio.Runner()

    def __call__(self, checker: DatabaseHealthChecker, kind: str = "health") -> HealthCheckResult:
        if not self.is_async:
            result: HealthCheckResult = getattr(checker, f"check_{kind}")(self.database.engine)
            return result
        awaited: HealthCheckResult = self.runner.run(
            getattr(checker, f"async_check_{kind}")(self.database.async_engine)
        )
        return awaited

    def pause(self, seconds: float) -> None:
        """Let what goes on behind the caller go on."""
        self.runner.run(asyncio.sleep(seconds))

    def close(self) -> None:
        self.runner.run(self.database.dispose_async())
        self.runner.close()


@pytest.fixture(params=DRIVERS)
def checking(request: pytest.FixtureRequest, server: OwnServer) -> Iterator[Checking]:
    made = Checking(request.param, server.url(), pool_size=1, max_overflow=0)
    yield made
    made.close()


def health_threads() -> int:
    return sum(thread.name == "database-health" for thread in threading.enumerate())


def freeze_during(server: OwnServer, checker: DatabaseHealthChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze the server as soon as the check has its connection."""
    from dotmac_database.health import shared_checks

    original = shared_checks._run_work

    def frozen(*arguments: Any) -> Any:
        server.freeze()
        return original(*arguments)

    monkeypatch.setattr(shared_checks, "_run_work", frozen)


def test_a_server_that_freezes_during_the_check_is_cut_off(
    server: OwnServer, checking: Checking, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker, patient = DatabaseHealthChecker(connection_timeout=0.4, query_timeout=0.6), DatabaseHealthChecker()
    assert checking(patient).status is HealthStatus.HEALTHY
    try:
        with monkeypatch.context() as patched:
            freeze_during(server, checker, patched)
            started = time.perf_counter()
            assert checking(checker).status is HealthStatus.UNHEALTHY
            assert time.perf_counter() - started < IN_TIME
        # What waited for the frozen server ends, though the server is still frozen.
        deadline = time.monotonic() + 60
        while health_threads() and time.monotonic() < deadline:
            checking.pause(0.01)
        assert health_threads() == 0
    finally:
        server.thaw()
    assert checking(patient).status is HealthStatus.HEALTHY


def test_a_check_that_was_given_up_keeps_no_other_back(server: OwnServer, checking: Checking) -> None:
    checker = DatabaseHealthChecker(connection_timeout=0.2, query_timeout=0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silenced = Checking(
            "asyncpg" if checking.is_async else "psycopg", f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        )
        for _ in range(3):
            started = time.perf_counter()
            assert silenced(checker).status is HealthStatus.UNHEALTHY
            # Its own time: it did not find the last one's check at its end.
            assert 0.3 < time.perf_counter() - started < IN_TIME
        silenced.close()


def test_a_full_pool_neither_keeps_a_check_waiting_nor_is_touched(server: OwnServer, checking: Checking) -> None:
    checker = DatabaseHealthChecker()
    if not checking.is_async:
        with checking.database.engine.connect() as held:
            held.execute(text("SELECT 1"))
            result = checking(checker)
            assert held.in_transaction()
    else:

        async def run() -> HealthCheckResult:
            async with checking.database.async_engine.connect() as held:
                await held.execute(text("SELECT 1"))
                return await checker.async_check_health(checking.database.async_engine)

        result = checking.runner.run(run())
    assert result.status is HealthStatus.DEGRADED
    assert result.message == "the app's connection pool is full: 1 of 1 connections are in use"
    assert result.details["pool"]["checked_out"] == 1
    assert result.details["longest_transaction_s"] > 0


def test_a_caller_that_is_cancelled_leaves_the_others_their_check(server: OwnServer) -> None:
    checking = Checking("asyncpg", server.url())

    async def run() -> HealthCheckResult:
        checker = DatabaseHealthChecker()
        engine = checking.database.async_engine
        first = asyncio.create_task(checker.async_check_health(engine))
        second = asyncio.create_task(checker.async_check_health(engine))
        await asyncio.sleep(0)
        first.cancel()
        result = await second
        assert first.cancelled()
        return result

    assert checking.runner.run(run()).status is HealthStatus.HEALTHY
    checking.close()


@pytest.mark.parametrize("face", FACES)
def test_a_database_that_only_reads_is_degraded(server: OwnServer, face: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        (result,) = checked(face, server.url(), DatabaseHealthChecker())
    finally:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    assert result.status is HealthStatus.DEGRADED
    assert "no writes" in result.message
    assert result.works


@pytest.mark.parametrize("face", FACES)
def test_a_server_in_recovery_is_degraded(face: str) -> None:
    standby = OwnServer().start()
    try:
        assert standby.process is not None
        standby.process.send_signal(signal.SIGINT)
        standby.process.wait(120)
        (standby.data / "standby.signal").touch()
        standby.start()
        (result,) = checked(face, standby.url(), DatabaseHealthChecker())
    finally:
        standby.stop()
    assert result.status is HealthStatus.DEGRADED, result
    assert result.details["server"]["in_recovery"] is True
    assert result.details["replication"]["role"] == "standby"


@pytest.mark.parametrize("face", FACES)
def test_sqlite_tells_of_its_file(face: str, tmp_path: Any) -> None:
    (result,) = checked(face, f"sqlite:///{tmp_path}/x.db", DatabaseHealthChecker())
    assert result.status is HealthStatus.HEALTHY, result
    assert result.details["integrity"] == "ok"
    assert result.details["journal_mode"] == "wal"
    assert result.details["storage"]["disk_free_bytes"] > 0


def test_what_has_no_database_is_unknown() -> None:
    result = DatabaseHealthChecker().check_health(object())  # type: ignore[arg-type]
    assert result.status is HealthStatus.UNKNOWN
