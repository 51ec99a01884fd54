"""The two ways to send the statements of a repository, for tests that compare them or need one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.pool import NullPool

from dotmac_database import DatabaseTransaction
from dotmac_database.engines import sync_url
from dotmac_database.execution import driver

from .conftest import Face

WAYS = ("driver", "sqlalchemy")
"""The driver alone, and SQLAlchemy."""

EACH_WAY = pytest.mark.parametrize("way", [pytest.param("driver", marks=pytest.mark.fast_way("driver")), "sqlalchemy"])
"""Runs a test by each of `WAYS`."""


@dataclass(frozen=True)
class SentByDriver:
    """A statement that the driver has sent. ``is_within``: it was part of an open transaction."""

    sql: str
    is_within: bool


@contextmanager
def recorded() -> Iterator[list[SentByDriver]]:
    """The statements that the driver sends without SQLAlchemy in this block."""
    sent: list[SentByDriver] = []
    send = driver._sent

    def record(
        dialect: Any, link: Any, to_send: Any, sql: str, *arguments: Any, is_within: bool, **options: Any
    ) -> Any:
        sent.append(SentByDriver(sql, is_within))
        return send(dialect, link, to_send, sql, *arguments, is_within=is_within, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_sent", record)
        yield sent


@contextmanager
def way_of(engine: Engine, way: str) -> Iterator[list[SentByDriver]]:
    """Send the statements of this block along one of `WAYS`. Gives those that the driver has sent.

    A listener to `before_execute` rules the driver out. At the end it is checked that the driver has sent nothing on
    SQLAlchemy's way, and at least one statement on the other.
    """
    if way == "sqlalchemy":
        event.listen(engine, "before_execute", _ignore)
    try:
        with recorded() as sent:
            yield sent
    finally:
        if way == "sqlalchemy":
            event.remove(engine, "before_execute", _ignore)
    assert bool(sent) == (way == "driver")


def _ignore(*_: Any) -> None:
    """Do nothing."""


def block(face: Face, session: Any, **options: Any) -> Any:
    """A `DatabaseTransaction` on the session of a face, as a sync context manager."""
    kind = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    return face.entered(kind(session, **options))


def create_tables(face: Face, tables: MetaData) -> None:
    """Create the tables in the database of a face, by a connection of its own. Existing tables are dropped first.

    The connections of the face are closed, since their prepared statements may read the dropped tables.
    """
    engine = create_engine(sync_url(face.database.url), poolclass=NullPool)
    with engine.begin() as connection:
        tables.drop_all(connection)
        tables.create_all(connection)
    if face.is_async:
        face(face.database.async_engine.dispose)
    else:
        face.engine.dispose()
