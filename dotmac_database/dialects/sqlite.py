"""The SQL of SQLite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, ClassVar

from sqlalchemy import (
    Boolean,
    Connection,
    Double,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.sqlite import insert as insert_on_conflict
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.types import (
    BINARY,
    VARBINARY,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Time,
    TypeDecorator,
    TypeEngine,
    Uuid,
)

from .base import Column, Condition, Dialect, lowered
from .full_text import indexed_search
from .spans import AsStored, Span, bound_by, converts, decimal_span, digits_read, moment_forms, moment_span, underlying

_FAITHFUL = (Boolean, Date, Enum, Float, Integer, Numeric, String, Uuid)
"""The types with which a value is read exactly as it is stored, except numbers that are read as Decimals."""

_GLOB_SPECIAL = "*?["
_PLACE = re.compile(r"-?[0-9]{1,9}")


class JsonValues(TypeDecorator[Any]):
    """A list of values as JSON, in the form in which SQLite stores them. Bytes are hexadecimal digits."""

    impl = Text
    cache_ok = True

    def __init__(self, item: TypeEngine[object]) -> None:
        super().__init__()
        self.item = item

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """SQLAlchemy's hook: the JSON text."""
        return _json(_stored(value, self.item, dialect))


class JsonRows(TypeDecorator[Any]):
    """A list of rows as JSON, each row as an array of its values.

    If SQLite can store a value of a row in several forms, the list has the row once for each form.
    """

    impl = Text
    cache_ok = True

    # A tuple and not *items, since SQLAlchemy's cache key is made from named parameters.
    def __init__(self, items: tuple[TypeEngine[object], ...]) -> None:
        super().__init__()
        self.items = items

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """SQLAlchemy's hook: the JSON text."""
        if not any(isinstance(underlying(item, dialect), (DateTime, Time)) for item in self.items):
            columns = (_stored(column, item, dialect) for column, item in zip(zip(*value), self.items))  # noqa: B905 - without rows there are no columns
            return _json([*zip(*columns)])  # noqa: B905 - as above
        return _json(
            [
                row
                for members in value
                for row in product(
                    *(_stored([each], item, dialect) for each, item in zip(members, self.items, strict=True))
                )
            ]
        )


def _stored(values: Iterable[Any], item: TypeEngine[Any], dialect: Any) -> list[Any]:
    """The values as SQLite stores them, each in all forms in which SQLite can store it, as values for JSON."""
    stored = list(map(bound_by(item, dialect), values))
    plain = underlying(item, dialect)
    if isinstance(plain, _BYTES):
        return [bytes(each).hex() for each in stored]
    if isinstance(plain, (DateTime, Time)):
        return [form for each in stored for form in moment_forms(each)]
    if isinstance(plain, (Numeric, Float)):
        return [_json_number(float(each)) for each in stored]
    return stored


def _json_number(value: float) -> float | None:
    return None if value != value else value


def _json(stored: list[object]) -> str:
    text = json.dumps(stored)
    if "Infinity" not in text:
        return text
    # JSON has no infinity, but SQLite reads a number that overflows as infinity.
    return _TEXT_OR_INFINITY.sub(lambda match: "9e999" if match[0] == "Infinity" else match[0], text)


_BYTES = (LargeBinary, BINARY, VARBINARY)
_TEXT_OR_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')


