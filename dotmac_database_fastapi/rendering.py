"""Rows as JSON: what is read of a class, serialised in one step from the entities to bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from sqlalchemy.orm.base import instance_dict
from typing_extensions import TypedDict

from dotmac_database import CursorPaginationResult, PaginationResult, traits_of

from .schemas import read_schema_of

T = TypeVar("T")


class PageOf(BaseModel, Generic[T]):
    """A numbered page, for OpenAPI."""

    items: list[T]
    total: int
    page: int
    per_page: int
    pages: int
    has_next: bool
    has_prev: bool


class CursorPageOf(BaseModel, Generic[T]):
    """A page between cursors, for OpenAPI."""

    items: list[T]
    next_cursor: str | None
    prev_cursor: str | None
    has_next: bool
    has_prev: bool


class Renderer:
    """Makes JSON of a class's rows, by a schema that is given or derived.

    A derived one is plain columns, so that they are serialised as they are; what a user's schema computes or
    refuses takes effect, as in FastAPI's ``response_model``. ``relationships`` are those that the schema reads.
    """

    def __init__(self, model: type, read_schema: type[Any] | None = None) -> None:
        traits = traits_of(model)
        self.schema: type[Any] = read_schema or read_schema_of(model)
        fields = getattr(self.schema, "model_fields", {})
        self.relationships = tuple(name for name in fields if name in traits.relationships)
        self._one: TypeAdapter[Any]
        self._many: TypeAdapter[Any]
        self._read: Callable[[Sequence[Any]], list[Any]]
        if read_schema is None:
            self._one, self._read = self._derived()
        else:
            self._one = TypeAdapter(read_schema)
            many = TypeAdapter(list[read_schema])  # type: ignore[valid-type]  # a class known at run time
            self._read = lambda entities: many.validate_python(list(entities), from_attributes=True)
        item = self._one.core_schema and (self._row_type if read_schema is None else read_schema)
        self._pages = {
            PaginationResult: TypeAdapter(_page_type("Page", PageOf, item)),
            CursorPaginationResult: TypeAdapter(_page_type("CursorPage", CursorPageOf, item)),
        }
        self.page_models = (PageOf[self.schema], CursorPageOf[self.schema])  # type: ignore[name-defined]  # as above

    def one(self, entity: Any) -> bytes:
        """One row."""
        return self._one.dump_json(self._read([entity])[0], by_alias=True)

    def page(self, page: PaginationResult[Any] | CursorPaginationResult[Any]) -> bytes:
        """A page of rows."""
        told: dict[str, Any] = {"items": self._read(page.items)}
        names = _NUMBERED if isinstance(page, PaginationResult) else _BETWEEN
        for name in names:
            told[name] = getattr(page, name)
        return self._pages[type(page)].dump_json(told, by_alias=True)

    def _derived(self) -> tuple[TypeAdapter[Any], Callable[[Sequence[Any]], list[Any]]]:
        fields = self.schema.model_fields
        keys = tuple(fields)
        self._row_type = TypedDict("Row", {key: field.annotation for key, field in fields.items()})  # type: ignore[misc]  # at run time
        self._row_type.__pydantic_config__ = ConfigDict(ser_json_bytes="base64")
        values = itemgetter(*keys) if len(keys) > 1 else lambda held: (held[keys[0]],)

        def read(entities: Sequence[Any]) -> list[Any]:
            try:
                return [dict(zip(keys, values(instance_dict(entity)), strict=True)) for entity in entities]
            except KeyError:  # a column that is not loaded: a deferred one, or an entity of another making
                return [{key: getattr(entity, key) for key in keys} for entity in entities]

        return TypeAdapter(self._row_type), read


_NUMBERED = ("total", "page", "per_page", "pages", "has_next", "has_prev")
_BETWEEN = ("next_cursor", "prev_cursor", "has_next", "has_prev")


def _page_type(name: str, page: type[BaseModel], item: Any) -> Any:
    fields = {key: field.annotation for key, field in page.model_fields.items()}
    return TypedDict(name, {**fields, "items": list[item]})  # type: ignore[misc, valid-type]  # at run time
