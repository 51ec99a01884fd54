"""Serializes rows to JSON, in one step from the entities to bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from enum import EnumMeta
from operator import itemgetter
from typing import Annotated, Any, cast, get_args
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy.orm.base import instance_dict
from typing_extensions import TypedDict

from dotmac_database import CursorPaginationResult, OffsetResult, PaginationResult, Traits, traits_of

from .aliases import Annotation, AnyColumn, AnyPage, Repository
from .declared import converts
from .hiding import NOTHING, Hidden
from .readable import deferred_in, on_each_path, relationships_in, shown_by
from .variants import derived_schema, hiding


class Renderer:
    """Serializes the rows of a class by the given schema, or by the derived one.

    A schema of the user's validates each row and computes its fields, as FastAPI's ``response_model`` does. A derived
    schema has plain columns, which are serialized without validation. ``relationships`` are those that the schema
    contains. ``columns`` are the only columns that it needs; None if it needs entities. ``certain``: a row can be
    serialized whatever its values are, because no code of the user's has a part in it. ``of_row_alone``: the JSON of a
    row depends on its own columns alone, and not on related rows or on the time. ``hidden`` columns are left out.
    """

    def __init__(self, model: type, read_schema: type | None = None, hidden: Hidden = NOTHING) -> None:
        traits: Traits[object] = traits_of(model)
        schema: Annotation = read_schema or derived_schema(traits, hidden)
        if read_schema is not None and hidden.columns:
            schema = hiding(traits, read_schema, hidden)
        self.schema: type = schema
        self.relationships = relationships_in(traits, schema)
        deferred = {*deferred_in(traits, schema), *(traits.deferred & {traits.version})}
        self._deferred = on_each_path(traits, self.relationships, deferred)
        self._checked = Shape(schema)
        self._rows = self._plain = None
        self.columns: tuple[str, ...] | None = None
        self.certain = False
        if read_schema is None:
            self.columns = tuple(schema.model_fields)
            self._rows, self._plain = reader(self.columns, uuids_of(schema)), Shape(row_type(schema))
            self.certain = all(_is_plain(traits.columns[key], field) for key, field in schema.model_fields.items())
        shown = shown_by(schema).keys()
        self.of_row_alone = bool(shown) and shown <= traits.columns.keys() and not _computes(schema)

    def loading(self, repository: Repository) -> Repository:
        """The repository, changed to load the deferred columns that the schema contains."""
        return repository.undefer(*self._deferred) if self._deferred else repository

    async def get(self, repository: Repository, key: object) -> object:
        """The row with a primary key, with what the schema contains. Raises `EntityNotFoundError`."""
        return await self.loading(repository).get_by_id_or_raise(key, relationships=self.relationships)

    def one(self, entity: object, *, committed: bool = False) -> bytes:
        """The JSON of one row.

        A row that is already ``committed`` is serialized even if it violates the schema, as a row can if the table was
        changed and the class was not: the client must get a success for a row that is stored.
        """
        # Without validation, serialization fails for a value that is not of its column's type, as a default may be
        # until the row is read again. Then the row is validated, below.
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                return dump(self._plain.one, self._rows([entity])[0])
        try:
            return dump(self._checked.one, self._checked.one.validate_python(entity, from_attributes=True))
        except (PydanticSerializationError, ValidationError):
            if self._rows is None or not committed:
                raise
            return to_json({key: getattr(entity, key) for key in self.columns or ()}, fallback=str)

    def many(self, entities: Sequence[object]) -> bytes:
        """The JSON array of some rows."""
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                return dump(self._plain.pages[list], self._rows(entities))
        return dump(self._checked.pages[list], self._validated(entities))

    def values(self, entity: object) -> Mapping[str, object]:
        """The JSON of one row, as Python values."""
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                return _values(self._plain.one, self._rows([entity])[0])
        return _values(self._checked.one, self._checked.one.validate_python(entity, from_attributes=True))

    def page(self, page: AnyPage) -> bytes:
        """The JSON of a page."""
        kind = kind_of(page)
        with suppress(PydanticSerializationError):
            if self._rows is not None and self._plain is not None:
                return dump(self._plain.pages[kind], with_items(page, self._rows(page.items)))
        checked = self._checked.pages[kind]
        return dump(checked, checked.validate_python(page, from_attributes=True))

    def with_objects(self, page: AnyPage) -> AnyPage:
        """The page, with the objects that the schema makes of its rows."""
        return with_items(page, self._validated(page.items))

    def _validated(self, entities: Sequence[object]) -> list[object]:
        validated = self._checked.pages[list].validate_python(list(entities), from_attributes=True)
        return cast("list[object]", validated)


def _computes(schema: Annotation) -> bool:
    """Whether a schema may add values of its own: computed fields, or what a class that is not Pydantic's returns."""
    return not (isinstance(schema, type) and issubclass(schema, BaseModel)) or bool(schema.model_computed_fields)


