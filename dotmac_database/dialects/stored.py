"""Which `StoredRows` a database has."""

from __future__ import annotations

from ..errors import DatabaseError
from .stored_postgresql import PostgresqlRows
from .stored_rows import StoredRows
from .stored_sqlite import SqliteRows

_ROWS: dict[str, StoredRows] = {"postgresql": PostgresqlRows(), "sqlite": SqliteRows()}


def stored_rows_of(dialect: str) -> StoredRows:
    """The rows of the dialect with this name. Raises `DatabaseError` if it is another than PostgreSQL and SQLite."""
    rows = _ROWS.get(dialect)
    if rows is None:
        raise DatabaseError(f"The toolkit exports from PostgreSQL and SQLite, not from {dialect!r}.")
    return rows
