"""The kinds of indexes that each database has, the conditions they serve, and their DDL."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, NamedTuple

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql import ColumnElement


class Need(Enum):
    """A kind of search that an index can serve, other than by equality, range or order."""

    PREFIX = auto()
    SUBSTRING = auto()
    WORDS = auto()
    ARRAY = auto()
    DOCUMENT = auto()


class Access(NamedTuple):
    """A kind of index: its method and the operator class of its key.

    ``extension`` is the PostgreSQL extension that provides the operator class, if any. ``default``: the operator class
    is the method's default for the type, so that the DDL need not name it. ``accepted`` are the pairs of method and
    operator class with which an existing index serves as well, including this one; it is empty for B-tree indexes.
    """

    method: str
    opclass: str
    accepted: frozenset[tuple[str, str]]
    default: bool = False
    extension: str | None = None


BTREE = "btree"

_POSTGRESQL = {
    Need.PREFIX: Access(BTREE, "text_pattern_ops", frozenset()),
    Need.SUBSTRING: Access(
        "gin",
        "gin_trgm_ops",
        frozenset((("gin", "gin_trgm_ops"), ("gist", "gist_trgm_ops"))),
        extension="pg_trgm",
    ),
    Need.WORDS: Access(
        "gin", "tsvector_ops", frozenset((("gin", "tsvector_ops"), ("gist", "tsvector_ops"))), default=True
    ),
    Need.ARRAY: Access("gin", "array_ops", frozenset((("gin", "array_ops"),)), default=True),
    Need.DOCUMENT: Access("gin", "jsonb_path_ops", frozenset((("gin", "jsonb_path_ops"), ("gin", "jsonb_ops")))),
}
_SQLITE = {Need.PREFIX: Access(BTREE, "", frozenset(), default=True)}

_COMPILERS: dict[str, Any] = {
    "postgresql": PGDialect(paramstyle="named"),  # type: ignore[no-untyped-call]  # as SQLAlchemy has it
    "sqlite": SQLiteDialect(),
}
"""The dialects that compile DDL for display. The dialects that belong to the drivers would double its percent signs."""


def access(dialect: str, need: Need) -> Access | None:
    """The kind of index that serves the need; None: the database has no such index."""
    return (_SQLITE if dialect == "sqlite" else _POSTGRESQL).get(need)


def wildcards(dialect: str) -> str:
    """The wildcard characters of case-sensitive patterns: LIKE on PostgreSQL, GLOB on SQLite.

    If a pattern begins with one of these characters, an index can't look up the beginning of the pattern.
    """
    return "*?[" if dialect == "sqlite" else "%_"


def indexes_expressions(dialect: str) -> bool:
    """Whether an index on an expression serves a statement that has parameters inside the expression.

    SQLite compares the texts of the two expressions, and a parameter differs from a literal value:
    https://www.sqlite.org/expridx.html
    """
    return dialect == "postgresql"


def nulls_come_first(dialect: str, *, descending: bool) -> bool:
    """Whether NULLs come first in an index by default."""
    return descending if dialect == "postgresql" else not descending


def places_nulls(dialect: str) -> bool:
    """Whether an index can declare NULLS FIRST or NULLS LAST.

    An index of SQLite can't. If a query needs the NULLs of the first key at the other end, SQLite still uses the index,
    and reads the NULLs separately from the other entries.
    """
    return dialect == "postgresql"


def orders_prefixes(dialect: str) -> bool:
    """Whether an index for prefixes also serves the column's order. PostgreSQL's is sorted by bytes."""
    return dialect == "sqlite"


def orders_by_null(dialect: str) -> bool:
    """Whether the planner knows that the index entries with a NULL key are sorted by the next key."""
    return dialect == "sqlite"


def ddl_dialect(dialect: str) -> Dialect:
    """The dialect that compiles DDL for display, without doubled percent signs."""
    compiler: Dialect = _COMPILERS[dialect]
    return compiler


def sql_of(dialect: str, expression: ColumnElement[Any]) -> str:
    """The SQL of an expression in an index: without the table's name, and with literal values."""
    return str(
        expression.compile(dialect=_COMPILERS[dialect], compile_kwargs={"literal_binds": True, "include_table": False})
    )


def ddl_of(dialect: str, index: Index) -> str:
    """The CREATE INDEX statement."""
    return str(CreateIndex(index).compile(dialect=_COMPILERS[dialect])).strip()


def concurrently(dialect: str, ddl: str) -> str | None:
    """The statement ``ddl``, changed so that it does not block writers; None: the database does not support that."""
    if dialect != "postgresql":
        return None
    return ddl.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1)


def index_options(method: str, where: ColumnElement[bool] | None, opclasses: dict[str, str]) -> dict[str, Any]:
    """The keyword arguments of an `Index`, for both databases."""
    options: dict[str, Any] = {}
    if where is not None:
        options |= {"postgresql_where": where, "sqlite_where": where}
    if method != BTREE:
        options["postgresql_using"] = method
    if opclasses:
        options["postgresql_ops"] = opclasses
    return options
