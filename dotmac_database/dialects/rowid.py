"""Which column of an SQLite table is its rowid: https://www.sqlite.org/lang_createtable.html#rowid."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.exc import CompileError

_SQLITE = SQLiteDialect()


def rowid_alias(table: Table) -> Column[Any] | None:
    """The key column that is an alias of the rowid; None if the table has no such column, or no rowid.

    A primary key of one column is an alias if its type in the DDL is exactly INTEGER. A BIGINT key has the same Python
    type, but is not an alias.
    """
    keys = list(table.primary_key.columns)
    if len(keys) != 1 or not table.dialect_options["sqlite"]["with_rowid"]:
        return None
    try:
        return keys[0] if keys[0].type.compile(dialect=_SQLITE) == "INTEGER" else None
    except CompileError:  # SQLite does not have the type
        return None
