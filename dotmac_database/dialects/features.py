"""Differences between databases that other packages ask for, by the name of SQLAlchemy's dialect.

The abilities that the statements of repositories need are members of `Dialect`, which exists for PostgreSQL and SQLite.
These functions also answer for other databases, which health checks and paginators accept: they return False, and
`ping` is SELECT 1.
"""

from __future__ import annotations

_POSTGRESQL = "postgresql"
_SQLITE = "sqlite"


def has_policies(dialect: str) -> bool:
    """Whether the database has row-level security: https://www.postgresql.org/docs/current/ddl-rowsecurity.html."""
    return dialect == _POSTGRESQL


def has_advisory_locks(dialect: str) -> bool:
    """Whether a transaction can lock a name that belongs to no row."""
    return dialect == _POSTGRESQL


def has_transaction_settings(dialect: str) -> bool:
    """Whether the isolation level, READ ONLY and timeouts can be set for one transaction."""
    return dialect == _POSTGRESQL


def is_always_serializable(dialect: str) -> bool:
    """Whether every transaction is SERIALIZABLE: https://www.sqlite.org/isolation.html."""
    return dialect == _SQLITE


def estimates_rows(dialect: str) -> bool:
    """Whether EXPLAIN gives the number of rows that the planner expects."""
    return dialect == _POSTGRESQL


def has_server_statistics(dialect: str) -> bool:
    """Whether the database has a server, with views that show its connections, locks and statements."""
    return dialect == _POSTGRESQL


def needs_event_loop(dialect: str) -> bool:
    """Whether an async connection is unusable in other event loops than its own.

    Those of SQLite have a thread of their own, and work in every event loop.
    """
    return dialect == _POSTGRESQL


def has_thread(dialect: str) -> bool:
    """Whether an async connection has a thread of its own, which ends when the connection is closed."""
    return dialect == _SQLITE


def refuses_some_tables(dialect: str) -> bool:
    """Whether the database can't have some tables of PostgreSQL, since it has no such types or functions."""
    return dialect == _SQLITE


def ping(dialect: str) -> str:
    """The cheapest statement that shows that the database can be read."""
    # SQLite would answer SELECT 1 without reading its file.
    return "PRAGMA schema_version" if dialect == _SQLITE else "SELECT 1"
