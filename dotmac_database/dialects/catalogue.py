"""Reads from the database's catalogue which indexes a table has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Column, Table, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, Executable

from .rowid import rowid_alias

_PATTERN_CLASSES = frozenset(("text_pattern_ops", "varchar_pattern_ops", "bpchar_pattern_ops"))
_CAST = re.compile(r"::[a-z]+(?: varying)?(?:\(\d+\))?(?:\[\])?", re.IGNORECASE)
_SPELLED_CAST = re.compile(r"\bcast\b|\bas [a-z]+(?:\(\d+\))?(?:\[\])?|\belse null\b", re.IGNORECASE)
_ARRAY = re.compile(r"\bARRAY\[(?P<members>[^\]]*)\]")
_NOISE = re.compile(r'[\s()"]')
_NEGATED = re.compile(r'\Anot\s+"?(?P<column>\w+)"?\Z', re.IGNORECASE)
_CONDITION = re.compile(r"\)\s*where\b(?P<condition>.*)\Z", re.IGNORECASE | re.DOTALL)


class IndexesOf(Executable, ClauseElement):
    """A query of the catalogue with one row for each key of each index of ``table``. It reads no rows of the table."""

    inherit_cache = False

    def __init__(self, table: Table) -> None:
        self.table = table


class IndexesOfAll(Executable, ClauseElement):
    """The rows of `IndexesOf` of several tables, in one query. ``table_number`` counts the tables from 0."""

    inherit_cache = False

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables


@compiles(IndexesOfAll)
def _from_all(element: IndexesOfAll, compiler: Any, **kw: Any) -> str:
    parts = (
        f"SELECT {number} AS table_number, i{number}.* FROM ({compiler.process(IndexesOf(table), **kw)}) AS i{number}"  # noqa: S608
        for number, table in enumerate(element.tables)
    )
    return f"{' UNION ALL '.join(parts)} ORDER BY table_number, name, key_number"


@compiles(IndexesOf, "postgresql")
def _from_pg_index(element: IndexesOf, compiler: Any, **kw: Any) -> str:
    name = compiler.preparer.format_table(element.table)
    table = compiler.process(bindparam("dotmac_table", name, type_=Text(), unique=True), **kw)
    return f"""SELECT CAST(c.relname AS text) AS name, CAST(m.amname AS text) AS method, x.indisunique AS is_unique,
  pg_get_expr(x.indpred, x.indrelid, true) AS condition,
  CASE WHEN a.attnum IS NULL THEN pg_get_indexdef(x.indexrelid, k, true) END AS expression,
  CAST(a.attname AS text) AS column_name, CAST(o.opcname AS text) AS opclass,
  (x.indoption[k - 1] & 1) = 1 AS descending, (x.indoption[k - 1] & 2) = 2 AS nulls_first,
  a.attnum IS NULL OR a.attcollation = x.indcollation[k - 1] AS is_collated,
  CASE WHEN x.indcollation[k - 1] = 100
    THEN (SELECT d.datlocprovider = 'c' AND d.datcollate IN ('C', 'POSIX') FROM pg_catalog.pg_database d
      WHERE d.datname = current_database())
    ELSE COALESCE((SELECT l.collcollate IN ('C', 'POSIX') FROM pg_catalog.pg_collation l
      WHERE l.oid = x.indcollation[k - 1]), false) END AS is_bytewise, CAST(k AS int) AS key_number
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam
CROSS JOIN LATERAL generate_series(1, CAST(x.indnkeyatts AS int)) AS k
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = NULLIF(x.indkey[k - 1], 0)
JOIN pg_catalog.pg_opclass o ON o.oid = x.indclass[k - 1]
WHERE x.indrelid = to_regclass({table}) AND x.indisvalid
ORDER BY c.relname, k"""  # noqa: S608 - the table is a parameter


@compiles(IndexesOf, "sqlite")
def _from_pragmas(element: IndexesOf, compiler: Any, **kw: object) -> str:
    def parameter(value: str) -> Any:
        return compiler.process(bindparam("dotmac_table", value, type_=Text(), unique=True), **kw)

    schema = element.table.schema or "main"
    master = f"{compiler.preparer.quote(schema)}.sqlite_master"
    return f"""SELECT l.name AS name, 'btree' AS method, l."unique" AS is_unique, m.sql AS condition,
  NULL AS expression, k.name AS column_name, NULL AS opclass, k."desc" AS descending, 1 - k."desc" AS nulls_first,
  k.coll AS collation, k.cid AS place, l.partial AS is_partial, 0 AS is_bytewise,
  k.seqno AS key_number
