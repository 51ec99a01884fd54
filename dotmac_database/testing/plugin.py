"""The pytest plugin: sessions that leave nothing behind.

A project says where its database is, by overriding a fixture in its ``conftest.py``:

    @pytest.fixture(scope="session")
    def dotmac_database_url():
        return "postgresql://localhost/test"

    @pytest.fixture(scope="session")
    def dotmac_metadata():
        return Base.metadata

``dotmac_session`` and ``dotmac_async_session`` then give a session whose commits are savepoints of one transaction,
which is rolled back after the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine, MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..engines import make_async_engine, make_engine
from ..models.registered import mapped_tables


@pytest.fixture(scope="session")
def dotmac_database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the tests' database; an SQLite file of the test run's own unless overridden."""
    return f"sqlite:///{tmp_path_factory.mktemp('dotmac')}/test.db"


@pytest.fixture(scope="session")
def dotmac_metadata() -> MetaData | None:
    """The tables to create; None: those of every mapped class."""
    return None


@pytest.fixture(scope="session")
def dotmac_engine(dotmac_database_url: str, dotmac_metadata: MetaData | None) -> Iterator[Engine]:
    """The sync engine, with the tables created."""
    engine = make_engine(dotmac_database_url)
    if dotmac_metadata is not None:
        dotmac_metadata.create_all(engine)
    else:
        for table in mapped_tables():
            table.metadata.create_all(engine, tables=[table])
    yield engine
    engine.dispose()


@pytest.fixture
def dotmac_session(dotmac_engine: Engine) -> Iterator[Session]:
    """A `Session` whose every change, committed or not, is undone after the test."""
    with dotmac_engine.connect() as connection:
        transaction = connection.begin()
        session = Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        yield session
        session.close()
        transaction.rollback()


@pytest.fixture
async def dotmac_async_session(
    dotmac_engine: Engine,  # noqa: ARG001 - it has created the tables
    dotmac_database_url: str,
) -> AsyncIterator[AsyncSession]:
    """As ``dotmac_session``, an `AsyncSession`; needs a plugin that runs async fixtures, such as anyio's."""
    engine = make_async_engine(dotmac_database_url)
    async with engine.connect() as connection:
        transaction = await connection.begin()
        session = AsyncSession(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        yield session
        await session.close()
        await transaction.rollback()
    await engine.dispose()
