"""Engines: the same values from every driver, true transactions in SQLite, and what a URL may say."""

from __future__ import annotations

import asyncio
import enum
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Column, Integer, MetaData, Table, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dotmac_database import ConnectionOptions, Database, ValidationError, create_database
from dotmac_database.engines import async_url, make_async_engine, make_engine, sync_url
from tests.conftest import Faces


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


VALUES = Table(
    "engine_values",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("zoned", sa.DateTime(timezone=True)),
    Column("naive", sa.DateTime()),
    Column("day", sa.Date()),
    Column("clock", sa.Time()),
    Column("span", sa.Interval()),
    Column("money", sa.Numeric(12, 2)),
    Column("ratio", sa.Numeric(10, 4, asdecimal=False)),
    Column("real", sa.Float()),
    Column("wide", sa.BigInteger()),
    Column("flag", sa.Boolean()),
    Column("key", sa.Uuid()),
    Column("colour", sa.Enum(Colour)),
    Column("document", sa.JSON()),
    Column("raw", sa.LargeBinary()),
    Column("words", sa.Text()),
)

ROWS: list[dict[str, Any]] = [
    {
        "id": 1,
        "zoned": datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        "naive": datetime(2024, 2, 29, 23, 59, 59, 123456),  # noqa: DTZ001 - the column has no zone
        "day": date(2024, 2, 29),
        "clock": time(23, 59, 59, 1),
        "span": timedelta(days=3, seconds=7, microseconds=11),
        "money": Decimal("1234567890.10"),
        "ratio": 0.1234,
        "real": 0.1,
        "wide": 2**62,
        "flag": True,
        "key": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "colour": Colour.BLUE,
        "document": {"a": [1, 2.5, None, True, "ä"], "b": {}},
        "raw": b"\x00\xff'",
        "words": "naïve Ünïcode\n\\ % _ '",
    },
    {
        "id": 2,
        "zoned": datetime(1970, 1, 1, tzinfo=UTC),
        "naive": datetime(1, 1, 1),  # noqa: DTZ001 - the column has no zone
        "day": date(1, 1, 1),
        "clock": time(0),
        "span": timedelta(seconds=-90),
        "money": Decimal("-0.5"),
        "ratio": -1.5,
        "real": -1e300,
        "wide": -(2**63),
        "flag": False,
        "key": uuid.UUID(int=0),
        "colour": Colour.RED,
        "document": [],
        "raw": b"",
        "words": "",
    },
    {"id": 3, **dict.fromkeys([c.name for c in VALUES.c if c.name not in ("id", "document")]), "document": sa.null()},
]

DRIVERS = [
    "sqlite+pysqlite",
    "sqlite+aiosqlite",
    "postgresql+psycopg",
    "postgresql+psycopg/async",
    "postgresql+asyncpg",
]


