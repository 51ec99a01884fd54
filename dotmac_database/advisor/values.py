"""A plan and the advice that goes with it, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Index


@dataclass(frozen=True, slots=True)
class IndexAdvice:
    """An index that a read would use, and that does not exist.

    ``columns`` are its keys in their order: names of columns, or expressions. ``reason`` says which part of the read
    each serves. ``ddl`` is a plain CREATE INDEX, which locks out writers of the table until it is done;
    ``concurrently_ddl`` lets them write, must be run outside of any transaction, and is None on SQLite. ``index`` is
    the same as an SQLAlchemy `Index` on a copy of the table, for ``index.create(connection)`` or a migration; the
    mapped table does not get it. ``extension`` names what PostgreSQL must have first (``CREATE EXTENSION pg_trgm``), if
    anything.
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

    ``plan`` is the data that the database gave: PostgreSQL's tree of ``FORMAT JSON``, on SQLite the rows of ``EXPLAIN
    QUERY PLAN`` as dicts. ``text`` is the same for people. Both show the values that the read was asked with: keep them
    out of answers and logs as you would the rows. ``statement`` is the SQL, with placeholders for the values.

    ``scans`` are the tables that are read from end to end, ``indexes`` those that are used, ``sorts`` says whether rows
    are sorted after they were read. All three are the planner's choice for the rows that are there now: of a table of a
    few pages it reads the whole, whatever indexes there are. ``advice`` is by the shape of the read, and the same for
    an empty table as for a full one.
    """

    statement: str
    plan: Any
    text: str
    scans: tuple[str, ...]
    indexes: tuple[str, ...]
    sorts: bool
    advice: tuple[IndexAdvice, ...]
