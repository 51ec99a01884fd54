"""What SQLite can do, and how it says what PostgreSQL says otherwise."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import (
    Boolean,
    Double,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.sqlite import insert as insert_on_conflict
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.types import (
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    PickleType,
    String,
    Time,
    TypeDecorator,
    TypeEngine,
    Uuid,
)

from .base import Column, Condition, Dialect, lowered
from .full_text import indexed_search
from .spans import AsStored, Span, converts, decimal_span, moment_span

_FAITHFUL = (Boolean, Date, Enum, Float, Integer, Numeric, String, Uuid)
"""The types whose value, as it is read, is what is stored; a number's only where it is no Decimal."""

_GLOB_SPECIAL = "*?["
_PLACE = re.compile(r"-?[0-9]{1,9}")


class JsonValues(TypeDecorator[Any]):
    """A list of values of a type as JSON, each as SQLite stores it."""

    impl = Text
    cache_ok = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        super().__init__()
        self.item = item

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """SQLAlchemy's hook: the JSON text."""
        process = self.item.dialect_impl(dialect).bind_processor(dialect)
        stored = value if process is None else list(map(process, value))
        # Numbers only have infinities: a text is quoted, and no other type is written so.
        infinite = isinstance(stored[0], float)
        text = json.dumps([float(each) if isinstance(each, Decimal) else each for each in stored])
        return text.replace("Infinity", "9e999") if infinite else text


class Sqlite(Dialect):
    """SQLite, by sqlite3 or aiosqlite. Its LIKE ignores the case of ASCII letters, its GLOB minds all."""

    name: ClassVar[str] = "sqlite"
    max_parameters: ClassVar[int] = 30_000  # SQLITE_MAX_VARIABLE_NUMBER is 32,766
    locks_whole: ClassVar[bool] = True
    types: ClassVar[Any] = SQLiteDialect()

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

    def takes_many(self, type_: TypeEngine[Any]) -> bool:
        plain = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
        return not isinstance(plain, (LargeBinary, PickleType))  # JSON has no bytes

    def among(self, column: Column, type_: TypeEngine[Any], name: str) -> Condition:
        values = func.json_each(bindparam(name, type_=JsonValues(type_))).table_valued("value", name="dotmac_values")
        return column.in_(select(values.c.value))

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

    def among_spans(self, column: Column, span: Span, low: str, high: str) -> Condition:
        if span.forms is not None:
            forms = func.json_each(bindparam(low, type_=span.forms)).table_valued("value", name="dotmac_values")
            return column.in_(select(forms.c.value))
        lows, highs = (
            func.json_each(bindparam(name, type_=JsonValues(type_))).table_valued("key", "value", name=f"dotmac_{end}")
            for name, type_, end in ((low, span.low, "lows"), (high, span.high, "highs"))
        )
        spans = select(literal(1)).where(lows.c.key == highs.c.key, column.between(lows.c.value, highs.c.value))
        return or_(exists(spans), column != column)  # NULL is in no list, nor not in one


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
