"""The results of ``explain``: a plan, and advice on missing indexes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Index


@dataclass(frozen=True, slots=True)
class IndexAdvice:
    """An index that a read would use, and that does not exist.

    ``columns`` are its keys in their order: names of columns, or expressions. ``reason`` says which part of the read
    each key serves. ``ddl`` is a plain CREATE INDEX, which blocks writers of the table until it is finished.
    ``concurrently_ddl`` does not block them, and must be run outside of a transaction; it is None on SQLite. ``index``
    is the same index as an SQLAlchemy `Index` on a copy of the table, for ``index.create(connection)`` or a migration;
    the mapped table does not get it. ``extension`` is the name of the PostgreSQL extension that must be installed first
    (``CREATE EXTENSION pg_trgm``), if one is needed.
    """

    table: str
    columns: tuple[str, ...]
    reason: str
    ddl: str
    concurrently_ddl: str | None
    extension: str | None
    index: Index = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """The plan of a read, and the indexes that are missing for it.

    ``plan`` is the data that the database returned: PostgreSQL's tree of ``FORMAT JSON``, or the rows of SQLite's
    ``EXPLAIN QUERY PLAN`` as dicts. ``text`` is the same for people. Both contain the values of the filters, so keep
    them out of responses and logs, as you would keep the rows. ``statement`` is the SQL, with placeholders for the
    values.

    ``scans`` are the tables that are read completely, ``indexes`` the indexes that are used, and ``sorts`` says whether
    rows are sorted after they are read. All three are the planner's choice for the current rows: it reads a table of a
    few pages completely even if there is an index. ``advice`` depends only on the shape of the read, so it is the same
    for an empty table and a full one.
    """

    statement: str
    plan: Any
    text: str
    scans: tuple[str, ...]
    indexes: tuple[str, ...]
    sorts: bool
    advice: tuple[IndexAdvice, ...]
