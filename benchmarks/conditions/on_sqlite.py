"""The conditions on SQLite: a file, whose engines are the toolkit's for both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, inspect, text

from dotmac_database import Database, create_database

from ..schema import Base, User
from .by_hand import ByHand, SyncByHand
from .by_toolkit import ByToolkit, SyncByToolkit
from .site import OWN_ROWS, Site
from .ways import FRESH, Subject, Ways

_START = datetime(2024, 1, 1, tzinfo=UTC)


def _rows(count: int) -> Iterator[dict[str, Any]]:
    """The rows that `schema.FILL` inserts into PostgreSQL."""
    for n in range(1, count + 1):
        yield {
            "tenant_id": f"tenant-{n % 50}",
            "id": UUID(md5(f"user{n}".encode()).hexdigest()),
            "name": f"User {n}",
            "email": f"user{n}@example.org",
            "status": "idle" if n % 3 else "active",
            "score": n % 1000,
            "bio": f"Some words about user {n}",
            "created_at": _START + n * timedelta(seconds=31),
            "is_deleted": False,
        }


def _filled(site: Site) -> Database:
    """The file with its rows."""
    database = create_database(f"sqlite:///{site.folder / 'conditions.db'}", pool_size=2)
    with database.engine.begin() as connection:
        if not inspect(connection).has_table(User.__tablename__):
            Base.metadata.create_all(connection)
            connection.execute(insert(User), list(_rows(OWN_ROWS)))
            connection.execute(text("ANALYZE"))
        connection.execute(delete(User).where(User.bio == FRESH))
    return database


@asynccontextmanager
async def on_sqlite(site: Site) -> AsyncIterator[Ways]:
    """Python's sqlite3, sync."""
    database, subject = _filled(site), Subject(User, OWN_ROWS)
    try:
        yield Ways(SyncByHand(subject, database.sessions), SyncByToolkit(subject, database.sessions))
    finally:
        database.dispose()


@asynccontextmanager
async def on_aiosqlite(site: Site) -> AsyncIterator[Ways]:
    """aiosqlite."""
    database, subject = _filled(site), Subject(User, OWN_ROWS)
    database.engine.dispose()
    try:
        yield Ways(ByHand(subject, database.async_sessions), ByToolkit(subject, database.async_sessions))
    finally:
        await database.dispose_async()
