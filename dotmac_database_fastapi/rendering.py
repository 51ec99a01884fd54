"""Rows as JSON: what is read of a class, serialised in one step from the entities to bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Generic, NotRequired, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticSerializationError
from sqlalchemy.orm.base import instance_dict
from typing_extensions import TypedDict

from dotmac_database import CursorPaginationResult, PaginationResult, traits_of

from .schemas import read_schema_of

T = TypeVar("T")


class PageOf(BaseModel, Generic[T]):
    """A numbered page, for OpenAPI."""

    items: list[T]
    total: int | None
    page: int
    per_page: int
    pages: int | None
    has_next: bool
    has_prev: bool
    total_is_exact: bool = Field(True, description="There where another total than the exact one was asked for.")


class CursorPageOf(BaseModel, Generic[T]):
    """A page between cursors, for OpenAPI."""

    items: list[T]
    next_cursor: str | None
    prev_cursor: str | None
    has_next: bool
    has_prev: bool


class Renderer:
    """Makes JSON of a class's rows, by a schema that is given or derived.

    What a schema of the user's computes or refuses takes effect, as in FastAPI's ``response_model``. A derived one is
    plain columns, which are serialised as they are. ``relationships`` are those that the schema reads; ``columns`` are
    all that it needs of a row, None where it takes objects.
    """

    def __init__(self, model: type, read_schema: type[Any] | None = None) -> None:
        schema: Any = read_schema or read_schema_of(model)
        self.schema: type[Any] = schema
        relationships = traits_of(model).relationships
        self.relationships = tuple(name for name in getattr(schema, "model_fields", {}) if name in relationships)
        self.page_models = (PageOf[schema], CursorPageOf[schema])
        self._checked = _Shape(schema)
        self._rows = self._plain = None
        self.columns: tuple[str, ...] | None = None
        if read_schema is None:
            self.columns = tuple(schema.model_fields)
            self._rows, self._plain = _reader(self.columns), _Shape(_row_type(schema))

    def one(self, entity: Any) -> bytes:
        """One row."""
        return self._told([entity], lambda shape, items: shape.one.dump_json(items[0], by_alias=True, warnings="error"))

    def page(self, page: PaginationResult[Any] | CursorPaginationResult[Any]) -> bytes:
        """A page of rows."""
        names: tuple[str, ...] = _BETWEEN
        if isinstance(page, PaginationResult):
            names = _NUMBERED if type(page.total) is int else _ESTIMATED
        told = {name: getattr(page, name) for name in names}
        kind = type(page)

        def dump(shape: _Shape, items: list[Any]) -> bytes:
            return shape.pages[kind].dump_json({"items": items, **told}, by_alias=True, warnings="error")

        return self._told(page.items, dump)

    def _told(self, entities: list[Any], dump: Callable[[_Shape, list[Any]], bytes]) -> bytes:
        if self._rows is not None and self._plain is not None:
            # A value that is not of its column's type, as a default may be before the row is read again, needs the
            # validation that is left out here.
            with suppress(PydanticSerializationError):
                return dump(self._plain, self._rows(entities))
        return dump(self._checked, self._checked.many.validate_python(entities, from_attributes=True))


class _Shape:
    """The adapters for one type of row."""

    def __init__(self, item: Any) -> None:
        self.one: TypeAdapter[Any] = TypeAdapter(item)
        rows: Any = list
        self.many: TypeAdapter[Any] = TypeAdapter(rows[item])
        self.pages: dict[type, TypeAdapter[Any]] = {
            PaginationResult: TypeAdapter(_page_type("Page", PageOf, item)),
            CursorPaginationResult: TypeAdapter(_page_type("CursorPage", CursorPageOf, item)),
        }


_NUMBERED = ("total", "page", "per_page", "pages", "has_next", "has_prev")
_ESTIMATED = (*_NUMBERED, "total_is_exact")
_BETWEEN = ("next_cursor", "prev_cursor", "has_next", "has_prev")


def _page_type(name: str, page: type[BaseModel], item: Any) -> Any:
    fields: dict[str, Any] = {
        key: field.annotation if field.is_required() else NotRequired[field.annotation]
        for key, field in page.model_fields.items()
    }
    return _typed_dict(name, {**fields, "items": list[item]})


def _row_type(schema: type[BaseModel]) -> Any:
    """A row as a dict: no object is built for it."""
    row = _typed_dict("Row", {key: field.annotation for key, field in schema.model_fields.items()})
    row.__pydantic_config__ = ConfigDict(ser_json_bytes="base64")
    return row


def _typed_dict(name: str, fields: dict[str, Any]) -> Any:
    make: Any = TypedDict  # checkers want the fields spelled out, and these are known at run time only
    return make(name, fields)


def _reader(keys: tuple[str, ...]) -> Callable[[Sequence[Any]], list[Any]]:
    """Entities → dicts of these columns, from what is loaded of them; what is a dict already stays one."""
    # itemgetter gives a tuple for two keys and more.
    values: Callable[[Any], Any] = itemgetter(*keys) if len(keys) > 1 else lambda held: tuple(held[key] for key in keys)

    def read(entities: Sequence[Any]) -> list[Any]:
        if entities and type(entities[0]) is dict:
            return list(entities)
        try:
            return [dict(zip(keys, values(instance_dict(entity)), strict=True)) for entity in entities]
        except KeyError:  # a column that is not loaded: a deferred one
            return [{key: getattr(entity, key) for key in keys} for entity in entities]

    return read
