"""The interface of the dialects: the SQL and the limits that differ between databases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import (
    ARRAY,
    Connection,
    Enum,
    Float,
    Integer,
    Numeric,
    String,
    bindparam,
    case,
    cast,
    func,
    tuple_,
    type_coerce,
)
from sqlalchemy.engine import Dialect as SqlDialect
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import NullType, TypeEngine, UserDefinedType

from ..types import undecorated
from .spans import AsText, Span, converts, underlying

Column = ColumnElement[Any]
Condition = ColumnElement[bool]


def enum_of(type_: TypeEngine[Any]) -> Enum | None:
    """The `Enum` that this type is or decorates; None if it is another type."""
    plain = undecorated(type_)
    return plain if isinstance(plain, Enum) else None


def operand_type(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of a value that is compared with a column of this type.

    For a NUMERIC it has no precision and scale, since a cast to those of the column would round the value.
    """
    if isinstance(type_, Numeric) and not isinstance(type_, Float) and type_.precision is not None:
        return Numeric(asdecimal=True) if type_.asdecimal else Numeric(asdecimal=False)
    return type_


class Dialect(ABC):
    """The SQL and the limits of one database."""

    name: ClassVar[str]
    max_parameters: ClassVar[int]
    """The maximum number of parameters in one statement."""
    locks_whole: ClassVar[bool] = False
    """Whether the database has no FOR UPDATE. Then a read locks rows by a write, which locks the whole database."""
    inserts_in_order: ClassVar[bool] = False
    """Whether the rows of VALUES are inserted in their order, so that generated keys increase in the same order."""
    has_arrays: ClassVar[bool] = False
    """Whether a parameter can be an array, from which ``unnest`` makes rows."""
    counts_each: ClassVar[bool] = False
    """Whether the drivers repeat a statement for many rows without a round trip for each, and count the rows."""
    types: ClassVar[SqlDialect]
    """SQLAlchemy's dialect. It is used to find the type that this database has for a generic type."""

    def enforces_keys(self, connect: Callable[[], Connection]) -> bool:  # noqa: ARG002 - only SQLite needs it
        """Whether the database enforces foreign keys on the connection that ``connect`` returns.

        Sends one PRAGMA on SQLite, and nothing on other databases.
        """
        return True

    @abstractmethod
    def like(self, column: Column, pattern: Column) -> Condition:
        """A case-sensitive match of a pattern that `sensitive_pattern` has converted."""

    @abstractmethod
    def sensitive_pattern(self, pattern: str) -> str:
        r"""A LIKE pattern (escape ``\``), converted to the pattern that `like` takes."""

    @abstractmethod
    def ilike(self, column: Column, pattern: Column) -> Condition:
        r"""A case-insensitive match of a LIKE pattern (escape ``\``)."""

    def search_text(self, query: str) -> str:
        """The text that a person typed, converted to the query that `search` and `relevance` take."""
        return query

    @abstractmethod
    def search(self, column: Column, query: Column) -> Condition:
        """Full-text search of one column."""

    @abstractmethod
    def relevance(self, column: Column, query: Column) -> Column:
        """How well one column matches the search: a number that is greater for a better match."""

    def takes_many(self, type_: TypeEngine[object]) -> bool:
        """Whether `among` sends a list of values of this type as one parameter, and not as one parameter per value.

        False for types that SQLAlchemy doesn't know: it is unknown how the driver would take a list of their values.
        """
        return not isinstance(self.underlying(type_), (NullType, UserDefinedType))

    def among(self, column: Column, type_: TypeEngine[object], name: str) -> Condition:
        """Whether the column's value is in a list of any length. The list is the value of the parameter ``name``."""
        if not self.takes_many(type_):
            return column.in_(bindparam(name, type_=type_, expanding=True))
        return self._among(column, type_, name)

    @abstractmethod
    def _among(self, column: Column, type_: TypeEngine[object], name: str) -> Condition: ...

    def row_among(self, columns: Sequence[Column], name: str) -> Condition:
        """Whether the columns' values, taken as a tuple, are in a list of tuples of any length.

        `row_parameters` makes the parameters.
        """
        if len(columns) == 1:
            return self.among(columns[0], columns[0].type, name)
        if not all(self.takes_many(each.type) for each in columns):
            return tuple_(*columns).in_(bindparam(name, expanding=True))
        return self._row_among(columns, name)

    @abstractmethod
    def _row_among(self, columns: Sequence[Column], name: str) -> Condition: ...

    def row_parameters(
        self, columns: Sequence[Column], name: str, rows: Collection[tuple[object, ...]]
    ) -> Mapping[str, Sequence[object]]:
        """The parameters of a condition of `row_among`, which was made with the same ``columns`` and ``name``."""
        return {name: [row[0] for row in rows] if len(columns) == 1 else list(rows)}

    @abstractmethod
    def json_value(self, document: Column, path: tuple[str, ...], kind: str) -> Column:
        """The JSON value at ``path`` as an SQL value.

        ``kind`` is ``"text"``, ``"number"`` or ``"boolean"``; if the JSON value is of another kind, the result is NULL.
        With the kind ``"any"``, every value is converted to text.
        """

    @abstractmethod
    def json_contains(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        """Whether the JSON at ``path`` contains ``value``, a JSON text, by the rules of PostgreSQL's ``@>``."""

    @abstractmethod
    def json_contained_by(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        """Whether ``value``, a JSON text, contains the JSON at ``path``."""

    @abstractmethod
    def json_overlaps(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        """Whether the JSON array at ``path`` and the array in ``value``, a JSON text, have a common element."""

    def typed(self, column: Column, type_: TypeEngine[object]) -> Column:  # noqa: ARG002 - only PostgreSQL needs the type
        """A column of VALUES, cast to this type if the database would infer another type from the values."""
        return column

    def array_of(self, type_: TypeEngine[object]) -> TypeEngine[Sequence[object]]:
        """The type of a parameter that is an array of values of this type. It needs a dialect that `has_arrays`."""
        return ARRAY(type_, dimensions=1)

    @abstractmethod
    def numbers(self, many: Any) -> Any:
        """A FROM element with the column ``number``, which counts from 1 to ``many``."""

    @abstractmethod
    def insert(self, table: Any) -> Any:
        """An INSERT that supports ON CONFLICT."""

    def orders_natively(self, type_: TypeEngine[object]) -> bool:
        """Whether ORDER BY on a column of this type sorts as expected. An enum is expected in its declared order."""
        return enum_of(type_) is None

    def order_key(self, column: Column) -> Column:
        """The expression to order and compare the column by.

        It is the column itself, except for an enum that the database does not order by its declaration. For such an
        enum it is the position of the value in the declaration, counted from 0.
        """
        enum = enum_of(column.type)
        if enum is None or self.orders_natively(column.type):
            return column
        ranks = {stored: rank for rank, stored in enumerate(enum.enums)}
        return case(ranks, value=cast(column, String), else_=None)

    def order_value(self, type_: TypeEngine[object], value: Any) -> Any:
        """A value of the column's Python type, converted so that it can be compared with `order_key`."""
        enum = enum_of(type_)
        if enum is None or value is None or self.orders_natively(type_):
            return value
        if enum.enum_class is None:
            return enum.enums.index(value)
        return list(enum.enum_class).index(value)

    def order_type(self, type_: TypeEngine[Any]) -> TypeEngine[Any]:
        """The type of `order_value`."""
        return operand_type(type_) if self.orders_natively(type_) else Integer()

    @abstractmethod
    def span(self, type_: TypeEngine[object]) -> Span | None:
        """The span by which a column of this type is compared with a value that was read from it.

        None if the database stores exactly the bound value, so that an ordinary comparison finds the row.
        """

    @abstractmethod
    def key_type(self, type_: TypeEngine[object]) -> TypeEngine[object] | None:
        """The type by which a cursor reads a column of this type, and later binds the value. None: the type itself.

        This value is called the key. It is exactly the stored value, so that a comparison finds the row again.
        """

    def is_raw(self, type_: TypeEngine[object]) -> bool:
        """Whether a cursor's key must be selected separately, because it differs from the attribute's value."""
        return self.key_type(type_) is not None if self.orders_natively(type_) else converts(type_)

    def key(self, column: Column, type_: TypeEngine[Any]) -> Column:
        """A column as a SELECT returns it for a cursor, where ``type_`` is the `key_type`."""
        key = cast(column, type_) if isinstance(type_, AsText) else type_coerce(column, type_)
        return key.label(None)  # without a label, the ORM would take it for the column, which is selected too

    def key_parameter(self, name: str, type_: TypeEngine[object], column: TypeEngine[object]) -> Column:
        """The parameter for a cursor's key. ``type_`` is the `key_type`, and ``column`` the type of the column."""
        if isinstance(type_, AsText):
            return cast(bindparam(name, type_=type_), column)
        return bindparam(name, type_=self.order_type(type_))

    def underlying(self, type_: TypeEngine[object]) -> TypeEngine[object]:
        """The type that this database uses for ``type_``, without decorators."""
        return underlying(type_, self.types)

    @abstractmethod
    def among_spans(self, column: Column, span: Span, low: str, high: str) -> Condition:
        """Whether the column's value is in one of the spans of a list of values of any length.

        ``low`` and ``high`` name two parameters. Both get the same list; their types convert the values to the lower
        and the upper ends of their spans.
        """


def escaped(text: str) -> str:
    r"""A LIKE pattern (escape ``\``) that matches only ``text`` itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def ends_in_escape(pattern: str) -> bool:
    """Whether the pattern ends in an escape character with nothing after it, which PostgreSQL refuses."""
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def lowered(column: Column) -> Column:
    """``lower(column)``."""
    return func.lower(column)