class Sqlite(Dialect):
    """SQLite, with sqlite3 or aiosqlite.

    Case-sensitive matches use GLOB, because SQLite's LIKE ignores the case of ASCII letters.
    """

    name: ClassVar[str] = "sqlite"
    max_parameters: ClassVar[int] = 30_000  # SQLITE_MAX_VARIABLE_NUMBER is 32,766
    locks_whole: ClassVar[bool] = True
    counts_each: ClassVar[bool] = True
    types: ClassVar[Any] = SQLiteDialect()
    inserts_in_order: ClassVar[bool] = True  # unless the largest possible key is in use: sqlite.org/autoinc.html

    def enforces_keys(self, connect: Callable[[], Connection]) -> bool:
        """Whether the setting of the connection is on. Asked by a PRAGMA at each call, since it can be changed.

        The driver sends the PRAGMA, so that no event listener is called.
        """
        cursor = connect().connection.cursor()
        try:
            cursor.execute("PRAGMA foreign_keys")
            return cursor.fetchone() == (1,)
        finally:
            cursor.close()

    def like(self, column: Column, pattern: Column) -> Condition:
        return column.op("GLOB", is_comparison=True)(pattern)

    def sensitive_pattern(self, pattern: str) -> str:
        glob: list[str] = []
        characters = iter(pattern)
        for character in characters:
            if character == "%":
                glob.append("*")
            elif character == "_":
                glob.append("?")
            else:
                plain = next(characters, "") if character == "\\" else character
                glob.append(f"[{plain}]" if plain in _GLOB_SPECIAL and plain else plain)
        return "".join(glob)

    def ilike(self, column: Column, pattern: Column) -> Condition:
        return lowered(column).like(lowered(pattern), escape="\\")

    def search(self, column: Column, query: Column) -> Condition:
        matches: Condition = func.dotmac_search(column, query) == 1
        index = indexed_search(column, query)
        return matches if index is None else and_(index, matches)

    def relevance(self, column: Column, query: Column) -> Column:
        return func.dotmac_relevance(column, query, type_=Double())

    def _among(self, column: Column, type_: TypeEngine[object], name: str) -> Condition:
        values = func.json_each(bindparam(name, type_=JsonValues(type_))).table_valued("value", name="dotmac_values")
        return column.in_(select(_from_json(values.c.value, type_)))

    def _row_among(self, columns: Sequence[Column], name: str) -> Condition:
        types = [each.type for each in columns]
        rows = func.json_each(bindparam(name, type_=JsonRows(tuple(types)))).table_valued("value", name="dotmac_rows")
        values = [func.json_extract(rows.c.value, f"$[{place}]") for place in range(len(types))]
        return tuple_(*columns).in_(select(*map(_with_affinity, values, types)))

    def json_value(self, document: Column, path: tuple[str, ...], kind: str) -> Column:
        json_path = _json_path(document, path)
        item = func.json_extract(document, json_path)
        is_kind = func.json_type(document, json_path)
        match kind:
            case "number":
                return type_coerce(case((is_kind.in_(["integer", "real"]), item)), Float())
            case "boolean":
                return type_coerce(case((is_kind.in_(["true", "false"]), item)), Boolean())
            case "text":
                return type_coerce(case((is_kind == "text", item)), Text())
            case _:
                return cast(item, Text)

    def _at(self, document: Column, path: tuple[str, ...]) -> Column:
        # json_quote(json_extract()) converts true and false to numbers, and -> does not: https://www.sqlite.org/json1.html#jptr
        return (
            document.op("->", precedence=20, return_type=Text())(_json_path(document, path))
            if path
            else type_coerce(document, Text())
        )

    def json_contains(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        return func.dotmac_json_contains(self._at(document, path), value) == 1

    def json_contained_by(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        return func.dotmac_json_contains(value, self._at(document, path)) == 1

    def json_overlaps(self, document: Column, path: tuple[str, ...], value: Column) -> Condition:
        return func.dotmac_json_overlaps(self._at(document, path), value) == 1

    def numbers(self, many: Any) -> Any:
        first = select(literal(1).label("number")).where(many > 0).cte("dotmac_numbers", recursive=True)
        return first.union_all(select(first.c.number + 1).where(first.c.number < many))

    def insert(self, table: Any) -> Any:
        return insert_on_conflict(table)

    def span(self, type_: TypeEngine[Any]) -> Span | None:
        stored = self.underlying(type_)
        if isinstance(stored, (DateTime, Time)):
            return moment_span(type_)
        if isinstance(stored, (Float, Numeric)) and stored.asdecimal and not converts(type_):
            return decimal_span(type_)
        return None

    def key_type(self, type_: TypeEngine[object]) -> TypeEngine[object] | None:
        stored = self.underlying(type_)
        decimal = isinstance(stored, (Float, Numeric)) and stored.asdecimal
        return None if isinstance(stored, _FAITHFUL) and not decimal and not converts(type_) else AsStored()

    def among_spans(self, column: Column, span: Span, low: str, high: str) -> Condition:  # noqa: ARG002 - only one list is used
        stored = self._among(column, span.item, low)
        digits = digits_read(span.item, self.types) if span.rounds else None
        # Rounding each stored number and looking it up in the list is much faster than comparing it with every span.
        return stored if digits is None else or_(stored, self._among(_rounded(column, digits), span.item, low))


def _rounded(column: Column, digits: int) -> Column:
    return func.dotmac_rounded(column, literal_column(str(digits)))


def _from_json(value: Column, type_: TypeEngine[Any]) -> Column:
    return func.dotmac_bytes(value) if isinstance(underlying(type_, Sqlite.types), _BYTES) else value


def _with_affinity(value: Column, type_: TypeEngine[Any]) -> Column:
    """A value of a row, cast to the column's affinity, since SQLite uses an index only if the affinities agree.

    https://www.sqlite.org/rowvalue.html
    """
    plain = underlying(type_, Sqlite.types)
    if isinstance(plain, Integer):
        return cast(value, Integer)
    return cast(value, Text) if isinstance(plain, (String, Uuid)) else _from_json(value, type_)


def _json_path(document: Column, path: tuple[str, ...]) -> Column:
    """The path in SQLite's syntax.

    A step such as ``0`` can be an index of an array or a key of an object. This depends on the document, so the SQL
    tests whether the value at this point is an array.
    """
    prefix: Column | None = None
    plain = "$"
    for step in path:
        # The key is escaped as in the JSON that SQLAlchemy stores, because SQLite before 3.45 compares escaped keys.
        key = f".{json.dumps(step)}"
        if not _PLACE.fullmatch(step):
            plain += key
            continue
        prefix = _joined(prefix, plain)
        place = f"[#{step}]" if step.startswith("-") else f"[{step}]"
        is_array = func.json_type(document, prefix) == "array"
        prefix = prefix.concat(case((is_array, literal(place, Text())), else_=literal(key, Text())))
        plain = ""
    return prefix if prefix is not None and not plain else _joined(prefix, plain)


def _joined(prefix: Column | None, plain: str) -> Column:
    text: Column = literal(plain, Text())
    return text if prefix is None else prefix.concat(text)
