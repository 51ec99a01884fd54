"""How much space a table takes, as the database's catalogue knows it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Table, text
from sqlalchemy.exc import OperationalError

_POSTGRESQL = text("""
SELECT
  COALESCE((SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree(c.oid) t), 0)
    + CASE c.relkind WHEN 'p' THEN 0 ELSE pg_total_relation_size(c.oid) END AS bytes,
  COALESCE(
    (SELECT sum(leaf.reltuples) FILTER (WHERE leaf.reltuples >= 0)
      FROM pg_partition_tree(c.oid) t JOIN pg_class leaf ON leaf.oid = t.relid WHERE t.isleaf),
    NULLIF(c.reltuples, -1)) AS rows
FROM pg_class c WHERE c.oid = to_regclass(:table)
""")
_SQLITE = """
SELECT sum(pgsize) FROM dbstat WHERE aggregate = TRUE AND name IN
  (SELECT name FROM sqlite_master WHERE tbl_name = :table AND type IN ('table', 'index'))
"""


class TableSize(NamedTuple):
    """The ``bytes`` of a table with its indexes, and the number of its ``rows`` as the planner estimates it.

    None: the database does not know it.
    """

    bytes: int | None
    rows: int | None


def size_of(connection: Connection, table: Table) -> TableSize:
    """The size of a table. One query of the catalogue; on SQLite it reads the headers of the table's pages.

    The rows are not counted: SQLite has no estimate, and PostgreSQL none before the first ANALYZE or autovacuum.
    """
    name = connection.dialect.identifier_preparer.format_table(table)
    match connection.dialect.name:
        case "postgresql":
            row = connection.execute(_POSTGRESQL, {"table": name}).one_or_none()
            return TableSize(None, None) if row is None else TableSize(_whole(row.bytes), _whole(row.rows))
        case "sqlite" if table.schema is None:
            return TableSize(_sqlite_bytes(connection, table), None)
    return TableSize(None, None)


def _sqlite_bytes(connection: Connection, table: Table) -> int | None:
    """None: this SQLite was compiled without DBSTAT, https://www.sqlite.org/dbstat.html."""
    try:
        return _whole(connection.execute(text(_SQLITE), {"table": table.name}).scalar())
    except OperationalError:
        return None


def _whole(number: object) -> int | None:
    return None if number is None else int(str(number).partition(".")[0])
