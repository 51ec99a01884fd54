"""What makes an SQLite engine behave as PostgreSQL does: true transactions, foreign keys, and the same values."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy import types as sa
from sqlalchemy.dialects.sqlite import DATETIME

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

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level", isolation_level) != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN")
