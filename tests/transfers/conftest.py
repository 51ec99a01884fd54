"""Databases for tests of transfers: one to export from, and new ones to import into."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dotmac_database import Database, create_database
from dotmac_database.transfers import export_tenant

from . import models

_NUMBERS = itertools.count()


@contextmanager
def new_database(
    dialect: str, request: pytest.FixtureRequest, folder: Path, template: str = "template1"
) -> Iterator[Database]:
    """An empty database, or a copy of another one."""
    number = next(_NUMBERS)
    if dialect == "sqlite":
        path = folder / f"{number}.db"
        if template != "template1":
            shutil.copy(template, path)
        database = create_database(f"sqlite:///{path}")
        try:
            yield database
        finally:
            database.dispose()
        return
    server = str(request.getfixturevalue("postgres_server"))
    name = f"transfers_{os.getpid()}_{number}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    database = create_database(f"{server.rpartition('/')[0]}/{name}")
    try:
        yield database
    finally:
        database.dispose()
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def source(
    dialect: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database with two tenants, which tests only read."""
    with new_database(dialect, request, tmp_path_factory.mktemp("source")) as database:
        with database.engine.begin() as connection:
            models.create(connection)
            models.fill(connection, "ours", 100)
            models.fill(connection, "theirs", 200)
        yield database


@pytest.fixture(scope="module")
def exported(source: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the source, which tests only read."""
    folder = tmp_path_factory.mktemp("exported") / "ours"
    export_tenant(source, models.METADATA, "ours", folder)
    return folder


@pytest.fixture(scope="module")
def target(
    dialect: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database with the other tenant, for tests that write nothing that stays."""
    with new_database(dialect, request, tmp_path_factory.mktemp("target")) as database:
        with database.engine.begin() as connection:
            models.create(connection)
            models.fill(connection, "theirs", 200)
        yield database


@pytest.fixture(scope="module")
def templates(
    dialect: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The names of databases that tests copy: one without tenants, and one with two."""
    folder = tmp_path_factory.mktemp("templates")
    with new_database(dialect, request, folder) as empty, new_database(dialect, request, folder) as filled:
        for database in (empty, filled):
            with database.engine.begin() as connection:
                models.create(connection)
                if database is filled:
                    models.fill(connection, "ours", 100)
                    models.fill(connection, "theirs", 200)
            database.dispose()
        yield {"empty": str(empty.url.database), "filled": str(filled.url.database)}


@pytest.fixture
def empty(
    dialect: str, templates: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Database]:
    """A database with the tables, and without tenants."""
    with new_database(dialect, request, tmp_path, templates["empty"]) as database:
        yield database


@pytest.fixture
def copy(dialect: str, templates: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with two tenants, which a test can change."""
    with new_database(dialect, request, tmp_path, templates["filled"]) as database:
        yield database
