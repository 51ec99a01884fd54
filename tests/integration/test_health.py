"""What a health check tells of a database that works, and that it leaves the caller's work alone."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import FrozenInstanceError
from datetime import UTC
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import await_only

from dotmac_database import (
    AsyncRepository,
    BaseRepository,
    CircuitBreaker,
    Database,
    Finding,
    RowLevelSecurity,
    TenantMixin,
    create_database,
)
from dotmac_database.dialects.isolation import is_initialized
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


class Slow:
    def verify(self, connection: Any) -> list[Finding]:
        connection.execute(text("SELECT pg_sleep(60)"))
        return []


def test_a_probe_that_takes_too_long_ends_by_itself(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    result = DatabaseHealthChecker(query_timeout=2, security=Slow()).check_health(engine)
    assert "57014" in result.details["row_level_security"]["error"]
    assert result.status is HealthStatus.DEGRADED
    assert result.message == "row-level security could not be verified"
    assert not failed(result, but="row_level_security")
    engine.dispose()


def failed(result: HealthCheckResult, but: str = "") -> list[str]:
    """The probes that failed."""
    told = result.details.items()
    return [name for name, found in told if isinstance(found, dict) and "error" in found and name != but]


@pytest.fixture
def poor_url(postgres_url: str) -> Iterator[str]:
    """The database, for a role that owns nothing and is in no group."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE health_poor LOGIN")
        yield postgres_url.replace("postgres@", "health_poor@")
        connection.execute("DROP ROLE health_poor")


@pytest.mark.parametrize(
    ("probe", "object_", "right"),
    [
        ("connections", "pg_stat_database", "SELECT"),
        ("longest_transaction_s", "pg_stat_activity", "SELECT"),
        ("waiting_locks", "pg_locks", "SELECT"),
        ("replication", "pg_stat_replication", "SELECT"),
        ("dead_tuples", "pg_stat_user_tables", "SELECT"),
        ("slow_queries", "pg_extension", "SELECT"),
        ("server", "FUNCTION current_setting(text)", "EXECUTE"),
    ],
)
def test_each_probe_fails_alone(postgres_url: str, poor_url: str, probe: str, object_: str, right: str) -> None:
    engine = make_engine(poor_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"REVOKE {right} ON {object_} FROM PUBLIC")  # type: ignore[arg-type]
        try:
            result = DatabaseHealthChecker().check_health(engine)
        finally:
            connection.execute(f"GRANT {right} ON {object_} TO PUBLIC")  # type: ignore[arg-type]
    assert "42501" in result.details[probe]["error"]
    # The number of connections that are allowed is a setting, too.
    assert set(failed(result)) == ({"server", "connections"} if probe == "server" else {probe})
    assert result.status is HealthStatus.HEALTHY, result
    assert DatabaseHealthChecker().check_health(engine).details[probe] != result.details[probe]
    engine.dispose()


