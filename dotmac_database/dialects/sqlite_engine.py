"""What makes an SQLite engine behave as PostgreSQL does: true transactions, foreign keys, and the same values."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, StaticPool, event
from sqlalchemy import types as sa
from sqlalchemy.dialects.sqlite import DATETIME
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util.concurrency import in_greenlet

from ..types import as_utc
from .sqlite_functions import register_functions, register_unicode


class _ZonedDateTime(DATETIME):
    """A timestamp with time zone is stored in UTC, and comes back as UTC."""

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
    """A Decimal is stored as a REAL and comes back to its scale: exact for up to 15 significant digits."""

    def bind_processor(self, dialect: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        return lambda value: None if value is None else float(value)

    def result_processor(self, dialect: Any, coltype: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        if not self.asdecimal:
            return lambda value: None if value is None else float(value)
        if self.scale is None:
            return lambda value: None if value is None else Decimal(str(value))
        form = f"%.{self.scale}f"
        return lambda value: None if value is None else Decimal(form % value)


def keep(engine: Engine) -> None:
    """Never close the one connection of an async engine in memory: the database would be lost with it.

    SQLAlchemy closes a connection that it can't reset outside of a greenlet, or whose statement was cancelled. Here
    there is nothing to reset unless a transaction is open, and what a cancelled statement leaves is rolled back: the
    driver's thread does one thing after another.
    """

    @event.listens_for(engine, "reset")
    def reset(connection: Any, _record: Any, state: Any) -> None:
        if state.asyncio_safe and connection.driver_connection.in_transaction:
            connection.rollback()

    @event.listens_for(engine, "handle_error")
    def handled(context: ExceptionContext) -> None:
        if not isinstance(context.original_exception, Exception):
            context.is_disconnect = False


def prepare(engine: Engine, *, busy_timeout: float, isolation_level: str | None = None) -> None:
    """Set an engine up; ``busy_timeout`` in seconds is how long a statement waits for another's lock.

    ``isolation_level`` is the one that the engine was made with.
    """
    dialect: Any = engine.dialect
    dialect.colspecs = {**dialect.colspecs, sa.DateTime: _ZonedDateTime, sa.Numeric: _ExactNumeric, sa.Float: sa.Float}

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # No BEGIN of the driver's own: https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#pysqlite-serializable
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode")
        if cursor.fetchone()[0] == "delete":
            # A file that may only be read stays as it is.
            with suppress(dialect.loaded_dbapi.OperationalError):
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.fetchone()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()
        register_functions(connection)
        register_unicode(connection)

    if dialect.is_async and isinstance(engine.pool, StaticPool):
        keep(engine)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if dialect.is_async and not in_greenlet():
            # The driver would find out once it has begun, and the pool would close the connection for it.
            raise MissingGreenlet(
                "An async session was asked for something that it has not loaded, such as a deferred column or a "
                "relationship, where nothing can be awaited: load it with the row."
            )
        if connection.get_execution_options().get("isolation_level", isolation_level) != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN")
