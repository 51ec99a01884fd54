"""The tables of a metadata in the order of their foreign keys, also if these form a cycle."""

from __future__ import annotations

from sqlalchemy import MetaData, Table
from sqlalchemy.schema import sort_tables_and_constraints


def sorted_tables(metadata: MetaData) -> list[Table]:
    """The tables, each after those that it refers to, as ``metadata.sorted_tables`` has them.

    If foreign keys form a cycle, ``metadata.sorted_tables`` warns, and gives up the order of all tables in it. Here the
    keys that form the cycle do not count, and nothing is warned of, since no caller depends on their order.
    """
    by_name = [table for _, table in sorted(metadata.tables.items())]
    pairs = sort_tables_and_constraints(by_name)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    return [table for table, _ in pairs if table is not None]
