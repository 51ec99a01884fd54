"""The SQL of PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import (
    Boolean,
    Double,
    Numeric,
    String,
    Text,
    any_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.dialects.postgresql import insert as insert_on_conflict
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.types import (
    CHAR,
    NCHAR,
    REAL,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    NullType,
    Time,
    TypeDecorator,
    TypeEngine,
    Uuid,
)

from .base import Column, Condition, Dialect, enum_of
from .search_text import as_websearch
from .spans import AsText, SinglePrecision, Span, converts, decimal_span, float_span, underlying

_FAITHFUL = (Boolean, Date, DateTime, Enum, Float, Integer, Numeric, String, Time, Uuid)
"""The types with which a value is read exactly as it is stored, so that a comparison with it finds the row again."""

_SINGLE_BITS = 24
_SINGLE = SinglePrecision()

_CONFIG: Column = literal_column("'simple'::regconfig")


class _TextWithoutLength(TypeDecorator[str]):
    """A text type without a length that converts values as a `TypeDecorator` does.

    A cast to a type with a length would truncate values.
    """

    impl = String
    cache_ok = True

    def __init__(self, item: TypeDecorator[object]) -> None:
        super().__init__()
        self.item = item

    def bind_processor(self, dialect: SqlDialect) -> Any:
        """SQLAlchemy's hook: the conversion of the decorator."""
        return self.item.bind_processor(dialect)


def decorated(item: TypeEngine[Any]) -> TypeEngine[Any]:
    """The user's type for the items of an array, which is hidden in one that has no length; else ``item`` itself."""
    return item.item if isinstance(item, _TextWithoutLength) else item


