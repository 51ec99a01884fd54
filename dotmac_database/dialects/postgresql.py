"""What PostgreSQL can do."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    Boolean,
    Double,
    Enum,
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
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.dialects.postgresql import insert as insert_on_conflict
from sqlalchemy.types import TypeDecorator, TypeEngine

from .base import Column, Condition, Dialect, enum_of
from .search_text import as_websearch

_CONFIG: Column = literal_column("'simple'::regconfig")


def _words(column: Column) -> Column:
    return column if isinstance(column.type, TSVECTOR) else func.to_tsvector(_CONFIG, column)


class Postgresql(Dialect):
    """PostgreSQL, by asyncpg or psycopg 3."""

    name: ClassVar[str] = "postgresql"
    max_parameters: ClassVar[int] = 32_000  # asyncpg's limit is 32,767
    estimates: ClassVar[bool] = True

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
        # As it is compared in Python: a real would not be equal to the cursor's number.
        return cast(func.ts_rank_cd(_words(column), func.websearch_to_tsquery(_CONFIG, query)), Double())

    def among(self, column: Column, type_: TypeEngine[Any], name: str) -> Condition:
        # A cast to VARCHAR(5)[] would cut the values.
        whole = String() if isinstance(type_, String) and enum_of(type_) is None else type_
        return column == any_(bindparam(name, type_=ARRAY(whole)))

    def _at(self, document: Column, path: tuple[str, ...]) -> Column:
        jsonb = document if isinstance(document.type, JSONB) else cast(document, JSONB)
        if not path:
            return jsonb
        return jsonb.op("#>", return_type=JSONB())(cast(literal(list(path), ARRAY(Text)), ARRAY(Text)))

    def json_value(self, document: Column, path: tuple[str, ...], kind: str) -> Column:
        found = self._at(document, path)
        text = found.op("#>>", return_type=Text())(literal_column("'{}'::text[]"))
        is_kind = func.jsonb_typeof(found)
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
        found = self._at(document, path)
        empty: Column = literal_column("'[]'::jsonb")
        array = case((func.jsonb_typeof(found) == "array", found), else_=empty)
        # A set of rows cannot be named as a FROM by its column: the columns alone bring both sides into the EXISTS.
        member = func.jsonb_array_elements(array).column_valued("member")
        other = func.jsonb_array_elements(cast(value, JSONB)).column_valued("other")
        return exists(select(literal_column("1")).where(member == other))

    def typed(self, column: Column, type_: TypeEngine[Any]) -> Column:
        # VALUES of nothing but NULL, or of enums as psycopg sends them, are text, which is assigned to no other type.
        plain = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
        if isinstance(plain, String) and not isinstance(plain, Enum):
            return column  # text is assigned to it, and refused where it is too long: a cast would cut it
        if isinstance(plain, ARRAY) and isinstance(plain.item_type, String) and not isinstance(plain.item_type, Enum):
            return cast(column, ARRAY(Text()))
        enum = enum_of(type_)
        return column if enum is not None and not enum.native_enum else cast(column, type_)

    def numbers(self, many: Any) -> Any:
        return func.generate_series(1, many).table_valued("number", name="dotmac_numbers")

    def insert(self, table: Any) -> Any:
        return insert_on_conflict(table)

    def orders_natively(self, type_: TypeEngine[Any]) -> bool:
        enum = enum_of(type_)
        return enum is None or enum.native_enum
