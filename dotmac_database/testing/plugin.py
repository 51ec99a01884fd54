"""The pytest plugin: fixtures for sessions whose changes are undone after each test.

A project names its database by overriding a fixture in its ``conftest.py``:

    @pytest.fixture(scope="session")
    def dotmac_database_url():
        return "postgresql://localhost/test"

    @pytest.fixture(scope="session")
    def dotmac_metadata():
        return Base.metadata

``dotmac_session`` and ``dotmac_async_session`` then give a session whose commits are savepoints of one transaction,
which is rolled back after the test. A project whose database has row-level security overrides ``dotmac_rls`` as well:

    @pytest.fixture(scope="session")
    def dotmac_rls():
        return RowLevelSecurity(Base.metadata)

The tables then get its policies, and the sessions are guarded and set their tenant in PostgreSQL. The URL should have a
role that may create tables but is no superuser, since policies do not apply to superusers. ``dotmac_leaks`` reports a
superuser, and the owner of the tables, who may disable the policies: override ``dotmac_guarded_sessions`` with sessions
of the application's role.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, MetaData, Table
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from ..dialects.features import has_policies, refuses_some_tables
from ..engines import make_async_engine, make_engine
from ..tenancy import RowLevelSecurity, guard_tenants
from .leaks import Leak, find_leaks
from .memory import create_tables, every_table, warn_of


@pytest.fixture(scope="session")
def dotmac_database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the tests' database. Default: a temporary SQLite file."""
    return f"sqlite:///{tmp_path_factory.mktemp('dotmac')}/test.db"


@pytest.fixture(scope="session")
def dotmac_metadata() -> MetaData | None:
    """The tables to create; None: those of all mapped classes."""
    return None


@pytest.fixture(scope="session")
def dotmac_rls() -> RowLevelSecurity | None:
    """The policies of the tenants' tables; None: no policies. Ignored on SQLite."""
    return None


@pytest.fixture(scope="session")
def dotmac_engine(
    dotmac_database_url: str, dotmac_metadata: MetaData | None, dotmac_rls: RowLevelSecurity | None
) -> Iterator[Engine]:
    """The sync engine, with the tables and their policies created."""
    engine = make_engine(dotmac_database_url)
    with engine.begin() as connection:
        _create(connection, dotmac_metadata)
        if dotmac_rls is not None and has_policies(connection.dialect.name):
            dotmac_rls.apply(connection)
    yield engine
    engine.dispose()


@pytest.fixture
def dotmac_session(dotmac_engine: Engine, dotmac_rls: RowLevelSecurity | None) -> Iterator[Session]:
    """A `Session` whose changes, committed or not, are undone after the test. With ``dotmac_rls`` it is guarded."""
    with dotmac_engine.connect() as connection:
        transaction = connection.begin()
        maker = sessionmaker(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        with maker() if dotmac_rls is None else guard_tenants(maker, rls=dotmac_rls)() as session:
            yield session
        transaction.rollback()


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
    engine = make_async_engine(dotmac_database_url)
    async with engine.connect() as connection:
        transaction = await connection.begin()
        if dotmac_engine.url.database in (None, "", ":memory:"):
            # A database in memory belongs to one engine: it does not have the tables that the sync engine created.
            await connection.run_sync(_create, dotmac_metadata)
        maker = async_sessionmaker(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        async with maker() if dotmac_rls is None else guard_tenants(maker, rls=dotmac_rls)() as session:
            yield session
        await transaction.rollback()
    await engine.dispose()


@pytest.fixture
def dotmac_guarded_sessions(dotmac_engine: Engine, dotmac_rls: RowLevelSecurity | None) -> sessionmaker[Session]:
    """The factory whose sessions ``dotmac_leaks`` attacks. Override it with the project's own."""
    return guard_tenants(sessionmaker(dotmac_engine), rls=dotmac_rls)


@pytest.fixture
def dotmac_leaks(
    dotmac_metadata: MetaData | None, dotmac_guarded_sessions: sessionmaker[Session]
) -> Callable[..., list[Leak]]:
    """A function with the arguments of `find_leaks` that runs all attacks and returns the leaks."""
    if dotmac_metadata is None:
        raise pytest.UsageError("dotmac_leaks needs the metadata to attack: override the fixture dotmac_metadata.")
    metadata = dotmac_metadata
    return lambda **options: find_leaks(metadata, dotmac_guarded_sessions, **options)


def _create(connection: Connection, metadata: MetaData | None) -> None:
    tables = every_table("a fixture dotmac_metadata") if metadata is None else list(metadata.tables.values())
    if refuses_some_tables(connection.dialect.name):
        warn_of(create_tables(connection, tables))
        return
    by_metadata: dict[MetaData, list[Table]] = {}
    for table in tables:
        by_metadata.setdefault(table.metadata, []).append(table)
    for owner, members in by_metadata.items():
        owner.create_all(connection, tables=members)
