"""Which column of an SQLite table is its rowid: https://www.sqlite.org/lang_createtable.html#rowid."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.exc import CompileError

_SQLITE = SQLiteDialect()


def rowid_alias(table: Table) -> Column[Any] | None:
    """The key column that is an alias of the rowid; None if the table has no such column, or no rowid.

    SQLite makes an alias of a key of one column if its type is spelled exactly INTEGER. So it depends on the DDL, and
    not on the Python type, whether the key is an alias: BIGINT is none.
    """
    keys = list(table.primary_key.columns)
    if len(keys) != 1 or not table.dialect_options["sqlite"]["with_rowid"]:
        return None
    try:
        return keys[0] if keys[0].type.compile(dialect=_SQLITE) == "INTEGER" else None
    except CompileError:  # SQLite does not have the type
        return None