def _item(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of the items of an array. A text type loses its length: a cast to VARCHAR(5)[] would truncate texts."""
    plain = underlying(type_, Postgresql.types)
    sized = isinstance(plain, String) and (plain.length is not None or isinstance(plain, CHAR))
    if not sized or enum_of(type_) is not None:
        return type_
    return _TextWithoutLength(type_) if isinstance(type_, TypeDecorator) else String()


def _words(column: Column) -> Column:
    return column if isinstance(column.type, TSVECTOR) else func.to_tsvector(_CONFIG, column)


class Postgresql(Dialect):
    """PostgreSQL, with asyncpg or psycopg 3."""

    name: ClassVar[str] = "postgresql"
    max_parameters: ClassVar[int] = 32_000  # asyncpg's limit is 32,767
    has_arrays: ClassVar[bool] = True
    types: ClassVar[Any] = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's

    def like(self, column: Column, pattern: Column) -> Condition:
        return column.op("LIKE", is_comparison=True)(pattern)

    def sensitive_pattern(self, pattern: str) -> str:
        return pattern

    def ilike(self, column: Column, pattern: Column) -> Condition:
        return column.op("ILIKE", is_comparison=True)(pattern)

    def search_text(self, query: str) -> str:
        return as_websearch(query)

    def search(self, column: Column, query: Column) -> Condition:
        return _words(column).op("@@", is_comparison=True)(func.websearch_to_tsquery(_CONFIG, query))

    def relevance(self, column: Column, query: Column) -> Column:
        # ts_rank_cd returns a REAL, which would not be equal to the number in a cursor. A double is equal to it.
        return cast(func.ts_rank_cd(_words(column), func.websearch_to_tsquery(_CONFIG, query)), Double())

    def _among(self, column: Column, type_: TypeEngine[object], name: str) -> Condition:
        return column == any_(bindparam(name, type_=self.array_of(type_)))

    def _row_among(self, columns: Sequence[Column], name: str) -> Condition:
        arrays = [bindparam(f"{name}_{place}", type_=self.array_of(each.type)) for place, each in enumerate(columns)]
        names = [f"n{place}" for place in range(len(columns))]
        rows = func.unnest(*arrays).table_valued(*names, name="dotmac_rows").render_derived()
        return tuple_(*columns).in_(select(*(rows.c[each] for each in names)))

    def row_parameters(
        self, columns: Sequence[Column], name: str, rows: Collection[tuple[object, ...]]
    ) -> Mapping[str, Sequence[object]]:
        if len(columns) == 1 or not all(self.takes_many(each.type) for each in columns):
            return super().row_parameters(columns, name, rows)
        return {f"{name}_{place}": [row[place] for row in rows] for place in range(len(columns))}

    def _at(self, document: Column, path: tuple[str, ...]) -> Column:
        jsonb = document if isinstance(document.type, JSONB) else cast(document, JSONB)
        if not path:
            return jsonb
        return jsonb.op("#>", return_type=JSONB())(cast(literal(list(path), ARRAY(Text)), ARRAY(Text)))

    def json_value(self, document: Column, path: tuple[str, ...], kind: str) -> Column:
        item = self._at(document, path)
        text = item.op("#>>", return_type=Text())(literal_column("'{}'::text[]"))
        is_kind = func.jsonb_typeof(item)
        match kind:
            case "number":
                return case((is_kind == "number", cast(text, Numeric())))
            case "boolean":
                return case((is_kind == "boolean", cast(text, Boolean)))
            case "text":
                return case((is_kind == "string", text))
            case _:
                return text

    def json_contains(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        return self._at(document, path).op("@>", is_comparison=True)(cast(value, JSONB))

    def json_contained_by(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        return self._at(document, path).op("<@", is_comparison=True)(cast(value, JSONB))

    def json_overlaps(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        item = self._at(document, path)
        empty: Column = literal_column("'[]'::jsonb")
        array = case((func.jsonb_typeof(item) == "array", item), else_=empty)
        # The two functions become FROM elements of the EXISTS because their columns are in its WHERE.
        member = func.jsonb_array_elements(array).column_valued("member")
        other = func.jsonb_array_elements(cast(value, JSONB)).column_valued("other")
        return exists(select(literal_column("1")).where(member == other))

    def typed(self, column: Column, type_: TypeEngine[object]) -> Column:
        # A column of VALUES has the type text if it has only NULLs, or if psycopg sends enums in it. PostgreSQL assigns
        # a text only to a text column.
        plain = self.underlying(type_)
        if isinstance(plain, String) and not isinstance(plain, Enum):
            return column  # no cast: it would truncate a text that is too long, which PostgreSQL otherwise refuses
        if isinstance(plain, ARRAY) and isinstance(plain.item_type, String) and not isinstance(plain.item_type, Enum):
            return cast(column, ARRAY(Text()))
        enum = enum_of(type_)
        return column if enum is not None and not enum.native_enum else cast(column, type_)

    def array_of(self, type_: TypeEngine[object]) -> TypeEngine[Sequence[object]]:
        # The dimension is given, since a value can itself be a list in Python.
        return ARRAY(_item(type_), dimensions=1)

    def numbers(self, many: object) -> object:
        return func.generate_series(1, many).table_valued("number", name="dotmac_numbers")

    def insert(self, table: Any) -> Any:
        return insert_on_conflict(table)

    def orders_natively(self, type_: TypeEngine[object]) -> bool:
        enum = enum_of(type_)
        return enum is None or enum.native_enum

    def order_type(self, type_: TypeEngine[object]) -> TypeEngine[object]:
        return _SINGLE if _is_single(type_) else super().order_type(type_)

    def span(self, type_: TypeEngine[object]) -> Span | None:
        if converts(type_):
            return None
        stored = self.underlying(type_)
        if isinstance(stored, Float):
            if stored.asdecimal:
                return decimal_span(type_, narrow=_is_single(stored))
            return Span(type_, _SINGLE, _SINGLE) if _is_single(stored) else None
        return float_span(stored) if isinstance(stored, Numeric) and not stored.asdecimal else None

    def key_type(self, type_: TypeEngine[Any]) -> TypeEngine[Any] | None:
        stored = self.underlying(type_)
        if isinstance(stored, Float) and stored.asdecimal:
            return Float(stored.precision) if not isinstance(stored, REAL) else REAL()
        if isinstance(stored, Numeric) and not stored.asdecimal:
            return Numeric()
        if isinstance(stored, NullType):  # nothing is known to which a text could be cast
            return None
        if not isinstance(stored, _FAITHFUL) or (isinstance(stored, (CHAR, NCHAR)) and converts(type_)):
            return AsText()
        return stored if converts(type_) else None

    def among_spans(self, column: Column, span: Span, low: str, high: str) -> Condition:
        lows, highs = bindparam(low, type_=ARRAY(span.low)), bindparam(high, type_=ARRAY(span.high))
        if span.single:
            return column == any_(lows)
        spans = func.unnest(lows, highs).table_valued("low", "high", name="dotmac_spans").render_derived()
        in_span = exists(select(literal_column("1")).where(column.between(spans.c.low, spans.c.high)))
        # EXISTS is false for a NULL. With `column != column` the result is NULL, so that NOT IN excludes the row too.
        return or_(in_span, column != column)


def _is_single(type_: TypeEngine[object]) -> bool:
    """Whether columns of this type are REAL: single precision."""
    return isinstance(type_, REAL) or (
        isinstance(type_, Float) and type_.precision is not None and type_.precision <= _SINGLE_BITS
    )
