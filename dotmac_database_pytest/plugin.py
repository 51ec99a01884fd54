"""The fixtures, the marker and the options of ``docs/testing.md``.

pytest imports this module in every run. So everything else is imported where a fixture needs it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy import Connection, Engine, MetaData
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, sessionmaker

    from dotmac_database import RowLevelSecurity
    from dotmac_database.testing import AsyncModelFactories, Leak, ModelFactories

    from .registry import Engines, Templates

MARKER = "dotmac_leaks(*, make=None, keys=True, tenants=None): no tenant can read or change another's rows (find_leaks)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of the configuration file."""
    database = "the tests' database: 'sqlite' (a temporary file), 'postgresql' (the run's own server), or a URL"
    parser.addini("dotmac_database", database, default="sqlite")
    parser.addini("dotmac_metadata", "the tables, as 'package.module:Base.metadata'; default: of all mapped classes")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", MARKER)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests with the marker use the fixture ``dotmac_leaks``. Raises `pytest.UsageError` for wrong arguments."""
    for item in items:
        marker = item.get_closest_marker("dotmac_leaks")
        if marker is None or not isinstance(item, pytest.Function):
            continue
        if marker.args or marker.kwargs.keys() - {"make", "keys", "tenants"}:
            raise pytest.UsageError(f"{item.nodeid}: the marker is {MARKER}")
        if "dotmac_leaks" not in item.fixturenames:
            item.fixturenames.append("dotmac_leaks")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test with the marker if there is a leak, before the test itself runs."""
    marker = item.get_closest_marker("dotmac_leaks")
    if marker is not None and isinstance(item, pytest.Function):
        find: Callable[..., list[Leak]] = item.funcargs["dotmac_leaks"]  # type: ignore[assignment]  # the fixture's
        leaks = find(**marker.kwargs)
        if leaks:
            pytest.fail("tenants' rows leak:\n" + "\n".join(f"  {leak}" for leak in leaks), pytrace=False)


@pytest.fixture(scope="session")
def dotmac_metadata(pytestconfig: pytest.Config) -> MetaData | None:
    """The tables to create: the option ``dotmac_metadata``; None: those of all mapped classes. Override it at will."""
    from .settings import metadata_of

    return metadata_of(pytestconfig)


@pytest.fixture(scope="session")
def dotmac_rls() -> RowLevelSecurity | None:
    """The policies of the tenants' tables; None: no policies. Override it with yours, which need PostgreSQL."""
    return None


@pytest.fixture
def dotmac_create_schema(
    dotmac_metadata: MetaData | None, dotmac_rls: RowLevelSecurity | None
) -> Callable[[Connection], None]:
    """The function that creates the tables in an empty database, and their policies. Override it to run migrations.

    Give the override the scope "session": each function that is not equal to another gets a database of its own.
    """
    from .registry import TablesAndPolicies

    return TablesAndPolicies(dotmac_metadata, dotmac_rls)


@pytest.fixture(scope="session")
def dotmac_postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server: of the environment variable ``TEST_DATABASE_URL``, else of the run's own server.

    The workers of pytest-xdist share that server. It starts when the first test needs it, and is stopped and deleted
    after the last process of the run has ended, even if the processes are killed.
    """
    from .settings import run_folder, url_of_environment

    url = url_of_environment()
    if url is not None:
        yield url
        return
    from .settings import mistakes_alone, require_server

    require_server()
    from .sharing import shared_server

    with ExitStack() as stack:
        with mistakes_alone():
            own = stack.enter_context(shared_server(run_folder(tmp_path_factory)))
        yield own


@pytest.fixture(scope="session")
def _dotmac_templates(dotmac_postgres_server: str) -> Iterator[Templates]:
    """The worker's databases with tables and no rows, which are copied for the tests."""
    from .registry import Templates
    from .settings import url_of_environment

    templates = Templates(dotmac_postgres_server, own=url_of_environment() is None)
    yield templates
    templates.close()


@pytest.fixture(scope="session")
def _dotmac_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The worker's engines."""
    from .registry import Engines

    engines = Engines(tmp_path_factory)
    yield engines
    engines.close()


@pytest.fixture
def dotmac_postgres(_dotmac_templates: Templates, dotmac_create_schema: Callable[[Connection], None]) -> Iterator[str]:
    """The URL of a PostgreSQL database of this test alone, with the tables: for code that makes its own engine."""
    from .settings import mistakes_alone

    with mistakes_alone():
        template = _dotmac_templates.of(dotmac_create_schema)
    with template.copy() as url:
        yield url