class Shape:
    """The type adapters for rows of one type, and for pages and lists of them."""

    def __init__(self, item: Annotation) -> None:
        self.one: TypeAdapter[object] = TypeAdapter(item)
        self.pages = _Adapters(item)


class _Adapters(dict[type, TypeAdapter[object]]):
    """The type adapters for pages and lists of one type of rows, by the generic class. Each is created when needed."""

    def __init__(self, item: Annotation) -> None:
        self._item = item

    def __missing__(self, kind: type) -> TypeAdapter[object]:
        generic: Annotation = kind
        adapter = self[kind] = TypeAdapter(generic[self._item])
        return adapter


def kind_of(page: AnyPage) -> type:
    """The generic class of a page."""
    if isinstance(page, OffsetResult):
        return OffsetResult
    return PaginationResult if isinstance(page, PaginationResult) else CursorPaginationResult


def with_items(page: AnyPage, items: list[Any]) -> AnyPage:
    """A copy of a page with other items."""
    copied = object.__new__(type(page))  # four times as fast as copy()
    vars(copied).update(vars(page), items=items)
    return copied


def dump(adapter: TypeAdapter[object], value: object) -> bytes:
    """The JSON of a value. Raises `PydanticSerializationError` if it is not of the adapter's type."""
    return adapter.dump_json(value, by_alias=True, warnings="error")


def _values(adapter: TypeAdapter[object], value: object) -> Mapping[str, object]:
    values: Mapping[str, object] = adapter.dump_python(value, mode="json", by_alias=True, warnings="error")
    return values


_PLAIN = frozenset((bool, int, float, str, Decimal, UUID, date, datetime))
"""The types whose values can always be serialized."""


def _is_plain(column: AnyColumn, field: FieldInfo) -> bool:
    """Whether the column's values are read and serialized without code of the user's."""
    own = type(column.type).__module__.startswith("dotmac_database.")
    return (
        all(each in _PLAIN or isinstance(each, EnumMeta) for each in _alternatives(field))
        and not _serializes(field)
        and (own or not converts(column.type))
    )


def row_type(schema: type[BaseModel], related: Mapping[str, Annotation] | None = None) -> Annotation:
    """The type of a row as a dict, which needs no validation. Its UUIDs are texts: see `uuids_of`.

    ``related`` are the types of related rows, by name. With them, each key of the dict may be missing.
    """
    make: Annotation = TypedDict  # type checkers need literal fields, and these are known only at run time
    texts = {key: _text(schema.model_fields[key]) for key in uuids_of(schema)}
    own = {key: texts.get(key) or _annotation(field) for key, field in schema.model_fields.items()}
    return make("Row", {**own, **(related or {})}, total=related is None)


def uuids_of(schema: type[BaseModel]) -> list[str]:
    """The columns with UUIDs, which become texts before they are serialized.

    The JSON is the same, and Pydantic is slow with the UUIDs of asyncpg, which are instances of a subclass.
    """
    alternatives = {key: _alternatives(field) for key, field in schema.model_fields.items()}
    return [key for key, field in schema.model_fields.items() if alternatives[key] == {UUID} and not _serializes(field)]


def _text(field: FieldInfo) -> Annotation:
    """The type of a UUID's text, which is None only where the schema allows None."""
    return str | None if type(None) in get_args(field.annotation) else str


def _alternatives(field: FieldInfo) -> set[Annotation]:
    """The types of a field's values, without None."""
    return set(get_args(field.annotation) or (field.annotation,)) - {type(None)}


def _serializes(field: FieldInfo) -> bool:
    """Whether the metadata of a field can have a serializer."""
    return any(hasattr(each, "__get_pydantic_core_schema__") for each in field.metadata)


def _annotation(field: FieldInfo) -> Annotation:
    """A field's type with its metadata, such as serializers, which Pydantic stores apart from the type."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def reader(keys: tuple[str, ...], uuids: Sequence[str]) -> Callable[[Sequence[object]], list[dict[str, Any]]]:
    """A function that makes dicts of these columns from entities, or from rows that are dicts already.

    The ``uuids`` become texts. A value that is none raises `PydanticSerializationError`.
    """
    # itemgetter returns a tuple only for two or more keys.
    values: Callable[[Mapping[str, object]], tuple[object, ...]] = (
        itemgetter(*keys) if len(keys) > 1 else lambda row: tuple(row[key] for key in keys)
    )

    def read(entities: Sequence[object]) -> list[dict[str, Any]]:
        if entities and type(entities[0]) is dict:
            rows = [{**cast("dict[str, Any]", entity)} for entity in entities]
        else:
            try:
                rows = [dict(zip(keys, values(instance_dict(entity)), strict=True)) for entity in entities]
            except KeyError:  # a column that is not loaded, such as a deferred one
                rows = [{key: getattr(entity, key) for key in keys} for entity in entities]
        for key in uuids:
            for row in rows:
                value = row[key]
                if isinstance(value, UUID):
                    row[key] = str(value)
                elif value is not None:
                    raise PydanticSerializationError(f"{key} is no UUID")
        return rows

    return read
