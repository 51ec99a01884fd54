"""Prepares SQLite engines to behave like PostgreSQL: real transactions, foreign keys, and the same values."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, StaticPool, event
from sqlalchemy import types as sa
from sqlalchemy.dialects.sqlite import DATETIME
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util.concurrency import in_greenlet

from ..types import as_utc
from .sqlite_functions import register_functions, register_unicode
from .transactions import send_begin


class _ZonedDateTime(DATETIME):
    """SQLAlchemy's DATETIME for SQLite. With ``timezone=True``, values are stored in UTC and read as UTC."""

    def bind_processor(self, dialect: Any) -> Any:
        store: Any = super().bind_processor(dialect)
        if not self.timezone:
            return store

        def process(value: datetime | None) -> Any:
            return store(as_utc(value) if isinstance(value, datetime) else value)

        return process

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        load: Any = super().result_processor(dialect, coltype)
        if not self.timezone:
            return load

        def process(value: Any) -> datetime | None:
            loaded = load(value)
            return None if loaded is None else loaded.replace(tzinfo=UTC)

        return process


class _ExactNumeric(sa.Numeric[Any]):
    """A Decimal that is stored as a REAL and rounded to its scale when read: exact for up to 15 significant digits."""

    def bind_processor(self, dialect: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        return lambda value: None if value is None else float(value)

    def result_processor(self, dialect: Any, coltype: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        if not self.asdecimal:
            return lambda value: None if value is None else float(value)
        if self.scale is None:
            return lambda value: None if value is None else Decimal(str(value))
        form = f"%.{self.scale}f"
        return lambda value: None if value is None else Decimal(form % value)


def is_sqlite(engine: Engine) -> bool:
    """Whether the engine is one of SQLite."""
    return engine.dialect.name == "sqlite"


def is_in_memory(url: URL) -> bool:
    """Whether the URL is that of an SQLite database in memory: https://www.sqlite.org/inmemorydb.html."""
    return url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:")
        or url.query.get("mode") == "memory"
        or "mode=memory" in (url.database or "")
        or (url.database or "").startswith("file::memory:")
    )


def missing_file(url: URL) -> str | None:
    """The path of the SQLite file that the URL names, if there is no such file; else None."""
    path = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and not is_in_memory(url) and not path.startswith("file:")
    return path if is_file and not Path(path).exists() else None


def shared_pool(engine: Engine) -> StaticPool | None:
    """The pool of a database in memory, whose users share one connection; None: it is another database."""
    return engine.pool if is_sqlite(engine) and isinstance(engine.pool, StaticPool) else None


def keep_connection(engine: Engine) -> None:
    """Make SQLAlchemy keep the only connection of an async engine whose database is in memory.

    Closing the connection would lose the database.

    SQLAlchemy closes a connection if it can't reset it outside of a greenlet, and if a statement was cancelled. Neither
    is necessary here. Without an open transaction there is nothing to reset. After a cancelled statement the
    transaction is rolled back, which waits for the statement, since the driver's thread runs one call after another.
    """

    @event.listens_for(engine, "reset")
    def reset(connection: Any, _record: object, state: Any) -> None:
        if state.asyncio_safe and connection.driver_connection.in_transaction:
            connection.rollback()

    reset.dotmac_internal = True  # type: ignore[attr-defined]  # see `dotmac_database.departures`

    @event.listens_for(engine, "handle_error")
    def handled(context: ExceptionContext) -> None:
        if not isinstance(context.original_exception, Exception):
            context.is_disconnect = False

    handled.dotmac_internal = True  # type: ignore[attr-defined]  # see `dotmac_database.departures`


def prepare(engine: Engine, *, busy_timeout: float, isolation_level: str | None = None) -> None:
    """Set an engine up.

    A statement waits for a lock of another connection for at most ``busy_timeout`` seconds. ``isolation_level`` is the
    level that the engine was created with.
    """
    dialect: Any = engine.dialect
    dialect.colspecs = {**dialect.colspecs, sa.DateTime: _ZonedDateTime, sa.Numeric: _ExactNumeric, sa.Float: sa.Float}

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # The driver must not send BEGIN by itself: https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#pysqlite-serializable
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode")
        if cursor.fetchone()[0] == "delete":
            # The mode of a read-only file can't be changed.
            with suppress(dialect.loaded_dbapi.OperationalError):
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.fetchone()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()
        register_functions(connection)
        register_unicode(connection)

    connected.dotmac_internal = True  # type: ignore[attr-defined]  # see `dotmac_database.departures`

    if dialect.is_async and isinstance(engine.pool, StaticPool):
        keep_connection(engine)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if dialect.is_async and not in_greenlet():
            # The error is raised here, before BEGIN. Otherwise SQLAlchemy would raise it after BEGIN, and the pool
            # would close the connection.
            raise MissingGreenlet(
                "An attribute that an async session has not loaded, such as a deferred column or a relationship, was "
                "read where nothing can be awaited: load it with the row."
            )
        if connection.get_execution_options().get("isolation_level", isolation_level) != "AUTOCOMMIT":
            send_begin(connection)

    begun.dotmac_internal = True  # type: ignore[attr-defined]  # see `dotmac_database.departures`
