"""Reads the facts of SQLite's catalogue by its PRAGMA functions: four statements, and one for each 400 tables."""

# ruff: noqa: S608 - constants

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from .facts import ColumnFacts, ConstraintFacts, Facts, ForeignKeyFacts, IndexFacts, TableFacts


def sqlite_facts(connection: Connection, _schemas: Sequence[str], most_rows: int) -> Facts:
    """The tables of the main database, whose rows are counted up to ``most_rows``. Their sizes are not known."""
    quote = connection.dialect.identifier_preparer.quote
    facts: Facts = {}
    for row in connection.execute(text(_TABLES)):
        table = TableFacts("main", row.name, quote(row.name))
        table.constraints.append(ConstraintFacts(quote(row.name), "c", row.definition or "", valid=True))
        facts["main", row.name] = table
    keys: dict[str, list[tuple[int, str]]] = {}
    for row in connection.execute(text(_COLUMNS)):
        table = facts["main", row.table_name]
        table.columns[row.name] = ColumnFacts(row.name, quote(row.name), row.type, not row.is_required)
        if row.key_number:
            keys.setdefault(row.table_name, []).append((row.key_number, row.name))
    rows = connection.execute(text(_INDEXES)).all()
    for (table_name, _), group in groupby(rows, key=lambda row: (row.table_name, row.name)):
        first, *rest = group
        columns = tuple(None if row.place < 0 else row.column_name for row in (first, *rest))
        form = tuple((row.place, row.column_name, row.is_descending, row.collation) for row in (first, *rest))
        condition = (first.definition or "unknown").partition(" WHERE ")[2] if first.is_partial else None
        # Two indexes on expressions can't be compared by the PRAGMA, so the SQL is a part of their definition.
        sql = first.definition.partition("(")[2] if None in columns and first.definition else None
        facts["main", table_name].indexes.append(
            IndexFacts(
                first.name,
                quote(first.name),
                columns,
                (form, condition, sql),
                bool(first.is_unique),
                first.origin == "pk",
                condition=condition,
                constraint=None if first.origin == "c" else quote(first.name),
            )
        )
    for name, numbered in keys.items():
        table = facts["main", name]
        if table.primary_key is None:  # an INTEGER PRIMARY KEY is the rowid, and WITHOUT ROWID is the index itself
            columns = tuple(column for _, column in sorted(numbered))
            table.indexes.append(IndexFacts(name, table.sql, columns, ("rowid",), unique=True, primary=True))
    rows = connection.execute(text(_FOREIGN_KEYS)).all()
    for (table_name, _), group in groupby(rows, key=lambda row: (row.table_name, row.id)):
        parts = list(group)
        key = ForeignKeyFacts(None, tuple(row.column_name for row in parts), parts[0].parent)
        facts["main", table_name].foreign_keys.append(key)
    tables = list(facts.values())
    for start in range(0, len(tables), _COUNTED_TOGETHER):
        _count(connection, tables[start : start + _COUNTED_TOGETHER], most_rows)
    return facts


def _count(connection: Connection, tables: Sequence[TableFacts], most_rows: int) -> None:
    """Count the rows of the tables. They stay unknown if a table is damaged, which another check reports."""
    counts = ", ".join(f"(SELECT count(*) FROM (SELECT 1 FROM {each.sql} LIMIT {most_rows:d}))" for each in tables)
    try:
        numbers = connection.exec_driver_sql(f"SELECT {counts}").one()
    except DBAPIError:
        return
    for table, number in zip(tables, numbers, strict=True):
        table.rows, table.is_cut = number, number >= most_rows


_COUNTED_TOGETHER = 400  # a SELECT has at most 2000 columns

_OWN = r"m.type = 'table' AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND m.sql NOT LIKE 'CREATE VIRTUAL%'"

_TABLES = f"SELECT m.name AS name, m.sql AS definition FROM sqlite_master m WHERE {_OWN} ORDER BY 1"

_COLUMNS = f"""
SELECT m.name AS table_name, c.name AS name, c.type AS type, c."notnull" AS is_required, c.pk AS key_number
FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE {_OWN} ORDER BY m.name, c.cid
"""

_INDEXES = f"""
SELECT m.name AS table_name, l.name AS name, l."unique" AS is_unique, l.origin AS origin, l.partial AS is_partial,
  i.sql AS definition, k.name AS column_name, k.cid AS place, k."desc" AS is_descending, k.coll AS collation
FROM sqlite_master m JOIN pragma_index_list(m.name) l JOIN pragma_index_xinfo(l.name) k
LEFT JOIN sqlite_master i ON i.type = 'index' AND i.name = l.name
WHERE {_OWN} AND k.key = 1 ORDER BY m.name, l.name, k.seqno
"""

_FOREIGN_KEYS = f"""
SELECT m.name AS table_name, f.id AS id, f."table" AS parent, f."from" AS column_name
FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE {_OWN} ORDER BY m.name, f.id, f.seq
"""