def url_for(driver: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if driver.startswith("sqlite"):
        return f"{driver}:///{folder}/engines.db"
    return str(request.getfixturevalue("postgres_url")).replace("postgresql", driver.partition("/")[0], 1)


def runs_async(driver: str) -> bool:
    return driver in ("sqlite+aiosqlite", "postgresql+psycopg/async", "postgresql+asyncpg")


Run = Callable[[Callable[[sa.Connection], Any]], Any]


@pytest.fixture(params=DRIVERS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    """Run a function on a connection of each driver; one transaction a call."""
    url = url_for(request.param, request, tmp_path)
    if not runs_async(request.param):
        engine = make_engine(url)

        def call(work: Callable[[sa.Connection], Any]) -> Any:
            with engine.begin() as connection:
                return work(connection)

        yield call
        engine.dispose()
        return
    with asyncio.Runner() as runner:
        made = make_async_engine(url)

        async def work_async(work: Callable[[sa.Connection], Any]) -> Any:
            async with made.begin() as connection:
                return await connection.run_sync(work)

        yield lambda work: runner.run(work_async(work))
        runner.run(made.dispose())


def test_values_come_back_the_same_from_every_driver(run: Run) -> None:
    run(VALUES.metadata.drop_all)
    run(VALUES.metadata.create_all)
    run(lambda connection: connection.execute(VALUES.insert(), ROWS))
    read = run(lambda connection: connection.execute(select(VALUES).order_by(VALUES.c.id)).mappings().all())
    for sent, got in zip(ROWS, read, strict=True):
        for name, value in sent.items():
            wanted = None if isinstance(value, sa.Null) else value
            assert got[name] == wanted, name
            if wanted is not None and name == "key":
                assert isinstance(got[name], uuid.UUID)  # asyncpg's own is a subclass
            else:
                assert type(got[name]) is type(wanted), name
            if isinstance(wanted, Decimal):
                assert str(got[name]) == f"{wanted:.2f}"
            if isinstance(wanted, datetime) and wanted.tzinfo is not None:
                assert got[name].utcoffset() == timedelta(0)


def test_zoned_timestamps_are_compared_as_instants(run: Run) -> None:
    run(VALUES.metadata.drop_all)
    run(VALUES.metadata.create_all)
    run(lambda connection: connection.execute(VALUES.insert(), ROWS[:2]))
    instant = datetime(2024, 2, 29, 18, 29, 59, 123456, tzinfo=UTC)
    found = run(lambda c: c.execute(select(VALUES.c.id).where(VALUES.c.zoned == instant)).scalars().all())
    assert found == [1]


def test_lower_and_ilike_know_all_letters(run: Run) -> None:
    assert run(lambda connection: connection.scalar(select(func.lower("ÄÖÜ ÉÀ ЖЯ")))) == "äöü éà жя"
    assert run(lambda connection: connection.scalar(select(func.upper("äöü жя")))) == "ÄÖÜ ЖЯ"
    found = select(sa.literal("ÅRHUS").ilike("%århus%"))
    assert run(lambda connection: connection.scalar(found))
    assert run(lambda connection: connection.scalar(select(func.lower(sa.null())))) is None


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = create_database(f"sqlite:///{tmp_path}/x.db", pool_size=2, busy_timeout=0.05)
    with made.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id))")
    yield made
    made.dispose()


def pragma(engine: sa.Engine, name: str) -> Any:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_sqlite_is_set_up(database: Database) -> None:
    assert pragma(database.engine, "journal_mode") == "wal"
    assert pragma(database.engine, "foreign_keys") == 1
    assert pragma(database.engine, "busy_timeout") == 50
    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO child VALUES (1, 99)")


