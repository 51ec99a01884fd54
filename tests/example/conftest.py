"""The example on a loaded database: tests call its API in process, and open its page in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import MetaData

from dotmac_database import Database, create_database
from example_app.app import create_app
from example_app.loading import Loaded, load
from example_app.models import Base
from example_app.settings import Settings
from tests.fastapi.conftest import Api


@pytest.fixture(scope="module")
def tables() -> MetaData:
    """No tables: the example creates its own."""
    return MetaData()


@pytest.fixture(scope="module")
def loaded(database_url: str) -> Iterator[Loaded]:
    """Fill the module's database; the result of `load`."""
    database = create_database(database_url)
    Base.metadata.drop_all(database.engine)
    yield load(database)
    database.dispose()


@pytest.fixture(scope="module")
def app(database_url: str, loaded: Loaded) -> FastAPI:
    return create_app(Settings(database_url=database_url, cursor_key="a key of the tests"))


@pytest.fixture(scope="module")
def api(app: FastAPI) -> Iterator[Api]:
    with asyncio.Runner() as runner:
        yield Api(app, runner)
        runner.run(app.state.plugin.database.dispose_async())


SQLITE_WAITS = 60
"""How many seconds a connection to SQLite waits for another load. On a busy machine a load takes longer than 5 s."""


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    """The module's database without tables."""
    database = create_database(database_url, busy_timeout=SQLITE_WAITS)
    Base.metadata.drop_all(database.engine)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("example") / "template.db"
    database = create_database(f"sqlite:///{path}")
    load(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return path
