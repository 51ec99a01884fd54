"""Rows as JSON: what is read of a class, serialised in one step from the entities to bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from operator import itemgetter
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError
from sqlalchemy.orm.base import instance_dict
from typing_extensions import TypedDict

from dotmac_database import CursorPaginationResult, PaginationResult, Traits, traits_of

from .readable import deferred_in
from .schemas import read_schema_of


class Renderer:
    """Makes JSON of a class's rows, by a schema that is given or derived.

    What a schema of the user's computes or refuses takes effect, as in FastAPI's ``response_model``. A derived one is
    plain columns, which are serialised as they are. ``relationships`` are those that the schema reads; ``columns`` are
    all that it needs of a row, None where it takes objects.
    """

    def __init__(self, model: type, read_schema: type[Any] | None = None) -> None:
        schema: Any = read_schema or read_schema_of(model)
        self.schema: type[Any] = schema
        traits: Traits[Any] = traits_of(model)
        self.relationships = tuple(name for name in getattr(schema, "model_fields", {}) if name in traits.relationships)
        self._deferred = frozenset(deferred_in(traits, schema)) | (traits.deferred & {traits.version})
        self.page_models: tuple[Any, Any] = (PaginationResult[schema], CursorPaginationResult[schema])
        self._checked = _Shape(schema)
        self._rows = self._plain = None
        self.columns: tuple[str, ...] | None = None
        if read_schema is None:
            self.columns = tuple(schema.model_fields)
            self._rows, self._plain = _reader(self.columns), _Shape(_row_type(schema))

    def loading(self, repository: Any) -> Any:
        """The repository, whose reads load all that the schema shows."""
        return repository.undefer(*self._deferred) if self._deferred else repository

    def one(self, entity: Any) -> bytes:
        """One row."""
        # A value that is not of its column's type, as a default may be before the row is read again, needs the
        # validation that is left out here.
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                return _dump(self._plain.one, self._rows([entity])[0])
        return _dump(self._checked.one, self._checked.one.validate_python(entity, from_attributes=True))

    def page(self, page: PaginationResult[Any] | CursorPaginationResult[Any]) -> bytes:
        """A page of rows."""
        kind = PaginationResult if isinstance(page, PaginationResult) else CursorPaginationResult
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                plain = copy(page)
                vars(plain)["items"] = self._rows(page.items)
                return _dump(self._plain.pages[kind], plain)
        checked = self._checked.pages[kind]
        return _dump(checked, checked.validate_python(page, from_attributes=True))


class _Shape:
    """The adapters for one type of row."""

    def __init__(self, item: Any) -> None:
        kinds: tuple[Any, ...] = (PaginationResult, CursorPaginationResult)
        self.one: TypeAdapter[Any] = TypeAdapter(item)
        self.pages: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind[item]) for kind in kinds}


def _dump(adapter: TypeAdapter[Any], value: Any) -> bytes:
    return adapter.dump_json(value, by_alias=True, warnings="error")


def _row_type(schema: type[BaseModel]) -> Any:
    """A row as a dict: no object is built for it."""
    make: Any = TypedDict  # checkers want the fields spelled out, and these are known at run time only
    return make("Row", {key: _annotation(field) for key, field in schema.model_fields.items()})


def _annotation(field: Any) -> Any:
    """A field's type with what it says about how it is shown, which Pydantic keeps apart from it."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


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