def count(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM parent").scalar()


def test_sqlite_rolls_back_definitions_and_savepoints(database: Database) -> None:
    with database.engine.connect() as connection, connection.begin() as outer:
        connection.exec_driver_sql("CREATE TABLE gone (id INTEGER)")
        connection.exec_driver_sql("INSERT INTO parent VALUES (1)")
        inner = connection.begin_nested()
        connection.exec_driver_sql("INSERT INTO parent VALUES (2)")
        inner.rollback()
        assert connection.exec_driver_sql("SELECT count(*) FROM parent").scalar() == 1
        outer.rollback()
    assert count(database.engine) == 0
    assert not sa.inspect(database.engine).has_table("gone")


def test_sqlite_reads_are_repeatable_in_a_transaction(database: Database) -> None:
    with database.engine.connect() as reader, database.engine.connect() as writer:
        assert reader.exec_driver_sql("SELECT count(*) FROM parent").scalar() == 0
        writer.exec_driver_sql("INSERT INTO parent VALUES (1)")
        writer.commit()
        assert reader.exec_driver_sql("SELECT count(*) FROM parent").scalar() == 0
        reader.rollback()
        assert reader.exec_driver_sql("SELECT count(*) FROM parent").scalar() == 1


def autocommitted(connection: sa.Connection) -> bool:
    driver = connection.connection.driver_connection
    assert driver is not None
    return not driver.in_transaction


def test_sqlite_autocommit_sends_no_begin_and_the_next_transaction_is_true(tmp_path: Path) -> None:
    database = create_database(f"sqlite:///{tmp_path}/x.db", pool_size=1, max_overflow=0)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    with database.sessions() as session:
        connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        assert autocommitted(connection)
        session.execute(text("INSERT INTO parent VALUES (1)"))
        assert autocommitted(connection)
        session.commit()
        session.execute(text("SELECT 1"))
        assert not autocommitted(session.connection())
        session.execute(text("INSERT INTO parent VALUES (2)"))
        session.begin_nested().rollback()
        session.rollback()
    assert count(database.engine) == 1
    database.dispose()


def test_an_sqlite_engine_may_be_in_autocommit_altogether(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/x.db", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        assert autocommitted(connection)
        connection.rollback()
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 1
    engine.dispose()


def test_a_file_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE t (id INTEGER)")
    raw.close()
    engine = make_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_one_database(url: str) -> None:
    database = create_database(url, pool_size=3, max_overflow=2, pool_timeout=1)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE parent (id INTEGER)")
    assert count(database.engine) == 0

    async def both() -> None:
        async with database.async_engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE other (id INTEGER)")
        async with database.async_sessions() as session:
            assert (await session.execute(text("SELECT count(*) FROM other"))).scalar() == 0
        await database.dispose_async()

    asyncio.run(both())


def test_sessions_keep_their_objects_over_a_commit(database: Database) -> None:
    assert isinstance(database.sessions(), Session)
    assert database.sessions().expire_on_commit is False
    assert database.async_sessions().sync_session.expire_on_commit is False
    assert database.engine is database.engine


@pytest.mark.parametrize(
    ("url", "sync", "async_"),
    [
        ("sqlite:///x.db", "sqlite+pysqlite", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///x.db", "sqlite+pysqlite", "sqlite+aiosqlite"),
        ("postgresql://h/d", "postgresql+psycopg", "postgresql+asyncpg"),
        ("postgres://h/d", "postgresql+psycopg", "postgresql+asyncpg"),
        ("postgresql+asyncpg://h/d", "postgresql+psycopg", "postgresql+asyncpg"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg", "postgresql+psycopg"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg", "postgresql+asyncpg"),
    ],
)
def test_a_url_gets_the_driver_of_each_face(url: str, sync: str, async_: str) -> None:
    assert sync_url(url).drivername == sync
    assert async_url(url).drivername == async_


@pytest.mark.parametrize("url", ["mysql://h/d", "no url", ""])
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        create_database(url)
    assert caught.value.field == "url"


def test_a_transaction_pooler_keeps_no_statement_timeout() -> None:
    with pytest.raises(ValidationError, match="statement_timeout"):
        ConnectionOptions(transaction_pooler=True, statement_timeout=1)


def settings(database: Database) -> list[list[str]]:
    query = "SELECT current_setting('application_name'), current_setting('statement_timeout')"
    with database.engine.connect() as connection:
        sync = [str(value) for value in connection.execute(text(query)).one()]

    async def ask() -> list[str]:
        async with database.async_engine.connect() as connection:
            row = (await connection.execute(text(query))).one()
        await database.dispose_async()
        return [str(value) for value in row]

    return [sync, asyncio.run(ask())]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_options_reach_the_server(postgres_url: str, driver: str) -> None:
    url = postgres_url.replace("postgresql", f"postgresql+{driver}", 1)
    database = create_database(url, application_name="test of options", statement_timeout=1.5, ssl="prefer")
    assert settings(database) == [["test of options", "1500ms"]] * 2


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_the_words_of_libpq_in_a_url_serve_both_faces(postgres_url: str, driver: str) -> None:
    said = "sslmode=prefer&application_name=from+the+url&connect_timeout=4&options=-c%20statement_timeout%3D700"
    url = f"{postgres_url.replace('postgresql', f'postgresql+{driver}', 1)}?{said}"
    assert settings(create_database(url, application_name="from the options")) == [["from the url", "700ms"]] * 2


def test_the_json_functions_follow_postgresql(postgres_url: str) -> None:
    documents = [
        '{"a": 1, "b": {"c": [1, 2, {"d": null}]}}',
        '[1, [2, 3], "x", true]',
        '{"a": {}}',
        '"x"',
        "[]",
        "{}",
        "null",
        "1.0",
        "true",
        "[[1], [2]]",
        '[{"a": 1, "b": 2}]',
    ]
    candidates = [
        *documents,
        '{"a": 1}',
        '{"b": {"c": [{"d": null}]}}',
        '{"b": {"c": [2, 1, 1]}}',
        "1",
        "[1]",
        "[true]",
        "[[3]]",
        "[2]",
        '[{"a": 1}]',
        '["x"]',
        '{"a": null}',
        "[[]]",
        "[{}]",
    ]
    sqlite = make_engine("sqlite://")
    postgresql = make_engine(postgres_url)
    with sqlite.connect() as ours, postgresql.connect() as theirs:
        for document in documents:
            for candidate in candidates:
                pair = {"a": document, "b": candidate}
                wanted = theirs.execute(text("SELECT CAST(:a AS jsonb) @> CAST(:b AS jsonb)"), pair).scalar()
                got = ours.execute(text("SELECT dotmac_json_contains(:a, :b)"), pair).scalar()
                assert bool(got) is wanted, pair
    sqlite.dispose()
    postgresql.dispose()


def test_functions_may_stand_in_an_index(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE names (name TEXT)")
        connection.exec_driver_sql("CREATE INDEX i ON names (lower(name))")
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN SELECT 1 FROM names WHERE lower(name) = 'é'").all()
    assert "USING COVERING INDEX i" in str(plan) or "USING INDEX i" in str(plan)


@pytest.fixture
def pooler(postgres_server: str) -> Iterator[str]:
    """PgBouncer before the server, one server connection for all clients, as a transaction pooler."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    target = sa.make_url(postgres_server)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="pooler") as folder:  # not pytest's, which other accounts can't enter
        config = Path(folder) / "pgbouncer.ini"
        Path(folder).chmod(0o755)
        users = Path(folder) / "users.txt"
        users.write_text(f'"{target.username}" ""\n')
        config.write_text(
            f"[databases]\n* = host={target.host} port={target.port}\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
            f"listen_port={port}\nunix_socket_dir=\npool_mode=transaction\ndefault_pool_size=1\nauth_type=trust\n"
            f"auth_file={users}\nignore_startup_parameters=extra_float_digits\n"
        )
        account = {"user": "nobody"} if os.geteuid() == 0 else {}
        with subprocess.Popen([program, str(config)], stderr=subprocess.DEVNULL, **account) as process:  # type: ignore[call-overload]
            deadline = monotonic() + 90
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert process.poll() is None
                    assert monotonic() < deadline
                    sleep(0.05)
            yield target.set(port=port).render_as_string(hide_password=False)
            process.terminate()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_transaction_pooler_is_no_trouble(pooler: str, driver: str) -> None:
    """Statements that are repeated enough to be prepared, on clients that share a server connection."""
    database = create_database(pooler.replace("postgresql", f"postgresql+{driver}", 1), transaction_pooler=True)

    async def clients() -> None:
        async def client(number: int) -> None:
            for _ in range(12):
                async with database.async_sessions() as session:
                    found = await session.execute(select(sa.literal(number, sa.Integer) + 1))
                    assert found.scalar() == number + 1

        await asyncio.gather(*(client(number) for number in range(4)))
        await database.dispose_async()

    asyncio.run(clients())
    for _ in range(12):
        with database.engine.connect() as one, database.engine.connect() as other:
            for connection in (one, other):
                assert connection.execute(select(sa.literal(1) + 1)).scalar() == 2
                connection.commit()
    database.dispose()


@pytest.mark.parametrize("driver", ["sqlite3", "aiosqlite"])
def test_a_begin_that_fails_raises_sqlalchemys_error(faces: Faces, driver: str) -> None:
    """BEGIN is not sent by SQLAlchemy's execution."""
    face = faces[driver]
    with face.session() as session:
        connection = face(session.connection)
        driven = (connection.sync_connection if face.is_async else connection).connection.driver_connection
        face(session.rollback)
        face(driven.close)
        with pytest.raises((sa.exc.ProgrammingError, sa.exc.OperationalError)):
            face(session.execute, sa.text("SELECT 1"))
