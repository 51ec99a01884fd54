"""What a health check tells of a primary and of its standby, both real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dotmac_database import Database, create_database
from dotmac_database.health import DatabaseHealthChecker, HealthCheckResult, HealthStatus
from tests.postgres import OwnServer

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def primary() -> Iterator[OwnServer]:
    server = OwnServer(wal_level="replica", synchronous_commit="on").start()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE ticks (number int)")
        connection.execute("CREATE ROLE app LOGIN")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def standby(primary: OwnServer) -> Iterator[OwnServer]:
    server = primary.standby("second").start()
    yield server
    server.stop()


@pytest.fixture
def write(primary: OwnServer) -> Iterator[Callable[[], None]]:
    with psycopg.connect(primary.url(), autocommit=True) as connection:
        yield lambda: connection.execute("INSERT INTO ticks SELECT generate_series(1, 1000)") and None


@pytest.fixture
def follower(standby: OwnServer) -> Iterator[Connection]:
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        yield connection
        connection.execute("SELECT pg_wal_replay_resume()")


class Checked:
    """A server's health, through either face."""

    def __init__(self, face: str) -> None:
        self.face = face

    def __call__(self, server: OwnServer | str, **options: Any) -> HealthCheckResult:
        checker = DatabaseHealthChecker(**options)
        database = create_database(server if isinstance(server, str) else server.url())
        if self.face == "sync":
            result = checker.check_health(database.engine)
            database.dispose()
            return result
        return asyncio.run(self._check(checker, database))

    @staticmethod
    async def _check(checker: DatabaseHealthChecker, database: Database) -> HealthCheckResult:
        result = await checker.async_check_health(database.async_engine)
        await database.dispose_async()
        return result

    def until(
        self, server: OwnServer, holds: Callable[[dict[str, Any]], bool], **options: Any
    ) -> tuple[HealthCheckResult, dict[str, Any]]:
        """The first result whose replication ``holds``; a standby needs some moments."""
        deadline = time.monotonic() + 90
        while True:
            result = self(server, **options)
            replication: dict[str, Any] = result.details["replication"]
            if holds(replication) or time.monotonic() > deadline:
                return result, replication
            time.sleep(0.05)


@pytest.fixture(params=["sync", "async"])
def checked(request: pytest.FixtureRequest) -> Checked:
    return Checked(request.param)


def test_a_primary_without_a_standby_has_no_lag(checked: Checked) -> None:
    server = OwnServer().start()
    try:
        result = checked(server)
    finally:
        server.stop()
    assert result.status is HealthStatus.HEALTHY, result
    assert result.details["replication"] == {"role": "primary", "lag_s": None, "standbys": []}


def test_a_standby_that_has_all_does_not_lag(
    checked: Checked, primary: OwnServer, standby: OwnServer, write: Callable[[], None]
) -> None:
    write()
    result, told = checked.until(primary, lambda found: bool(found["standbys"]) and found["lag_s"] == 0)
    assert result.status is HealthStatus.HEALTHY, result
    assert told["role"] == "primary"
    assert told["standbys"] == [
        {"name": "second", "state": "streaming", "sync_state": "async", "lag_bytes": 0, "lag_s": 0}
    ]
    result, told = checked.until(standby, lambda found: found["lag_s"] == 0)
    assert told == {"role": "standby", "receiving": True, "paused": False, "lag_bytes": 0, "lag_s": 0}
    assert result.status is HealthStatus.DEGRADED
    assert result.message == "the server takes no writes"
    assert result.details["server"]["in_recovery"] is True
    assert not [name for name, detail in result.details.items() if isinstance(detail, dict) and "error" in detail]


def test_lag_grows_while_replay_is_paused(
    checked: Checked, primary: OwnServer, standby: OwnServer, follower: Connection, write: Callable[[], None]
) -> None:
    write()
    checked.until(primary, lambda found: found["lag_s"] == 0)
    follower.execute("SELECT pg_wal_replay_pause()")
    write()
    _, first = checked.until(standby, lambda found: found["lag_bytes"] > 0)
    assert (first["receiving"], first["paused"]) == (True, True)
    time.sleep(0.5)
    # The primary learns of it with what the standby answers to the next write.
    write()
    result, second = checked.until(
        standby, lambda found: found["lag_bytes"] > first["lag_bytes"], replication_lag_threshold=0.4
    )
    assert second["lag_s"] >= first["lag_s"] + 0.4
    assert result.message == "the server takes no writes; replication lags"
    result, seen = checked.until(primary, lambda found: (found["lag_s"] or 0) > 0.4, replication_lag_threshold=0.4)
    assert seen["standbys"][0]["lag_bytes"] > 0
    assert seen["lag_s"] == seen["standbys"][0]["lag_s"] > 0.4
    assert result.status is HealthStatus.DEGRADED
    assert result.message == "replication lags"
    assert checked(primary, replication_lag_threshold=None).status is HealthStatus.HEALTHY
    follower.execute("SELECT pg_wal_replay_resume()")
    result, _ = checked.until(primary, lambda found: found["lag_s"] == 0, replication_lag_threshold=0.4)
    assert result.status is HealthStatus.HEALTHY, result
    _, told = checked.until(standby, lambda found: found["lag_s"] == 0)
    assert (told["lag_bytes"], told["paused"]) == (0, False)


def test_a_role_without_privileges_is_told_what_it_may_know(
    checked: Checked, primary: OwnServer, standby: OwnServer
) -> None:
    result = checked(primary.url().replace("postgres@", "app@"))
    assert result.status is HealthStatus.HEALTHY, result
    (seen,) = result.details["replication"]["standbys"]
    assert (seen["name"], seen["state"], seen["lag_bytes"], seen["lag_s"]) == ("second", None, None, None)
    result = checked(standby.url().replace("postgres@", "app@"))
    assert result.details["replication"]["receiving"] is True


def test_a_standby_that_lost_its_primary_says_so(checked: Checked) -> None:
    """It has replayed all that it got: that it lags by nothing would be a lie."""
    primary = OwnServer(wal_level="replica", synchronous_commit="on").start()
    standby = primary.standby().start()
    try:
        checked.until(primary, lambda found: bool(found["standbys"]))
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE t (i int)")
        checked.until(primary, lambda found: found["lag_s"] == 0)
        primary.kill()
        result, told = checked.until(standby, lambda found: found["receiving"] is False)
        again = checked(standby).details["replication"]
    finally:
        standby.stop()
        primary.stop()
    assert told["receiving"] is False
    assert result.message == "the server takes no writes; the standby receives nothing from its primary"
    assert 0 < told["lag_s"] < again["lag_s"]


def test_a_standby_that_is_promoted_is_a_healthy_primary(checked: Checked, primary: OwnServer) -> None:
    standby = primary.standby("third").start()
    try:
        assert checked(standby).status is HealthStatus.DEGRADED
        with psycopg.connect(standby.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        result = checked(standby)
    finally:
        standby.stop()
    assert result.status is HealthStatus.HEALTHY, result
    assert result.details["replication"]["role"] == "primary"
