"""Serializes rows to JSON, in one step from the entities to bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import date, datetime
from decimal import Decimal
from enum import EnumMeta
from operator import itemgetter
from typing import Annotated, Any, TypeAlias, get_args
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy.orm.base import instance_dict
from typing_extensions import TypedDict

from dotmac_database import CursorPaginationResult, PaginationResult, Traits, traits_of

from .aliases import Annotation, AnyColumn, Repository
from .declared import converts
from .readable import deferred_in
from .schemas import read_schema_of

Page: TypeAlias = PaginationResult[Any] | CursorPaginationResult[Any]


class Renderer:
    """Serializes the rows of a class by the given schema, or by the derived one.

    A schema of the user's validates each row and computes its fields, as FastAPI's ``response_model`` does. A derived
    schema has plain columns, which are serialized without validation. ``relationships`` are those that the schema
    contains. ``columns`` are the only columns that it needs; None if it needs entities. ``certain``: a row can be
    serialized whatever its values are, because no code of the user's has a part in it.
    """

    def __init__(self, model: type, read_schema: type | None = None) -> None:
        schema: Annotation = read_schema or read_schema_of(model)
        self.schema: type = schema
        traits: Traits[object] = traits_of(model)
        self.relationships = tuple(name for name in getattr(schema, "model_fields", {}) if name in traits.relationships)
        self._deferred = frozenset(deferred_in(traits, schema)) | (traits.deferred & {traits.version})
        self.page_models: tuple[Annotation, Annotation] = (PaginationResult[schema], CursorPaginationResult[schema])
        self._checked = _Shape(schema)
        self._rows = self._plain = None
        self.columns: tuple[str, ...] | None = None
        self.certain = False
        if read_schema is None:
            self.columns = tuple(schema.model_fields)
            self._rows, self._plain = _reader(self.columns), _Shape(_row_type(schema))
            self.certain = all(_is_plain(traits.columns[key], field) for key, field in schema.model_fields.items())

    def loading(self, repository: Repository) -> Repository:
        """The repository, changed to load the deferred columns that the schema contains."""
        return repository.undefer(*self._deferred) if self._deferred else repository

    def one(self, entity: object, *, committed: bool = False) -> bytes:
        """The JSON of one row.

        A row that is already ``committed`` is serialized even if it violates the schema, as a row can if the table was
        changed and the class was not: the client must get a success for a row that is stored.
        """
        # Without validation, serialization fails for a value that is not of its column's type, as a default may be
        # until the row is read again. Then the row is validated, below.
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                return _dump(self._plain.one, self._rows([entity])[0])
        try:
            return _dump(self._checked.one, self._checked.one.validate_python(entity, from_attributes=True))
        except (PydanticSerializationError, ValidationError):
            if self._rows is None or not committed:
                raise
            return to_json(self._rows([entity])[0], fallback=str)

    def page(self, page: Page) -> bytes:
        """The JSON of a page."""
        kind = PaginationResult if isinstance(page, PaginationResult) else CursorPaginationResult
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                plain = copy(page)
                vars(plain)["items"] = self._rows(page.items)
                return _dump(self._plain.pages[kind], plain)
        checked = self._checked.pages[kind]
        return _dump(checked, checked.validate_python(page, from_attributes=True))


class _Shape:
    """The type adapters for rows of one type, and for pages of them."""

    def __init__(self, item: Annotation) -> None:
        kinds: tuple[Annotation, ...] = (PaginationResult, CursorPaginationResult)
        self.one: TypeAdapter[object] = TypeAdapter(item)
        self.pages: dict[type, TypeAdapter[object]] = {kind: TypeAdapter(kind[item]) for kind in kinds}


def _dump(adapter: TypeAdapter[object], value: object) -> bytes:
    return adapter.dump_json(value, by_alias=True, warnings="error")


_PLAIN = frozenset((bool, int, float, str, Decimal, UUID, date, datetime))
"""The types whose values can always be serialized."""


def _is_plain(column: AnyColumn, field: FieldInfo) -> bool:
    """Whether the column's values are read and serialized without code of the user's."""
    annotation: Annotation = field.annotation
    types = {each for each in get_args(annotation) or (annotation,) if each is not type(None)}
    own = type(column.type).__module__.startswith("dotmac_database.")
    return (
        all(each in _PLAIN or isinstance(each, EnumMeta) for each in types)
        and not any(hasattr(each, "__get_pydantic_core_schema__") for each in field.metadata)  # as serializers have
        and (own or not converts(column.type))
    )


def _row_type(schema: type[BaseModel]) -> Annotation:
    """The type of a row as a dict, which needs no validation."""
    make: Annotation = TypedDict  # type checkers need literal fields, and these are known only at run time
    return make("Row", {key: _annotation(field) for key, field in schema.model_fields.items()})


def _annotation(field: FieldInfo) -> Annotation:
    """A field's type with its metadata, such as serializers, which Pydantic stores apart from the type."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _reader(keys: tuple[str, ...]) -> Callable[[Sequence[object]], list[object]]:
    """A function that makes dicts of these columns from entities. Rows that are already dicts are not changed."""
    # itemgetter returns a tuple only for two or more keys.
    values: Callable[[Mapping[str, object]], tuple[object, ...]] = (
        itemgetter(*keys) if len(keys) > 1 else lambda row: tuple(row[key] for key in keys)
    )

    def read(entities: Sequence[object]) -> list[object]:
        if entities and type(entities[0]) is dict:
            return list(entities)
        try:
            return [dict(zip(keys, values(instance_dict(entity)), strict=True)) for entity in entities]
        except KeyError:  # a column that is not loaded, such as a deferred one
            return [{key: getattr(entity, key) for key in keys} for entity in entities]

    return read