def test_tables_with_many_dead_rows_are_shown(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE wasted (i int) WITH (autovacuum_enabled = off)")
        connection.execute("INSERT INTO wasted SELECT generate_series(1, 20000)")
        connection.execute("DELETE FROM wasted WHERE i > 5000")
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT 1")
        found = DatabaseHealthChecker().check_health(engine)
        connection.execute("VACUUM wasted")
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT 1")
        after = DatabaseHealthChecker().check_health(engine)
        connection.execute("DROP TABLE wasted")
    assert found.details["dead_tuples"] == [{"table": "wasted", "dead": 15000, "live": 5000}]
    assert after.details["dead_tuples"] == []
    engine.dispose()


class Owned(DeclarativeBase):
    """A tenant's table, for the policies."""


class Secret(TenantMixin, Owned):
    __tablename__ = "health_secrets"

    id: Mapped[int] = mapped_column(primary_key=True)


def test_what_row_level_security_finds_is_shown(postgres_url: str) -> None:
    security = RowLevelSecurity(Owned.metadata)
    owner, poor = make_engine(postgres_url), make_engine(postgres_url.replace("postgres@", "health_app@"))
    checker = DatabaseHealthChecker(security=security)
    with owner.begin() as connection:
        connection.execute(text("CREATE ROLE health_app LOGIN"))
        Owned.metadata.create_all(connection)
        connection.execute(text("GRANT SELECT, INSERT, UPDATE, DELETE ON health_secrets TO health_app"))
    bare = checker.check_health(poor)
    with owner.begin() as connection:
        security.apply(connection)
    sound, superuser = checker.check_health(poor), checker.check_health(owner)
    with owner.begin() as connection:
        Owned.metadata.drop_all(connection)
        connection.execute(text("DROP ROLE health_app"))
    assert bare.message == "row-level security has holes"
    assert all("health_secrets" in found["object"] for found in bare.details["row_level_security"])
    assert bare.details["row_level_security"][0].keys() == {"object", "risk", "remedy"}
    assert sound.details["row_level_security"] == []
    assert sound.status is HealthStatus.HEALTHY, sound
    assert "superuser" in str(superuser.details["row_level_security"])
    owner.dispose()
    poor.dispose()


def test_the_pool_and_the_server_are_shown(postgres_url: str) -> None:
    engine = make_engine(postgres_url, pool_size=2, max_overflow=3)
    with engine.connect() as one, engine.connect(), engine.connect():
        version = one.execute(text("SHOW server_version")).scalar()
        allowed = one.execute(text("SHOW max_connections")).scalar_one()
        details = DatabaseHealthChecker().check_health(engine).details
    assert details["pool"] == {"kind": "QueuePool", "size": 2, "checked_out": 3, "overflow": 1}
    assert details["server"] == {"version": version, "in_recovery": False, "read_only": False}
    assert 4 <= details["connections"]["used"] < details["connections"]["allowed"] < int(allowed)
    engine.dispose()


def test_an_sqlite_file_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.db"
    engine = make_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (words TEXT)"))
        connection.execute(text("INSERT INTO t VALUES (:words)"), [{"words": "x" * 500}] * 200)
    with engine.connect() as connection:
        # A reader keeps the log from being taken into the file.
        connection.execute(text("SELECT count(*) FROM t"))
        result = DatabaseHealthChecker().check_health(engine)
        sizes = file.stat().st_size, Path(f"{file}-wal").stat().st_size
    assert result.status is HealthStatus.HEALTHY, result
    storage = result.details["storage"]
    assert (storage["size_bytes"], storage["wal_bytes"]) == sizes
    assert storage["wal_bytes"] > 100_000
    free = shutil.disk_usage(tmp_path).free
    assert abs(storage["disk_free_bytes"] - free) < 2**30
    assert result.details["journal_mode"] == "wal"
    assert result.details["integrity"] == "ok"
    # A disk that is really full would end the test run.
    monkeypatch.setattr("dotmac_database.health.checker._DISK_NEEDED", free * 2)
    assert DatabaseHealthChecker().check_health(engine).message == "the disk is nearly full"
    engine.dispose()


def test_connections_that_are_nearly_used_up() -> None:
    server = OwnServer(max_connections=13).start()
    engine = make_engine(server.url())
    try:
        with ExitStack() as stack:
            for _ in range(9):
                stack.enter_context(psycopg.connect(server.url()))
            result = DatabaseHealthChecker().check_health(engine)
    finally:
        engine.dispose()
        server.stop()
    assert result.details["connections"] == {"used": 10, "allowed": 10}
    assert result.message == "the server's connections are nearly used up"


def test_a_check_leaves_no_timeout_and_no_connection_behind(postgres_url: str) -> None:
    engine = make_engine(f"{postgres_url}?application_name=checked", pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        before = connection.execute(text("SELECT pg_backend_pid()")).scalar()
    DatabaseHealthChecker(query_timeout=0.5).check_health(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar() == before
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "0"
        others = text(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'checked' AND pid <> pg_backend_pid()"
        )
        until = time.monotonic() + 60
        while connection.execute(others).scalar() and time.monotonic() < until:
            connection.rollback()  # a transaction sees one state of the activity
            time.sleep(0.01)  # the server hears of a connection's end a little later
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
    # On a busy machine any other statement can be slow too.
    slow = {query["query"]: query["mean_ms"] for query in result.details["slow_queries"]}
    assert slow["SELECT pg_sleep($1), $2"] >= 200
    assert all(mean > 100 for mean in slow.values())
    assert "secret" not in str(slow)
    unlikely = DatabaseHealthChecker(slow_query_threshold=60).check_health(engine)
    assert unlikely.details["slow_queries"] == []
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
        deadline = time.monotonic() + 60
        try:
            while not (details := checker.check_health(engine).details)["waiting_locks"]:
                assert time.monotonic() < deadline
        finally:
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


class OwnBase(DeclarativeBase): ...


class Reading(OwnBase):
    __tablename__ = "health_readings"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def readings(url: str) -> Iterator[Database]:
    """A database that no one has connected to, with the table of readings."""
    if url == "sqlite://":
        pytest.skip("the check of a database in memory uses the only connection")
    other = create_database(url)
    OwnBase.metadata.create_all(other.engine)
    yield create_database(url)
    OwnBase.metadata.drop_all(other.engine)
    other.dispose()


def initialize_slowly(engine: Engine) -> None:
    """Let the engine's dialect wait before it reads the server's version and isolation level."""

    class Slow(type(engine.dialect)):  # type: ignore[misc]  # the class is known only at run time
        supports_statement_cache = True

        def initialize(self, connection: Connection) -> None:
            if self.is_async:
                await_only(asyncio.sleep(0.4))
            else:
                time.sleep(0.4)
            super().initialize(connection)

    engine.dialect.__class__ = Slow


@pytest.mark.parametrize("kind", ["health", "connectivity"])
@pytest.mark.parametrize("is_async", [False, True])
def test_the_first_reads_may_come_during_the_first_check(readings: Database, kind: str, is_async: bool) -> None:
    """No read may use a connection before the dialect is initialized, whether the check or a read connects first."""
    checker = DatabaseHealthChecker()

    def read() -> list[Reading]:
        with readings.sessions() as session:
            return BaseRepository(session, Reading).list()

    async def read_async() -> list[Reading]:
        async with readings.async_sessions() as session:
            return await AsyncRepository(session, Reading).list()

    async def run() -> tuple[HealthCheckResult, list[list[Reading]]]:
        if is_async:
            initialize_slowly(readings.async_engine.sync_engine)
            check = getattr(checker, f"async_check_{kind}")(readings.async_engine)
        else:
            initialize_slowly(readings.engine)
            check = asyncio.to_thread(getattr(checker, f"check_{kind}"), readings.engine)
        checking = asyncio.create_task(check)
        await asyncio.sleep(0.2)
        reads = (read_async() if is_async else asyncio.to_thread(read) for _ in range(3))
        found = await asyncio.gather(*reads)
        result = await checking
        await readings.dispose_async()
        return result, found

    result, found = asyncio.run(run())
    assert found == [[], [], []]
    assert result.status is HealthStatus.HEALTHY, result


@pytest.mark.parametrize("kind", ["health", "connectivity"])
def test_a_check_leaves_the_first_connection_s_listeners_to_the_app(readings: Database, kind: str) -> None:
    calls: list[object] = []
    event.listen(readings.engine, "connect", lambda *each: calls.append(each), once=True)
    for _ in range(2):
        result = getattr(DatabaseHealthChecker(), f"check_{kind}")(readings.engine)
        assert result.status is HealthStatus.HEALTHY, result
        assert calls == []
        assert not is_initialized(readings.engine.dialect)
    with readings.engine.connect():
        assert len(calls) == 1
        assert is_initialized(readings.engine.dialect)
    readings.dispose()
