"""Where the conditions find their databases: one server with a filled table, and copies of that database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..schema import FILL, User
from .ways import FRESH, Subject

OWN_ROWS = 50_000
"""The number of rows of a table that belongs to one condition."""


@contextmanager
def sync_engine(url: str) -> Iterator[Engine]:
    """An engine for the time of a block."""
    engine = create_engine(url, pool_size=2)
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def async_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """As `sync_engine`, but an async engine."""
    engine = create_async_engine(url, pool_size=2)
    try:
        yield engine
    finally:
        await engine.dispose()


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """A connection that commits each statement."""
    with sync_engine(url) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@dataclass(frozen=True)
class Site:
    """The server's port, the rows of the main table, and a folder for files.

    ``proxy`` is the port of a proxy through which the ways connect. The tables are prepared without it.
    """

    port: int
    rows: int
    folder: Path
    proxy: int | None = None

    @property
    def main(self) -> Subject:
        """The class of the main table."""
        return Subject(User, self.rows)

    def url(self, driver: str, database: str = "postgres", user: str = "postgres") -> str:
        """The URL of a database for the ways, in the form of SQLAlchemy."""
        return f"postgresql+{driver}://{user}@127.0.0.1:{self.proxy or self.port}/{database}"

    def owner_url(self, database: str = "postgres") -> str:
        """The URL of a database for its preparation."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def filled(self, model: Any, rows: int = OWN_ROWS, more: Iterable[str] = ()) -> None:
        """Create the tables of the model's metadata, and fill the model's table, unless they exist already.

        ``more`` are statements that are run after it, for further columns and tables.
        """
        name = model.__table__.name
        with sync_engine(self.owner_url()) as engine, engine.begin() as connection:
            if inspect(connection).has_table(name):
                return
            model.metadata.create_all(connection)
            for statement in (FILL.replace("bench_users", name).format(rows=rows), *more):
                connection.execute(text(statement))

    def tidied(self, model: Any, database: str = "postgres") -> None:
        """Remove the rows that earlier conditions have created, and dead rows; and count the rows for the planner."""
        name = model.__table__.name
        with _connected(self.owner_url(database)) as connection:
            connection.execute(text(f"DELETE FROM {name} WHERE bio = :bio"), {"bio": FRESH})
            connection.execute(text(f"VACUUM ANALYZE {name}"))

    def copied(self, database: str) -> None:
        """Copy the main database, unless the copy exists already. Nothing else may be connected to it meanwhile."""
        with _connected(self.owner_url("template1")) as connection:
            exists = connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": database})
            if exists is None:
                connection.execute(text(f"CREATE DATABASE {database} TEMPLATE postgres"))
