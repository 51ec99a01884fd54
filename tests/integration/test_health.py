"""What a health check tells of a database that works, and that it leaves the caller's work alone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import StaticPool, create_engine, text
from sqlalchemy.orm import Session

from dotmac_database import CircuitBreaker, Finding, create_database
from dotmac_database.engines import make_async_engine, make_engine
from dotmac_database.health import DatabaseHealthChecker, HealthCheckResult, HealthStatus
from tests.postgres import OwnServer

MEMORY, FILE, POSTGRESQL = "memory", "file", "postgresql"


@pytest.fixture(params=[MEMORY, FILE, POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == MEMORY:
        return "sqlite://"
    if request.param == FILE:
        return f"sqlite:///{tmp_path}/x.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.mark.parametrize("kind", ["health", "connectivity"])
def test_a_session_keeps_its_open_transaction(url: str, kind: str) -> None:
    database = create_database(url)
    with database.sessions() as session:
        session.execute(text("CREATE TABLE kept (id INTEGER)"))
        session.commit()
        session.execute(text("INSERT INTO kept VALUES (1)"))
        result = getattr(DatabaseHealthChecker(), f"check_{kind}")(session)
        assert result.status is HealthStatus.HEALTHY, result
        assert session.in_transaction()
        assert session.execute(text("SELECT count(*) FROM kept")).scalar() == 1
        session.rollback()
        assert session.execute(text("SELECT count(*) FROM kept")).scalar() == 0
        session.rollback()
        session.execute(text("DROP TABLE kept"))
        session.commit()
    database.dispose()


@pytest.mark.parametrize("kind", ["health", "connectivity"])
def test_an_async_session_keeps_its_open_transaction(url: str, kind: str) -> None:
    async def run() -> None:
        database = create_database(url)
        async with database.async_sessions() as session:
            await session.execute(text("CREATE TABLE kept (id INTEGER)"))
            await session.commit()
            await session.execute(text("INSERT INTO kept VALUES (1)"))
            result = await getattr(DatabaseHealthChecker(), f"async_check_{kind}")(session)
            assert result.status is HealthStatus.HEALTHY, result
            await session.rollback()
            assert (await session.execute(text("SELECT count(*) FROM kept"))).scalar() == 0
            await session.rollback()
            await session.execute(text("DROP TABLE kept"))
            await session.commit()
        await database.dispose_async()

    asyncio.run(run())


def test_either_face_checks_an_engine_of_the_other(url: str) -> None:
    database = create_database(url)
    checker = DatabaseHealthChecker()
    result = checker.check_health(database.async_engine)
    assert result.status is HealthStatus.HEALTHY, result

    async def run() -> HealthCheckResult:
        result = await checker.async_check_health(database.engine)
        await database.dispose_async()
        return result

    assert asyncio.run(run()).status is HealthStatus.HEALTHY


def test_a_session_on_a_connection_is_checked(url: str) -> None:
    engine = make_engine(url)
    with engine.connect() as connection, Session(connection) as session:
        session.execute(text("SELECT 1"))
        assert DatabaseHealthChecker().check_health(session).status is HealthStatus.HEALTHY
    engine.dispose()


def test_a_result_is_frozen_and_json(url: str) -> None:
    engine = make_engine(url)
    result = DatabaseHealthChecker(breaker=CircuitBreaker()).check_health(engine)
    told = json.loads(json.dumps(result.as_dict()))
    assert told["status"] == f"{result.status}" == "healthy"
    assert told["details"]["circuit"] == "closed"
    assert result.timestamp.tzinfo is UTC
    assert told["timestamp"] == result.timestamp.isoformat()
    with pytest.raises(FrozenInstanceError):
        result.message = ""  # type: ignore[misc]
    engine.dispose()


class Broken:
    """A session whose bind is nobody's guess."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]  # a mock that fails when it is asked what it is
        raise RuntimeError