FROM pragma_index_list({parameter(element.table.name)}, {parameter(schema)}) AS l
JOIN pragma_index_xinfo(l.name, {parameter(schema)}) AS k
LEFT JOIN {master} AS m ON m.type = 'index' AND m.name = l.name
WHERE k.key = 1 OR k.cid = -1
ORDER BY l.name, k.seqno"""  # noqa: S608 - parameters and a quoted name


Row = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class ExistingKey:
    """One key of an index: the name of a column, or an expression in its `plain` form."""

    column: str | None
    expression: str
    opclass: str | None
    descending: bool
    nulls_first: bool
    ordered: bool
    """Whether the key has the order of the column: the same collation, and not an operator class for patterns."""
    prefixes: bool
    """Whether the key serves a search for texts with a given beginning, such as LIKE 'abc%'."""


@dataclass(frozen=True, slots=True)
class ExistingIndex:
    """An index that the table has. ``conditions`` are the parts of a partial index's WHERE, in their `plain` form."""

    name: str
    method: str
    unique: bool
    conditions: frozenset[str]
    keys: tuple[ExistingKey, ...]


def existing(dialect: str, table: Table, rows: Iterable[Row]) -> list[ExistingIndex]:
    """The indexes that the rows of `IndexesOf` describe.

    If the primary key of an SQLite table is the rowid, the table itself counts as an index on the primary key, since
    its rows are stored in the order of the rowid. Each index that is not unique then also ends with the rowid as a key.
    """
    indexes = []
    rowid = rowid_alias(table) if dialect == "sqlite" else None
    for name, group in groupby(rows, key=lambda row: row["name"]):
        keys = list(group)
        first = keys[0]
        if dialect == "sqlite" and (rowid is None or first["is_unique"]):
            keys = [row for row in keys if row["place"] != -1]
        indexes.append(
            ExistingIndex(
                name,
                first["method"],
                bool(first["is_unique"]),
                _conditions(dialect, first),
                tuple(_sqlite_key(row, table, rowid) if dialect == "sqlite" else _postgresql_key(row) for row in keys),
            )
        )
    if rowid is not None:
        number = ExistingKey(rowid.name, "", None, descending=False, nulls_first=True, ordered=True, prefixes=False)
        indexes.append(ExistingIndex(table.name, "btree", unique=True, conditions=frozenset(), keys=(number,)))
    return indexes


def plain(sql: str) -> str:
    """A condition or expression in a form in which two of them can be compared.

    It is in lower case, and without the casts, ELSE NULL, parentheses, double quotes and blanks that a database adds
    when it shows the SQL of an index. NOT x is written as x=false, and ARRAY['a'] as '{a}'.
    """
    negated = _NEGATED.match(sql.strip().strip("()"))
    if negated:
        return f"{negated['column'].lower()}=false"
    sql = _SPELLED_CAST.sub("", _CAST.sub("", sql))
    return _NOISE.sub("", _ARRAY.sub(lambda match: "'{" + match["members"].replace("'", "") + "}'", sql)).lower()


def _conditions(dialect: str, row: Row) -> frozenset[str]:
    """The parts of a partial index's WHERE that AND connects.

    If the SQL of SQLite can't be read, the only part is ``unknown``, which no read meets, so the index serves none.
    """
    condition = row["condition"]
    if dialect == "sqlite":
        match = _CONDITION.search(condition or "") if row["is_partial"] else None
        condition = match["condition"] if match else "unknown" if row["is_partial"] else None
    if not condition:
        return frozenset()
    return frozenset(plain(part) for part in re.split(r"\bAND\b", condition, flags=re.IGNORECASE))


def _postgresql_key(row: Row) -> ExistingKey:
    by_bytes = row["opclass"] in _PATTERN_CLASSES
    return ExistingKey(
        column=row["column_name"],
        expression=plain(row["expression"] or ""),
        opclass=row["opclass"],
        descending=row["descending"],
        nulls_first=row["nulls_first"],
        ordered=row["is_collated"] and not by_bytes,
        prefixes=by_bytes or bool(row["is_bytewise"]),
    )


def _sqlite_key(row: Row, table: Table, rowid: Column[Any] | None) -> ExistingKey:
    # The last key of each index is the rowid (place -1). If a key is an expression (place -2), the PRAGMA does not show
    # it, so the key serves no read.
    column = None
    if row["place"] >= 0:
        column = row["column_name"]
    elif row["place"] == -1 and rowid is not None:
        column = rowid.name
    declared = next((each for each in table.columns if each.name == column), None)
    collation = str(getattr(getattr(declared, "type", None), "collation", None) or "BINARY").upper()
    same = str(row["collation"]).upper() == collation
    return ExistingKey(
        column=column,
        expression="",
        opclass=None,
        descending=bool(row["descending"]),
        nulls_first=bool(row["nulls_first"]),
        ordered=same,
        prefixes=same and collation == "BINARY",
    )
