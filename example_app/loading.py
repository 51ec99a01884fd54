"""Fill the empty database in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy.orm import Session

from dotmac_database import ALL_TENANTS, Database, TransactionManager, advisory_lock, create_repository

from .data import Row, airport_rows, country_rows
from .models import Airport, Base, Country, Inspection, User
from .people import inspection_rows, user_rows

Progress = Callable[[str, int, int], Any]
"""Called with a table's name, the number of its rows that are loaded, and the number of all its rows."""

_BATCH = 4000
_AUTHOR = "example"


@dataclass(frozen=True)
class Loaded:
    """The number of inserted rows (0 if the database was filled before), and the duration in seconds."""

    rows: int
    seconds: float


def load(database: Database, progress: Progress = lambda *_: None) -> Loaded:
    """Create the tables, and fill them if they are empty.

    Everything is one transaction: if it is interrupted, nothing is stored, and the next start loads everything.
    ``progress`` is called every few thousand rows. If two processes start at the same time, one process loads the rows;
    the other process waits and then finds them.
    """
    started = perf_counter()
    manager = TransactionManager(database.sessions, max_retries=6, retry_delay=0.5, backoff_multiplier=1.5)
    rows = manager.execute_with_retry(lambda session: _fill_once(session, progress), idempotent=True)
    return Loaded(rows, perf_counter() - started)


def _fill_once(session: Session, progress: Progress) -> int:
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        # SQLite has no advisory locks. It has one writer at a time: the other process gets "busy", and tries again.
        advisory_lock(session, "load the example")
    Base.metadata.create_all(connection)
    if create_repository(session, Country).count():
        return 0
    return sum(
        _fill(session, model, rows, progress)
        for model, rows in (
            (Country, country_rows()),
            (Airport, airport_rows()),
            (User, list(user_rows())),
            (Inspection, list(inspection_rows())),
        )
    )


def _fill(session: Session, model: type[Base], rows: list[Row], progress: Progress) -> int:
    tenant = None if model is Country else ALL_TENANTS
    repository = create_repository(session, model, tenant)
    table, done = model.__tablename__, 0
    progress(table, 0, len(rows))
    for start in range(0, len(rows), _BATCH):
        done += repository.bulk_create(rows[start : start + _BATCH], _AUTHOR, returning=False)
        progress(table, done, len(rows))
    return done
