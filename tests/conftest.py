"""The databases of the tests: SQLite files, and one PostgreSQL server that the test run starts."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, MetaData, event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dotmac_database.engines import Database, create_database
from dotmac_database.repositories import create_async_repository, create_repository
from dotmac_database.tenancy import guard_tenants

from .fast_ways import ALWAYS, OFF, touched
from .matrices.pairs import leave_pairs
from .models import Base
from .postgres import OwnServer

_COUNTER = itertools.count()


_DESELECTED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fast ways")
    off = "switch a fast way off, and deselect the tests that assert it; can be repeated"
    group.addoption("--without", action="append", default=[], choices=tuple(OFF), metavar="WAY", help=off)
    always = "take a fast way also where it is not faster, and deselect the tests that assert its limit"
    group.addoption("--always", action="append", default=[], choices=tuple(ALWAYS), metavar="WAY", help=always)


def pytest_configure(config: pytest.Config) -> None:
    marker = "fast_way(*ways): asserts these fast ways themselves; deselected if one of them is switched"
    config.addinivalue_line("markers", marker)
    shared = "shared_plugin: the tests of tests/fastapi share a plugin and its connections in each module"
    config.addinivalue_line("markers", shared)


@pytest.fixture(scope="session", autouse=True)
def switched_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Switches the ways of ``--without`` and ``--always``."""
    with pytest.MonkeyPatch.context() as patch:
        for way in request.config.getoption("--always"):
            ALWAYS[way](patch)
        for way in request.config.getoption("--without"):
            OFF[way](patch)
        yield


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out the tests with the marker `matrix`
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the cells of an ordinary run, and deselect the tests that assert a way that is switched."""
    leave_pairs(items)
    switched = {
        each for way in (*config.getoption("--without"), *config.getoption("--always")) for each in touched(way)
    }
    if not switched:
        return
    asserting = [item for item in items if any(switched & {*each.args} for each in item.iter_markers("fast_way"))]
    config.stash[_DESELECTED] = len(asserting)
    config.hook.pytest_deselected(items=asserting)
    kept = set(items).difference(asserting)
    items[:] = [item for item in items if item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, which would visit the growing number of tests again and again."""
    gc.disable()
    yield
    gc.enable()


def pytest_collection_finish() -> None:
    """Let the garbage collector ignore the many objects of the collected tests.

    It would visit them all in each collection, which takes half a second.
    """
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _objects_that_stay() -> Iterator[None]:
    """Let the garbage collector ignore what a module leaves behind, too: mapped classes, apps and cached statements."""
    yield
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    gc.unfreeze()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = session.config.stash.get(_DESELECTED, 0)


