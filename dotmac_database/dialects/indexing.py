"""What an index of each database can find, and how it is made."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, NamedTuple

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql import ColumnElement


class Need(Enum):
    """What is asked of an index besides equality and order."""

    PREFIX = auto()
    SUBSTRING = auto()
    WORDS = auto()
    ARRAY = auto()
    DOCUMENT = auto()


class Access(NamedTuple):
    """A kind of index: its method, the operator class of its key, and the extension that has it, if any has.

    ``accepted`` are the methods and classes that serve as well, this one among them.
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
"""For DDL that is shown rather than sent: a driver's own would double its per cent signs."""


def access(dialect: str, need: Need) -> Access | None:
    """The kind of index that serves the need; None: the database has none."""
    return (_SQLITE if dialect == "sqlite" else _POSTGRESQL).get(need)


def wildcards(dialect: str) -> str:
    """What a pattern that minds case, LIKE's or GLOB's, must not begin with to be looked up by its beginning."""
    return "*?[" if dialect == "sqlite" else "%_"


def indexes_expressions(dialect: str) -> bool:
    """Whether an index on an expression is used by a statement in which the expression has parameters.

    SQLite compares them as they are written, and never sees a value: https://www.sqlite.org/expridx.html
    """
    return dialect == "postgresql"


def nulls_come_first(dialect: str, *, descending: bool) -> bool:
    """Where an index has its NULLs by default."""
    return descending if dialect == "postgresql" else not descending


def places_nulls(dialect: str) -> bool:
    """Whether an index can declare where its NULLs come. SQLite's can't; it reads such a key in two parts."""
    return dialect == "postgresql"


def orders_by_null(dialect: str) -> bool:
    """Whether the planner knows that rows whose key IS NULL are in the order of the next key."""
    return dialect == "sqlite"


def sql_of(dialect: str, expression: ColumnElement[Any]) -> str:
    """An expression as an index of the database has it: without its table, its values written out."""
    return str(
        expression.compile(dialect=_COMPILERS[dialect], compile_kwargs={"literal_binds": True, "include_table": False})
    )


def ddl_of(dialect: str, index: Index) -> str:
    """The CREATE INDEX."""
    return str(CreateIndex(index).compile(dialect=_COMPILERS[dialect])).strip()


def concurrently(dialect: str, ddl: str) -> str | None:
    """The CREATE INDEX that lets others write meanwhile; None: the database has no such thing."""
    if dialect != "postgresql":
        return None
    return ddl.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1)


def index_options(method: str, where: ColumnElement[bool] | None, opclasses: dict[str, str]) -> dict[str, Any]:
    """The options of an `Index`, for whichever database it is made on."""
    options: dict[str, Any] = {}
    if where is not None:
        options |= {"postgresql_where": where, "sqlite_where": where}
    if method != BTREE:
        options["postgresql_using"] = method
    if opclasses:
        options["postgresql_ops"] = opclasses
    return options
