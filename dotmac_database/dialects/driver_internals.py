"""Every private name of asyncpg, of psycopg, and of SQLAlchemy's adapters for them that the toolkit uses.

See `dotmac_database.sqlalchemy_internals` for the reasons and for the test. ``pooled`` is a connection of SQLAlchemy's
pool, ``adapted`` its ``dbapi_connection`` (SQLAlchemy's adapter), and ``driver`` its ``driver_connection``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from sqlalchemy.dialects.postgresql import asyncpg as adapters
from sqlalchemy.pool import ManagesConnection
from sqlalchemy.util import await_only

from ..sqlalchemy_internals import Internal, absent

# asyncpg.


class _ServerType(Protocol):
    """A type of the server, by its OID."""

    oid: int


class Attribute(Protocol):
    """A column of a prepared statement's rows."""

    type: _ServerType


class Adapted(Protocol):
    """SQLAlchemy's adapter of asyncpg's connection."""

    isolation_level: str
    _transaction: object | None

    def _start_transaction(self) -> Awaitable[None]: ...


def caches_statements(driver: Any, adapted: object) -> bool:
    """Whether asyncpg caches prepared statements, and the connection has SQLAlchemy's own adapter.

    Behind a pooler asyncpg must not cache them. SQLAlchemy then gives each one a unique name.
    """
    size = driver._config.statement_cache_size
    return bool(size) and type(adapted) is adapters.AsyncAdapt_asyncpg_connection


class _Scripted:
    """asyncpg's connection, which sends a script together with the first statement that is executed."""

    __slots__ = ("dotmac_driver", "dotmac_script")

    def __init__(self, driver: Any, script: str) -> None:
        object.__setattr__(self, "dotmac_driver", driver)
        object.__setattr__(self, "dotmac_script", script)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dotmac_driver, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.dotmac_driver, name, value)

    def execute(self, sql: str) -> Awaitable[str]:
        """Send the statement and the script as one message."""
        sent: Awaitable[str] = self.dotmac_driver.execute(f"{sql} {self.dotmac_script}")
        return sent


def begin_with(driver: Any, adapted: Any, script: str) -> None:
    """Begin a transaction, as the adapter does before the first statement, and run a script in it. One message.

    If this fails, it is unknown whether the transaction has begun, so the caller must close the connection.
    """
    transaction = driver.transaction(
        isolation=adapted.isolation_level, readonly=adapted.readonly, deferrable=adapted.deferrable
    )
    transaction._connection = _Scripted(driver, script)
    try:
        await_only(transaction.start())
    finally:
        transaction._connection = driver
    adapted._transaction = transaction


def has_adapter(adapted: object) -> bool:
    """Whether the connection is psycopg's or sqlite3's own, or one that SQLAlchemy has adapted from an async driver."""
    return type(adapted).__module__.startswith(_MODULES)


_MODULES = ("psycopg", "sqlite3", "sqlalchemy.")


def has_begun(adapted: Adapted) -> bool:
    """Whether the adapter has begun a transaction."""
    return adapted._transaction is not None


def begin(adapted: Adapted) -> None:
    """Begin a transaction, as the adapter does before the first statement."""
    await_only(adapted._start_transaction())


def as_dbapi_error(adapted: Any, error: Exception) -> Exception:
    """The error that SQLAlchemy's adapter raises for an exception of its async driver; a sync driver has no adapter."""
    convert = getattr(adapted, "_handle_exception", None)
    if convert is None:
        return error
    try:
        convert(error)
    except Exception as raised:  # noqa: BLE001 - every exception of the driver is converted
        return raised
    return error


def prepared_statement(driver: Any, sql: str) -> object | None:
    """The prepared statement in the driver's cache, or None if the statement is too long for the cache."""
    prepared: object | None = driver._stmt_cache._entries.get((sql, driver._protocol.get_record_class(), False))
    return prepared


def attributes_of(prepared: Any) -> Sequence[Attribute]:
    """The columns of a prepared statement's rows, with the types that the server reported."""
    attributes: Sequence[Attribute] = prepared._statement._get_attributes()
    return attributes


def expire_schema(dialect: Any) -> None:
    """Let each asyncpg connection of the engine forget its prepared statements before its next statement."""
    dialect._invalidate_schema_cache()


def accept_schema(dialect: Any, holder: Any) -> None:
    """Mark an adapter's connection or cursor as up to date with the last `expire_schema`, so that it ignores that."""
    holder._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof


def transport_of(driver: object) -> Any:
    """The transport of asyncpg's connection; None if it has none, or belongs to another driver."""
    return getattr(driver, "_transport", None)


# psycopg.


def forget_prepared(driver: Any) -> None:
    """Let psycopg forget which statements the server has prepared, without deallocating them on the server."""
    driver._prepared.clear()


# Both.


def is_executing(pooled: ManagesConnection) -> bool:
    """Whether a statement of another task or thread is running on the connection."""
    lock = getattr(pooled.driver_connection, "lock", None)
    mutex = getattr(pooled.dbapi_connection, "_execute_mutex", None)
    return bool((lock is not None and lock.locked()) or (mutex is not None and mutex.locked()))


def _of_asyncpg(path: str) -> object:
    module, _, name = f"asyncpg.{path}".rpartition(".")
    return getattr(import_module(module), name)


_CONNECTION = "connection.Connection"
_ADAPTER = adapters.AsyncAdapt_asyncpg_connection

ASYNCPG: tuple[Internal, ...] = (
    Internal("_config", lambda: _of_asyncpg(_CONNECTION), "shows whether statements are cached", "0.30"),
    Internal("_stmt_cache", lambda: _of_asyncpg(_CONNECTION), "holds the prepared statements", "0.30"),
    Internal("_entries", lambda: _of_asyncpg("connection._StatementCache"), "holds the entries of _stmt_cache", "0.30"),
    Internal("_protocol", lambda: _of_asyncpg(_CONNECTION), "gives a part of the keys of _stmt_cache", "0.30"),
    Internal("_statement", lambda: _of_asyncpg("connection._StatementCacheEntry"), "is a part of _stmt_cache", "0.30"),
    Internal("_transaction", lambda: _ADAPTER, "shows whether a transaction has begun", "SQLAlchemy 1.4"),
    Internal("_start_transaction", lambda: _ADAPTER, "begins a transaction", "SQLAlchemy 1.4"),
    Internal("_connection", lambda: _of_asyncpg("transaction.Transaction"), "sends BEGIN", "0.30"),
)
"""The names that are needed to send statements by asyncpg without SQLAlchemy.

``seen`` is a version of asyncpg, unless it names SQLAlchemy.
"""


@cache
def absent_of_asyncpg() -> str | None:
    """The first of the `ASYNCPG` names that is missing, or None. Call it only if asyncpg is installed."""
    return absent(ASYNCPG)