def pytest_unconfigure() -> None:
    """Collect what warns when it is collected, once: pytest collects five times after this, and now visits little."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the number from a worker of xdist, which does not report it. It is the same in each worker."""
    node.config.stash[_DESELECTED] = getattr(node, "workeroutput", {}).get("deselected", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many tests were deselected."""
    for option in ("without", "always"):
        for way in config.getoption(f"--{option}"):
            terminalreporter.write_line(
                f"--{option} {way}: {OFF[way].__doc__ if option == 'without' else ALWAYS[way].__doc__}"
            )
    if config.stash.get(_DESELECTED, 0):
        terminalreporter.write_line(f"{config.stash[_DESELECTED]} tests that assert these ways were deselected.")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL (in libpq's form) of a PostgreSQL server: ``DOTMAC_TEST_POSTGRES_URL``, or a server of the test run.

    Each worker has a server of its own, unlike the pytest plugin's: tests create roles and terminate connections.
    """
    url = os.environ.get("DOTMAC_TEST_POSTGRES_URL")
    if url:
        yield url
        return
    server = OwnServer().start()
    yield server.url()
    server.stop()


@pytest.fixture(scope="module")
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL (in the form of libpq) of a new, empty PostgreSQL database for one test module."""
    name = f"test_{os.getpid()}_{next(_COUNTER)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{postgres_server.rpartition('/')[0]}/{name}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def dialect(request: pytest.FixtureRequest) -> str:
    """The name of the database; every test that uses this fixture runs on both databases."""
    return str(request.param)


@pytest.fixture(scope="module")
def database_url(dialect: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty database for one test module."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('database')}/test.db"
    return str(request.getfixturevalue("postgres_url"))


class Face:
    """The sync or the async face of one database, so that one test body tests both.

    A test calls ``face(repository.create, {...})``. If the result is awaitable, it is awaited. ``face.session()`` is a
    block with a session, and ``face.repository(session, Model, tenant)`` is a repository on it.
    """

    def __init__(self, name: str, database: Database, runner: asyncio.Runner | None = None) -> None:
        self.name = name
        self.database = database
        self.runner = runner or asyncio.Runner()

    @property
    def is_async(self) -> bool:
        return self.name == "async"

    @property
    def engine(self) -> Engine:
        """The sync engine of the face, whose statements `counted` can count."""
        return self.database.async_engine.sync_engine if self.is_async else self.database.engine

    def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_async:
            result = function(*args, **kwargs)
            return list(result) if hasattr(result, "__next__") else result

        async def run() -> Any:
            result = function(*args, **kwargs)
            if hasattr(result, "__aiter__"):
                return [item async for item in result]
            return await result if hasattr(result, "__await__") else result

        return self.runner.run(run(), context=contextvars.copy_context())

    @contextmanager
    def session(self, **options: Any) -> Iterator[Any]:
        maker = self.database.async_sessions if self.is_async else self.database.sessions
        session = maker(**options)
        try:
            yield session
        finally:
            self(session.close)

    @contextmanager
    def guarded(self) -> Iterator[Any]:
        """A guarded session, with its own session maker."""
        maker: Any = async_sessionmaker(self.database.async_engine) if self.is_async else sessionmaker(self.engine)
        session = guard_tenants(maker)()
        try:
            yield session
        finally:
            self(session.close)

    def repository(self, session: Any, model: Any, tenant: Any = None, **options: Any) -> Any:
        make = create_async_repository if self.is_async else create_repository
        return make(session, model, tenant, **options)

    @contextmanager
    def entered(self, block: Any) -> Iterator[Any]:
        """Enter a sync or async context manager as a sync one."""
        if not hasattr(block, "__aenter__"):
            with block as value:
                yield value
            return
        value = self(block.__aenter__)
        try:
            yield value
        except BaseException as error:
            if not self(block.__aexit__, type(error), error, error.__traceback__):
                raise
        else:
            self(block.__aexit__, None, None, None)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    """The tables of the fixture `database`; a module can override this fixture."""
    return Base.metadata


@pytest.fixture(scope="module")
def _database(database_url: str, tables: MetaData) -> Iterator[Database]:
    database = create_database(database_url)
    tables.create_all(database.engine)
    yield database
    database.dispose()


def empty(database: Database, tables: MetaData) -> None:
    """Delete all rows and restart all sequences. (TRUNCATE is slower for a few rows, because it creates new files.)

    Foreign keys are not checked: for a foreign key without an index, each deleted row would cost a scan.
    """
    if database.engine.dialect.name == "postgresql":
        with database.engine.begin() as connection:
            names = [connection.dialect.identifier_preparer.format_table(table) for table in tables.tables.values()]
            deletions = "".join(f"DELETE FROM {name}; " for name in names)
            connection.exec_driver_sql(
                f"SET LOCAL session_replication_role = replica; {deletions}"
                "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"
            )
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        names = [connection.dialect.identifier_preparer.format_table(table) for table in tables.tables.values()]
        deletions = (f"DELETE FROM {name}" for name in names)
        for command in ("PRAGMA foreign_keys = OFF", "BEGIN", *deletions, "COMMIT", "PRAGMA foreign_keys = ON"):
            connection.exec_driver_sql(command)


@pytest.fixture
def database(_database: Database, tables: MetaData) -> Iterator[Database]:
    """A database with the tables; its rows are deleted after each test."""
    yield _database
    empty(_database, tables)


@pytest.fixture(scope="module")
def _runner(_database: Database) -> Iterator[asyncio.Runner]:
    """The event loop of a module's async connections."""
    with asyncio.Runner() as runner:
        yield runner
        if "async_engine" in _database.__dict__:
            runner.run(_database.async_engine.dispose())


DRIVERS = {
    "asyncpg": ("async", "postgresql+asyncpg"),
    "psycopg": ("sync", "postgresql+psycopg"),
    "psycopg-async": ("async", "postgresql+psycopg"),
    "sqlite3": ("sync", "sqlite"),
    "aiosqlite": ("async", "sqlite"),
}
"""The name of each driver, with its face and the scheme of its URL."""


class Faces(dict[str, Face]):
    """The faces of one test module by driver, created at their first use. Those of PostgreSQL share a database."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        super().__init__()
        self._request = request
        self._folder = folder

    def __missing__(self, driver: str) -> Face:
        name, scheme = DRIVERS[driver]
        if scheme == "sqlite":
            url = f"sqlite:///{self._folder}/{driver}.db"
        else:
            url = str(self._request.getfixturevalue("postgres_url")).replace("postgresql", scheme, 1)
        face = self[driver] = Face(name, create_database(url))
        return face

    def close(self) -> None:
        for face in self.values():
            face.runner.run(face.database.dispose_async())
            face.runner.close()


@pytest.fixture(scope="module")
def faces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    """A face for each of `DRIVERS`, for tests whose result depends on the driver. They have no tables."""
    opened = Faces(request, tmp_path_factory.mktemp("faces"))
    yield opened
    opened.close()


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, database: Database, _runner: asyncio.Runner) -> Face:
    """The sync face and the async face of the database."""
    return Face(request.param, database, _runner)


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements that the engine sends in this block, with BEGIN, COMMIT and ROLLBACK."""
    sent: list[str] = []

    def cursor(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement != "BEGIN":
            sent.append(statement)

    def begin(connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            sent.append("BEGIN")

    def ended(word: str) -> Any:
        def listener(connection: Any) -> None:
            if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
                sent.append(word)

        return listener

    listeners = [
        ("before_cursor_execute", cursor),
        ("begin", begin),
        ("commit", ended("COMMIT")),
        ("rollback", ended("ROLLBACK")),
    ]
    for name, listener in listeners:
        listener.dotmac_observes = True  # they only observe, so statements need no transaction because of them
        event.listen(engine, name, listener)
    try:
        yield sent
    finally:
        for name, listener in listeners:
            event.remove(engine, name, listener)
