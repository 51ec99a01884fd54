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
"""The types whose value, as it is read, is what is stored; a number's only where it is no Decimal."""

_GLOB_SPECIAL = "*?["
_PLACE = re.compile(r"-?[0-9]{1,9}")


class JsonValues(TypeDecorator[Any]):
    """A list of values of a type as JSON, each as SQLite stores it: its bytes as hexadecimal digits."""

    impl = Text
    cache_ok = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        super().__init__()
        self.item = item

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """SQLAlchemy's hook: the JSON text."""
        return _json(_stored(value, self.item, dialect))


class JsonRows(TypeDecorator[Any]):
    """A list of rows as JSON: an array of values for each. A value that is stored in several forms makes several."""

    impl = Text
    cache_ok = True

    def __init__(self, items: tuple[TypeEngine[Any], ...]) -> None:  # SQLAlchemy's cache key knows no *items
        super().__init__()
        self.items = items

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """SQLAlchemy's hook: the JSON text."""
        if not any(isinstance(underlying(item, dialect), (DateTime, Time)) for item in self.items):
            columns = (_stored(column, item, dialect) for column, item in zip(zip(*value), self.items))  # noqa: B905 - of no rows there are no columns
            return _json([*zip(*columns)])  # noqa: B905 - as above
        return _json(
            [
                row
                for given in value
                for row in product(
                    *(_stored([each], item, dialect) for each, item in zip(given, self.items, strict=True))
                )
            ]
        )


def _stored(values: Iterable[Any], item: TypeEngine[Any], dialect: Any) -> list[Any]:
    """The values as SQLite stores them, as far as JSON can have them."""
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


def _json(stored: list[Any]) -> str:
    text = json.dumps(stored)
    if "Infinity" not in text:
        return text
    # JSON has no infinity, and SQLite's numbers run over to it.
    return _TEXT_OR_INFINITY.sub(lambda found: "9e999" if found[0] == "Infinity" else found[0], text)


_BYTES = (LargeBinary, BINARY, VARBINARY)
_TEXT_OR_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')


class Sqlite(Dialect):
    """SQLite, by sqlite3 or aiosqlite. Its LIKE ignores the case of ASCII letters, its GLOB minds all."""

    name: ClassVar[str] = "sqlite"
    max_parameters: ClassVar[int] = 30_000  # SQLITE_MAX_VARIABLE_NUMBER is 32,766
    locks_whole: ClassVar[bool] = True
    types: ClassVar[Any] = SQLiteDialect()
    inserts_in_order: ClassVar[bool] = True  # unless the greatest key of all is taken: sqlite.org/autoinc.html

    def enforces_keys(self, connect: Callable[[], Connection]) -> bool:
        """Queried each time, since a connection may change it; by the driver, so that no listener is called."""
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
        found: Condition = func.dotmac_search(column, query) == 1
        index = indexed_search(column, query)
        return found if index is None else and_(index, found)

    def relevance(self, column: Column, query: Column) -> Column:
        return func.dotmac_relevance(column, query, type_=Double())

    def _among(self, column: Column, type_: TypeEngine[Any], name: str) -> Condition:
        values = func.json_each(bindparam(name, type_=JsonValues(type_))).table_valued("value", name="dotmac_values")
        return column.in_(select(_from_json(values.c.value, type_)))

    def _row_among(self, columns: Sequence[Column], name: str) -> Condition:
        types = [each.type for each in columns]
        rows = func.json_each(bindparam(name, type_=JsonRows(tuple(types)))).table_valued("value", name="dotmac_rows")
        given = [func.json_extract(rows.c.value, f"$[{place}]") for place in range(len(types))]
        return tuple_(*columns).in_(select(*map(_with_affinity, given, types)))

    def json_value(self, document: Column, path: tuple[str, ...], kind: str) -> Column:
        where = _json_path(document, path)
        found = func.json_extract(document, where)
        is_kind = func.json_type(document, where)
        match kind:
            case "number":
                return type_coerce(case((is_kind.in_(["integer", "real"]), found)), Float())
            case "boolean":
                return type_coerce(case((is_kind.in_(["true", "false"]), found)), Boolean())
            case "text":
                return type_coerce(case((is_kind == "text", found)), Text())
            case _:
                return cast(found, Text)

    def _at(self, document: Column, path: tuple[str, ...]) -> Column:
        # json_quote(json_extract()) loses true and false, ->  keeps them: https://www.sqlite.org/json1.html#jptr
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

    def key_type(self, type_: TypeEngine[Any]) -> TypeEngine[Any] | None:
        stored = self.underlying(type_)
        decimal = isinstance(stored, (Float, Numeric)) and stored.asdecimal
        return None if isinstance(stored, _FAITHFUL) and not decimal and not converts(type_) else AsStored()

    def among_spans(self, column: Column, span: Span, low: str, high: str) -> Condition:  # noqa: ARG002 - one list is enough here
        stored = self._among(column, span.item, low)
        digits = digits_read(span.item, self.types) if span.rounds else None
        # To look each row's number up in the list takes a moment; to compare it with as many spans does not.
        return stored if digits is None else or_(stored, self._among(_rounded(column, digits), span.item, low))


def _rounded(column: Column, digits: int) -> Column:
    return func.dotmac_rounded(column, literal_column(str(digits)))


def _from_json(value: Column, type_: TypeEngine[Any]) -> Column:
    return func.dotmac_bytes(value) if isinstance(underlying(type_, Sqlite.types), _BYTES) else value


def _with_affinity(value: Column, type_: TypeEngine[Any]) -> Column:
    """A member of a row as its column's values are: SQLite looks a row up in an index only where the affinities agree.

    https://www.sqlite.org/rowvalue.html
    """
    plain = underlying(type_, Sqlite.types)
    if isinstance(plain, Integer):
        return cast(value, Integer)
    return cast(value, Text) if isinstance(plain, (String, Uuid)) else _from_json(value, type_)


def _json_path(document: Column, path: tuple[str, ...]) -> Column:
    """The path as SQLite writes it. Only the document can tell whether ``0`` is an array's place or an object's key."""
    where: Column | None = None
    plain = "$"
    for step in path:
        # Escaped as SQLAlchemy stores it: SQLite before 3.45 compares keys as they are written.
        key = f".{json.dumps(step)}"
        if not _PLACE.fullmatch(step):
            plain += key
            continue
        where = _joined(where, plain)
        place = f"[#{step}]" if step.startswith("-") else f"[{step}]"
        is_array = func.json_type(document, where) == "array"
        where = where.concat(case((is_array, literal(place, Text())), else_=literal(key, Text())))
        plain = ""
    return where if where is not None and not plain else _joined(where, plain)


def _joined(where: Column | None, plain: str) -> Column:
    text: Column = literal(plain, Text())
    return text if where is None else where.concat(text)