@pytest.fixture
def dotmac_database_url(request: pytest.FixtureRequest, dotmac_create_schema: Callable[[Connection], None]) -> str:
    """The URL of the tests' database, by the option ``dotmac_database``. Default: a temporary SQLite file.

    Override it with a fixture of scope "session" that returns the URL of a database without tables.
    """
    from .settings import database_of, mistakes_alone

    database = database_of(request.config)
    if database == "postgresql":
        templates: Templates = request.getfixturevalue("_dotmac_templates")
        with mistakes_alone():
            return templates.shared_copy(dotmac_create_schema)
    if database == "sqlite":
        engines: Engines = request.getfixturevalue("_dotmac_engines")
        return engines.file(dotmac_create_schema)
    return database


@pytest.fixture
def dotmac_engine(
    request: pytest.FixtureRequest,
    dotmac_database_url: str,
    dotmac_create_schema: Callable[[Connection], None],
    dotmac_rls: RowLevelSecurity | None,
) -> Engine:
    """The sync engine, with the tables and their policies created: the same one for all tests with the same tables."""
    from .settings import mistakes_alone

    # Not a parameter: it would be made before the database, and closed after it.
    engines: Engines = request.getfixturevalue("_dotmac_engines")
    with mistakes_alone():
        return engines.of(dotmac_database_url, dotmac_create_schema, dotmac_rls)


@pytest.fixture
def dotmac_session(dotmac_engine: Engine, dotmac_rls: RowLevelSecurity | None) -> Iterator[Session]:
    """A `Session` whose changes, committed or not, are undone after the test. With ``dotmac_rls`` it is guarded."""
    from dotmac_database.testing.rollback import rolled_back_session

    from .registry import require_policies

    require_policies(dotmac_engine.url, dotmac_rls)
    with rolled_back_session(dotmac_engine, rls=dotmac_rls) as session:
        yield session


@pytest.fixture
async def dotmac_async_session(
    dotmac_engine: Engine,
    dotmac_database_url: str,
    dotmac_metadata: MetaData | None,
    dotmac_rls: RowLevelSecurity | None,
) -> AsyncIterator[AsyncSession]:
    """As ``dotmac_session``, an `AsyncSession`. Requires a plugin for async fixtures.

    Such plugins are anyio's, and pytest-asyncio in auto mode.
    """
    from dotmac_database.engines import make_async_engine
    from dotmac_database.testing.rollback import async_rolled_back_session

    from .registry import require_policies

    require_policies(dotmac_database_url, dotmac_rls)
    engine = make_async_engine(dotmac_database_url)
    async with async_rolled_back_session(engine, rls=dotmac_rls, metadata=dotmac_metadata) as session:
        yield session
    await engine.dispose()


@pytest.fixture
def dotmac_tenants(dotmac_metadata: MetaData | None) -> tuple[object, object]:
    """Two tenants of the tenant columns' type: "acme" and "globex", 1 and 2, or two UUIDs. Override it at will."""
    from dotmac_database.testing.tenants import two_tenants

    from .settings import mistakes_alone

    with mistakes_alone():
        return two_tenants(dotmac_metadata)


@pytest.fixture
def dotmac_factory(dotmac_session: Session, dotmac_tenants: tuple[object, object]) -> ModelFactories:
    """The factories in ``dotmac_session``, by class: ``dotmac_factory(User).create(name="Ada")``."""
    from dotmac_database.testing import ModelFactories

    from .settings import mistakes_alone

    with mistakes_alone():
        return ModelFactories(dotmac_session, dotmac_tenants)


@pytest.fixture
def dotmac_async_factory(
    dotmac_async_session: AsyncSession, dotmac_tenants: tuple[object, object]
) -> AsyncModelFactories:
    """As ``dotmac_factory``, in ``dotmac_async_session``. The methods of its factories are coroutines."""
    from dotmac_database.testing import AsyncModelFactories

    from .settings import mistakes_alone

    with mistakes_alone():
        return AsyncModelFactories(dotmac_async_session, dotmac_tenants)


@pytest.fixture
def dotmac_guarded_sessions(dotmac_engine: Engine, dotmac_rls: RowLevelSecurity | None) -> sessionmaker[Session]:
    """The factory whose sessions the leak kit attacks. Override it with the app's own, such as ``plugin.sessions``."""
    from sqlalchemy.orm import sessionmaker

    from dotmac_database import guard_tenants

    from .registry import require_policies

    require_policies(dotmac_engine.url, dotmac_rls)
    return guard_tenants(sessionmaker(dotmac_engine), rls=dotmac_rls)


@pytest.fixture
def dotmac_leaks(
    dotmac_metadata: MetaData | None, dotmac_guarded_sessions: sessionmaker[Session]
) -> Callable[..., list[Leak]]:
    """A function with the options of `find_leaks` that runs all attacks on tenants' rows and returns the leaks."""
    from dotmac_database.testing import find_leaks

    from .settings import fail

    if dotmac_metadata is None:
        fail("dotmac_leaks needs the metadata to attack: set dotmac_metadata, an option or a fixture.")
    metadata = dotmac_metadata
    return lambda **options: find_leaks(metadata, dotmac_guarded_sessions, **options)
