"""Rows in the form in which the database stores them, as lines of JSON.

A column's Python type can lose something (a float of a NUMERIC, a datetime of SQLite), and a `TypeDecorator` or a
pickle runs code. So no type of SQLAlchemy takes part here: what is read and written again is the same stored value.

On PostgreSQL, a value is what its type's output function writes; integers, booleans and texts are JSON's own. On SQLite
a value is JSON's own, except ``{"blob": "<base64>"}`` and ``{"real": "inf"}``, since JSON has no bytes and no infinity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import Connection, Table, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, ColumnElement, Executable
from sqlalchemy.types import NullType, TypeEngine

from ..sqlalchemy_internals import doubles_percents

Condition: TypeAlias = ColumnElement[bool]
Columns: TypeAlias = Mapping[str, ColumnElement[Any]]
ConditionOf: TypeAlias = Callable[[Columns], Condition]
"""Makes a condition of columns by name. They are those of a table, or of rows that are not in the table yet."""


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column as the database has it.

    ``type`` is the database's name of its type. ``generated``: the database computes the value, so no statement can
    write it. ``spelled`` is the type without its length, for a cast that truncates nothing. ``native``: the value is
    written as JSON's own. ``text_order``: the type is ordered by a collation, or by the order of an enum.
    """

    name: str
    type: str
    generated: bool = False
    spelled: str = ""
    native: bool = True
    text_order: bool = False


def quoted(name: str) -> str:
    """A quoted name, in the form that PostgreSQL and SQLite have in common."""
    return '"' + name.replace('"', '""') + '"'


def table_name(table: Table) -> str:
    """The quoted name of a table, with its schema."""
    return quoted(table.name) if table.schema is None else f"{quoted(table.schema)}.{quoted(table.name)}"


def raw(sql: str, type_: TypeEngine[Any] | None = None) -> ColumnElement[Any]:
    """SQL as an expression, which SQLAlchemy reads without conversion unless ``type_`` is given."""
    return literal_column(sql, NullType() if type_ is None else type_)


class Statement(Executable, ClauseElement):
    """SQL that is made of texts, which are sent unchanged, and of SQLAlchemy's expressions."""

    inherit_cache = False

    def __init__(self, *parts: str | ClauseElement) -> None:
        self.parts = parts


@compiles(Statement)
def _compile_parts(element: Statement, compiler: Any, **kw: Any) -> str:
    doubles = doubles_percents(compiler.preparer)
    texts = []
    for part in element.parts:
        if isinstance(part, str):
            texts.append(part.replace("%", "%%") if doubles else part)
        else:
            texts.append(compiler.process(part, **kw))
    return "".join(texts)


def run(connection: Connection, *parts: str | ClauseElement) -> int:
    """Execute a statement that returns no rows. Returns the number of the rows that it has changed."""
    return connection.execute(Statement(*parts), execution_options={"preserve_rowcount": True}).rowcount


class StoredRows(ABC):
    """Reads and writes lines of JSON. A line is an object with one member for each column, in the order of the columns.

    ``snapshot`` says in words what a transaction of `begin_reading` sees.
    """

    snapshot: ClassVar[str]

    @abstractmethod
    def begin_reading(self, connection: Connection) -> None:
        """Begin a transaction that reads one state of the database until it ends, and writes nothing."""

    @abstractmethod
    def prepare(self, connection: Connection, *, sees_all: bool) -> None:
        """Set what the text of values depends on, until the transaction ends.

        ``sees_all``: a statement fails if row-level security would hide rows from it.
        """

    @abstractmethod
    def columns(self, connection: Connection, table: Table) -> list[StoredColumn]:
        """The columns of the database's table, in their order. A view, and a table that is not there, have none."""

    @abstractmethod
    def server(self, connection: Connection) -> str:
        """The version of the database."""

    @abstractmethod
    def lines(
        self,
        connection: Connection,
        table: Table,
        columns: Sequence[StoredColumn],
        condition: Condition,
        key: Sequence[StoredColumn],
        limit: int | None = None,
    ) -> Iterator[str]:
        """The rows for which ``condition`` is true, in the order of ``key``, read in batches.

        The order does not depend on a collation, so that it is the same on every server.
        """

    def count(self, connection: Connection, table: Table, condition: Condition) -> int:
        """How many rows of the table there are for which the condition is true."""
        query = Statement(f"SELECT count(*) FROM {table_name(table)} WHERE ", condition)
        return int(connection.execute(query).scalar_one())

    def exists(self, connection: Connection, table: Table, condition: Condition) -> bool:
        """Whether the table has a row for which the condition is true. The database stops at the first."""
        query = Statement(f"SELECT EXISTS (SELECT 1 FROM {table_name(table)} WHERE ", condition, ")")
        return bool(connection.execute(query).scalar_one())

    @abstractmethod
    def insert(
        self,
        connection: Connection,
        table: Table,
        columns: Sequence[StoredColumn],
        lines: Sequence[str],
        condition: ConditionOf,
        empty: Collection[str] = (),
    ) -> int:
        """Insert the rows for which the condition is true. Returns their number. ``empty`` columns are set to NULL."""

    @abstractmethod
    def update(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[StoredColumn],
        columns: Sequence[StoredColumn],
        lines: Sequence[str],
    ) -> None:
        """Set ``columns`` of the rows with these keys to what the lines say."""

    @abstractmethod
    def delete(
        self, connection: Connection, table: Table, key: Mapping[str, StoredColumn], lines: Sequence[str]
    ) -> int:
        """Delete the rows whose columns have the values of lines. Returns their number.

        ``key`` are the columns of the lines by the names of the table's columns.
        """

    def delete_where(self, connection: Connection, table: Table, condition: Condition) -> int:
        """Delete all rows for which the condition is true. Returns their number."""
        return run(connection, f"DELETE FROM {table_name(table)} WHERE ", condition)

    @abstractmethod
    def count_existing(
        self, connection: Connection, table: Table, key: Sequence[StoredColumn], lines: Sequence[str]
    ) -> int:
        """How many rows of the table have one of these keys."""

    @abstractmethod
    def matches(
        self, connection: Connection, columns: Sequence[StoredColumn], line: str, condition: ConditionOf
    ) -> bool:
        """Whether the condition is true for the row of a line."""

    @abstractmethod
    def pause_history(self, connection: Connection, source: Table, history: Table) -> Callable[[], None]:
        """Have the triggers of a history record and refuse nothing. Returns the function that has them work again.

        Both belong to the caller's transaction, so that a rollback has them work again too.
        """

    @abstractmethod
    def advance_sequences(self, connection: Connection, table: Table, columns: Collection[str] | None = None) -> None:
        """Set the sequences of a table beyond the greatest value of their columns. ``columns`` None: of all columns."""

    @abstractmethod
    def defer_constraints(self, connection: Connection) -> None:
        """Have the database check foreign keys, as far as it can, at the commit of the transaction."""

    @abstractmethod
    def settle_constraints(self, connection: Connection) -> None:
        """Have the database check now what was deferred, as some DDL requires."""

    @abstractmethod
    def defers(self, deferrable: bool | None) -> bool:
        """Whether the check of a foreign key can be deferred. ``deferrable`` is what the model says."""

    def is_confined(self, connection: Connection, tables: Iterable[Table]) -> bool:  # noqa: ARG002
        """Whether row-level security applies to the connection's role in one of the tables."""
        return False
