"""Fills the database: all rows in one transaction, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy.orm import Session

from dotmac_database import ALL_TENANTS, Database, DatabaseTransaction, advisory_lock, create_repository

from .data import Row, airport_rows, country_rows
from .models import Airport, Base, Country, Inspection, User
from .people import inspection_rows, user_rows

Progress = Callable[[str, int, int], Any]
"""Called with what is being loaded, how many rows of it are, and how many there will be."""

_BATCH = 4000
_AUTHOR = "example"


@dataclass(frozen=True)
class Loaded:
    """How many rows were written (0: they were there already), and how long it took, in seconds."""

    rows: int
    seconds: float


def load(database: Database, progress: Progress = lambda *_: None) -> Loaded:
    """Create the tables, and fill them where they are empty.

    One transaction: where it is interrupted nothing stays, and the next start loads all of it. ``progress`` is told
    every few thousand rows.
    """
    started = perf_counter()
    with database.sessions() as session, DatabaseTransaction.sync_transaction(session):
        if session.get_bind().dialect.name == "postgresql":
            # Two processes may start at once; the second waits, and then finds the rows.
            advisory_lock(session, "load the example")
        Base.metadata.create_all(session.connection())
        countries = create_repository(session, Country)
        if countries.count():
            return Loaded(0, perf_counter() - started)
        written = sum(
            _fill(session, model, rows, progress)
            for model, rows in (
                (Country, country_rows()),
                (Airport, airport_rows()),
                (User, list(user_rows())),
                (Inspection, list(inspection_rows())),
            )
        )
    return Loaded(written, perf_counter() - started)


def _fill(session: Session, model: type[Base], rows: list[Row], progress: Progress) -> int:
    tenant = None if model is Country else ALL_TENANTS
    repository = create_repository(session, model, tenant)
    what, done = model.__tablename__, 0
    progress(what, 0, len(rows))
    for start in range(0, len(rows), _BATCH):
        done += repository.bulk_create(rows[start : start + _BATCH], _AUTHOR, returning=False)
        progress(what, done, len(rows))
    return done