class Lost(Session):
    def get_bind(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no shard")


@pytest.mark.parametrize(
    "target", [None, 7, Broken, Session, Lost], ids=["none", "number", "broken", "unbound", "lost"]
)
def test_what_can_not_be_checked_is_unknown(target: Any) -> None:
    target = target() if isinstance(target, type) else target
    checker = DatabaseHealthChecker()
    assert checker.check_health(target).status is HealthStatus.UNKNOWN
    assert checker.check_connectivity(target).status is HealthStatus.UNKNOWN
    assert asyncio.run(checker.async_check_health(target)).status is HealthStatus.UNKNOWN


def test_checkers_that_share_a_check_judge_by_themselves(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    open_breaker = CircuitBreaker(failure_threshold=1)
    with pytest.raises(ZeroDivisionError):
        open_breaker(lambda: 1 / 0)()
    checkers = [
        DatabaseHealthChecker(),
        DatabaseHealthChecker(slow_query_threshold=0),
        DatabaseHealthChecker(breaker=open_breaker),
    ]
    results: dict[int, HealthCheckResult] = {}

    def check(number: int) -> None:
        results[number] = checkers[number].check_health(engine)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0].status is HealthStatus.HEALTHY
    assert results[1].message == "the round trip is slow"
    assert results[2].message == "the circuit breaker is not closed"
    assert results[2].details["circuit"] == "open"
    engine.dispose()


class Holes:
    def verify(self, _connection: Any) -> list[Finding]:
        return [Finding("users", "no policy", "create one")]


class Failing:
    def verify(self, connection: Any) -> list[Finding]:
        connection.execute(text("SELECT * FROM missing"))
        return []


def test_holes_of_row_level_security_count(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    result = DatabaseHealthChecker(security=Holes()).check_health(engine)
    assert result.status is HealthStatus.DEGRADED
    assert result.details["row_level_security"] == [{"object": "users", "risk": "no policy", "remedy": "create one"}]
    engine.dispose()


def test_a_probe_that_fails_leaves_the_others(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    details = DatabaseHealthChecker(security=Failing()).check_health(engine).details
    assert "42P01" in details["row_level_security"]["error"]
    assert details["server"]["version"]
    assert details["dead_tuples"] == []
    engine.dispose()


def test_a_check_leaves_no_timeout_and_no_connection_behind(postgres_url: str) -> None:
    engine = make_engine(postgres_url, pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        before = connection.execute(text("SELECT pg_backend_pid()")).scalar()
    DatabaseHealthChecker(query_timeout=0.5).check_health(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar() == before
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "0"
        others = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert connection.execute(others).scalar() == 0
    engine.dispose()


@pytest.fixture(scope="module")
def counting_server() -> Iterator[OwnServer]:
    server = OwnServer(shared_preload_libraries="pg_stat_statements").start()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "odd Schema"')
        connection.execute('CREATE EXTENSION pg_stat_statements SCHEMA "odd Schema"')
        connection.execute("CREATE ROLE app LOGIN")
        connection.execute('GRANT USAGE ON SCHEMA "odd Schema" TO app')
    yield server
    server.stop()


def test_slow_queries_are_shown(counting_server: OwnServer) -> None:
    with psycopg.connect(counting_server.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_sleep(0.2), 'secret'")
        connection.execute("SELECT 'quick'")
    engine = make_engine(counting_server.url())
    result = DatabaseHealthChecker(slow_query_threshold=0.1).check_health(engine)
    assert [query["query"] for query in result.details["slow_queries"]] == ["SELECT pg_sleep($1), $2"]
    assert result.details["slow_queries"][0]["mean_ms"] > 100
    assert DatabaseHealthChecker().check_health(engine).details["slow_queries"] == []
    engine.dispose()


def test_a_role_without_privileges_sees_all_connections(counting_server: OwnServer) -> None:
    engine = make_engine(counting_server.url().replace("postgres@", "app@"))
    with psycopg.connect(counting_server.url()), psycopg.connect(counting_server.url()):
        result = DatabaseHealthChecker().check_health(engine)
    assert result.status is HealthStatus.HEALTHY
    assert result.details["connections"]["used"] >= 3
    assert not [name for name, detail in result.details.items() if isinstance(detail, dict) and "error" in detail]
    engine.dispose()


def test_locks_that_wait_and_long_transactions_are_shown(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    with psycopg.connect(postgres_url) as holder, psycopg.connect(postgres_url) as waiter:
        holder.execute("SELECT pg_advisory_lock(1), pg_sleep(0.1)")
        thread = threading.Thread(target=lambda: waiter.execute("SELECT pg_advisory_lock(1)"))
        thread.start()
        checker = DatabaseHealthChecker()
        for _ in range(100):
            details = checker.check_health(engine).details
            if details["waiting_locks"]:
                break
        holder.execute("SELECT pg_advisory_unlock(1)")
        thread.join()
    assert details["waiting_locks"] == 1
    assert details["longest_transaction_s"] >= 0.1
    engine.dispose()


def test_a_damaged_file_is_not_healthy(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    engine = make_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, words TEXT)"))
        rows = [{"words": "x" * 500} for _ in range(200)]
        connection.execute(text("INSERT INTO t (words) VALUES (:words)"), rows)
    engine.dispose()
    content = bytearray(file.read_bytes())
    content[3 * 4096 : 4 * 4096] = b"\xff" * 4096
    file.write_bytes(content)
    engine = make_engine(f"sqlite:///{file}")
    result = DatabaseHealthChecker().check_health(engine)
    assert result.status is HealthStatus.DEGRADED
    assert "the file is damaged" in result.message
    engine.dispose()


def test_a_file_that_is_no_database_is_unhealthy(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database " * 1000)
    url = f"sqlite:///{tmp_path}/x.db"
    for engine in (make_engine(url), create_engine(url)):
        assert DatabaseHealthChecker().check_connectivity(engine).status is HealthStatus.UNHEALTHY
        assert DatabaseHealthChecker().check_health(engine).status is HealthStatus.UNHEALTHY
        engine.dispose()
    made = make_async_engine(url)
    assert asyncio.run(DatabaseHealthChecker().async_check_health(made)).status is HealthStatus.UNHEALTHY


def test_a_user_s_engine_in_memory_is_checked() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        result = DatabaseHealthChecker().check_health(engine)
        assert result.status is HealthStatus.HEALTHY, result
    engine.dispose()
