"""The SQL of indexes that checks advise, and what the model says of them."""

from __future__ import annotations

from sqlalchemy import Table

from ..examination import Examination
from ..facts import TableFacts
from ..registry import POSTGRESQL

_LONGEST_NAME = 63  # bytes, on PostgreSQL


def missing(examination: Examination, table: TableFacts, columns: tuple[str, ...]) -> tuple[str, str]:
    """The SQL of a missing index, and the remedy, which also says what to write in the model.

    The index has the same name in both, so that no migration takes them for two.
    """
    model = next((each for each in examination.models if examination.of(each) is table), None)
    if model is None:
        sql = create_index(examination, table, table.quoted(columns))
        return sql, sql
    declared = _declared(model, columns)
    if declared is not None:
        sql = create_index(examination, table, table.quoted(columns), declared)
        return sql, f"{sql}\nThe model has this index already."
    name = "_".join(("ix", table.name, *columns))
    while len(name.encode()) > _LONGEST_NAME:
        name = name[:-1]
    if any(each.name == name for each in table.indexes):
        name = f"{name[: _LONGEST_NAME - 2]}_2"
    sql = create_index(examination, table, table.quoted(columns), name)
    arguments = ", ".join(map(repr, (name, *columns)))
    return sql, f"{sql}\nIn the model, in __table_args__: Index({arguments})"


def _declared(model: Table, columns: tuple[str, ...]) -> str | None:
    """The name of the model's own index of these columns; None: it has none."""
    for index in model.indexes:
        if not index.unique and tuple(each.name for each in index.columns) == columns and index.name is not None:
            return str(index.name)
    return None


def create_index(examination: Examination, table: TableFacts, columns: str, name: str | None = None) -> str:
    """CREATE INDEX, so that writers are not blocked where the database has that. ``name`` None: any name."""
    if name is None and examination.dialect not in POSTGRESQL:
        name = "_".join(("ix", table.name, *(part.strip('"` ') for part in columns.split(","))))
    called = "" if name is None else f" {examination.connection.dialect.identifier_preparer.quote(name)}"
    return f"CREATE INDEX{concurrently(examination, table)}{called} ON {table.sql} ({columns})"


def concurrently(examination: Examination, table: TableFacts) -> str:
    """The word for CREATE INDEX and DROP INDEX. PostgreSQL does not have it for partitioned tables."""
    return " CONCURRENTLY" if examination.dialect in POSTGRESQL and not table.partitioned else ""
