"""A health check of a server that is frozen, silent, gone or full returns in time and says so."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dotmac_database import create_database
from dotmac_database.health import DatabaseHealthChecker, HealthCheckResult, HealthStatus
from tests.postgres import OwnServer

FACES = ["sync", "async"]


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
        assert result.details["connections"]["allowed"] == 20
        assert all("error" not in detail for detail in result.details.values() if isinstance(detail, dict))


@pytest.mark.parametrize("face", FACES)
def test_a_frozen_server_is_unhealthy_in_time(server: OwnServer, face: str) -> None:
    checker = DatabaseHealthChecker(connection_timeout=0.4, query_timeout=0.6)
    server.freeze()
    try:
        started = time.perf_counter()
        (result,) = checked(face, server.url(), checker)
        assert time.perf_counter() - started < 1.5
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
        assert time.perf_counter() - started < 1.5
    assert result.status is HealthStatus.UNHEALTHY


@pytest.mark.parametrize("face", FACES)
def test_no_server_is_unhealthy(face: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (result,) = checked(face, f"postgresql://u@127.0.0.1:{port}/d", DatabaseHealthChecker())
    assert result.status is HealthStatus.UNHEALTHY
    assert "DatabaseUnavailableError" in (result.error or "")


@pytest.mark.parametrize("face", FACES)
def test_a_storm_of_checks_is_one_check(server: OwnServer, face: str) -> None:
    results = checked(face, server.url(), DatabaseHealthChecker(), times=50)
    assert len(results) == 50
    assert {result.status for result in results} == {HealthStatus.HEALTHY}
    assert max(result.details["connections"]["used"] for result in results) < 10


def test_a_server_without_free_connections_is_unhealthy(server: OwnServer) -> None:
    import psycopg

    held: list[Any] = []
    try:
        with pytest.raises(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(server.url()))
        (result,) = checked("sync", server.url(), DatabaseHealthChecker())
        assert result.status is HealthStatus.UNHEALTHY
    finally:
        for connection in held:
            connection.close()


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
