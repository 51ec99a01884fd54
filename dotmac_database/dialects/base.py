"""The interface to the differences between databases. Each dialect implements its methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import (
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
from sqlalchemy.engine import Dialect as Engines
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine, UserDefinedType

from .spans import AsText, Span, converts, underlying

Column = ColumnElement[Any]
Condition = ColumnElement[bool]


def enum_of(type_: TypeEngine[Any]) -> Enum | None:
    """The `Enum` that columns of this type are, if they are."""
    plain = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    return plain if isinstance(plain, Enum) else None


def operand_type(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of a value to compare such a column with: a cast to the column's own NUMERIC would round the value."""
    if isinstance(type_, Numeric) and not isinstance(type_, Float) and type_.precision is not None:
        return Numeric(asdecimal=True) if type_.asdecimal else Numeric(asdecimal=False)
    return type_


class Dialect(ABC):
    """The SQL of one database."""

    name: ClassVar[str]
    max_parameters: ClassVar[int]
    """The most parameters of one statement."""
    locks_whole: ClassVar[bool] = False
    """Whether locks apply to the whole database, and are taken by a write."""
    inserts_in_order: ClassVar[bool] = False
    """Whether the rows of VALUES are inserted in their order, so that serial keys are assigned in it."""
    estimates: ClassVar[bool] = False
    """Whether the planner estimates numbers of rows."""
    types: ClassVar[Engines]
    """SQLAlchemy's dialect, which knows what types are in this database."""

    def enforces_keys(self, connect: Callable[[], Connection]) -> bool:  # noqa: ARG002 - most databases need not be asked
        """Whether the connection that ``connect`` gives acts by its foreign keys. No statement but SQLite's PRAGMA."""
        return True

    @abstractmethod
    def like(self, column: Column, pattern: Column) -> Condition:
        """A case-sensitive match of a pattern that `sensitive_pattern` made."""

    @abstractmethod
    def sensitive_pattern(self, pattern: str) -> str:
        r"""A LIKE pattern (escape ``\``) as the operand of `like`."""

    @abstractmethod
    def ilike(self, column: Column, pattern: Column) -> Condition:
        r"""A case-insensitive match of a LIKE pattern (escape ``\``)."""

    def search_text(self, query: str) -> str:
        """What a person typed as the operand of `search` and `relevance`."""
        return query

    @abstractmethod
    def search(self, column: Column, query: Column) -> Condition:
        """Full-text search of one column."""

    @abstractmethod
    def relevance(self, column: Column, query: Column) -> Column:
        """How much of one column the search is about: the more the greater."""

    def takes_many(self, type_: TypeEngine[Any]) -> bool:
        """Whether `among` takes any number of values of this type; else each is a parameter of its own.

        Of a type that SQLAlchemy does not know, nobody knows how the driver takes a list of its values.
        """
        return not isinstance(self.underlying(type_), (NullType, UserDefinedType))

    def among(self, column: Column, type_: TypeEngine[Any], name: str) -> Condition:
        """Whether the column has one of the values of a list, which is the parameter ``name`` whatever its length."""
        if not self.takes_many(type_):
            return column.in_(bindparam(name, type_=type_, expanding=True))
        return self._among(column, type_, name)

    @abstractmethod
    def _among(self, column: Column, type_: TypeEngine[Any], name: str) -> Condition: ...

    def row_among(self, columns: Sequence[Column], name: str) -> Condition:
        """Whether the columns have the values of one of any number of rows, which `row_parameters` gives."""
        if len(columns) == 1:
            return self.among(columns[0], columns[0].type, name)
        if not all(self.takes_many(each.type) for each in columns):
            return tuple_(*columns).in_(bindparam(name, expanding=True))
        return self._row_among(columns, name)

    @abstractmethod
    def _row_among(self, columns: Sequence[Column], name: str) -> Condition: ...

    def row_parameters(
        self, columns: Sequence[Column], name: str, rows: Collection[tuple[Any, ...]]
    ) -> Mapping[str, Sequence[Any]]:
        """The parameters of `row_among`."""
        return {name: [row[0] for row in rows] if len(columns) == 1 else list(rows)}

    @abstractmethod
    def json_value(self, document: Column, path: tuple[str, ...], kind: str) -> Column:
        """What is at ``path`` if it is a ``"text"``, ``"number"`` or ``"boolean"``, else NULL; ``"any"``: as text."""

    @abstractmethod
    def json_contains(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        """Whether the JSON at ``path`` contains ``value``, a JSON text, as PostgreSQL's ``@>`` does."""

    @abstractmethod
    def json_contained_by(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        """Whether ``value``, a JSON text, contains the JSON at ``path``."""

    @abstractmethod
    def json_overlaps(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        """Whether the JSON array at ``path`` and the one in ``value`` share an element."""

    def typed(self, column: Column, type_: TypeEngine[Any]) -> Column:  # noqa: ARG002 - one dialect needs the type
        """A column of VALUES as one of this type, for a database that guesses types from the values."""
        return column

    @abstractmethod
    def numbers(self, many: Any) -> Any:
        """A FROM of as many rows as the parameter says."""

    @abstractmethod
    def insert(self, table: Any) -> Any:
        """An INSERT that takes ON CONFLICT."""

    def orders_natively(self, type_: TypeEngine[Any]) -> bool:
        """Whether the database orders values of this type as they are declared."""
        return enum_of(type_) is None

    def order_key(self, column: Column) -> Column:
        """The expression to order and compare by: an enum's declared position, else the column itself."""
        enum = enum_of(column.type)
        if enum is None or self.orders_natively(column.type):
            return column
        ranks = {stored: rank for rank, stored in enumerate(enum.enums)}
        return case(ranks, value=cast(column, String), else_=None)

    def order_value(self, type_: TypeEngine[Any], value: Any) -> Any:
        """A coerced value as the operand to compare with `order_key`."""
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
    def span(self, type_: TypeEngine[Any]) -> Span | None:
        """How a value that was read is compared with such a column; None: what is bound is what is stored."""

    @abstractmethod
    def key_type(self, type_: TypeEngine[Any]) -> TypeEngine[Any] | None:
        """The type by which a cursor reads its key of such a column, and binds it; None: the column's own.

        What is read by it is just what the database stores, and so finds its row again.
        """

    def is_raw(self, type_: TypeEngine[Any]) -> bool:
        """Whether a cursor's key can't be the value that is read of such a column."""
        return self.key_type(type_) is not None if self.orders_natively(type_) else converts(type_)

    def key(self, column: Column, type_: TypeEngine[Any]) -> Column:
        """A column as a cursor's key of a `key_type`."""
        key = cast(column, type_) if isinstance(type_, AsText) else type_coerce(column, type_)
        return key.label(None)  # else the ORM would take it for the column, which it has beside it

    def key_parameter(self, name: str, type_: TypeEngine[Any], column: TypeEngine[Any]) -> Column:
        """The parameter to compare a column of the type ``column`` with, whose value is a key of a `key_type`."""
        if isinstance(type_, AsText):
            return cast(bindparam(name, type_=type_), column)
        return bindparam(name, type_=self.order_type(type_))

    def underlying(self, type_: TypeEngine[Any]) -> TypeEngine[Any]:
        """The database's own type of such columns, without decorators."""
        return underlying(type_, self.types)

    @abstractmethod
    def among_spans(self, column: Column, span: Span, low: str, high: str) -> Condition:
        """Whether the column is in one of any number of spans: a list of values, in both parameters."""


def escaped(text: str) -> str:
    r"""``text`` as a LIKE pattern that matches just it (escape ``\``)."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def ends_in_escape(pattern: str) -> bool:
    """Whether the pattern ends in an escape character that escapes nothing, which PostgreSQL refuses."""
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def lowered(column: Column) -> Column:
    """``lower(column)``."""
    return func.lower(column)
