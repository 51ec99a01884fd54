"""Pydantic models derived from a mapped class, for creating, updating and reading rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    create_model,
)
from pydantic_core import to_jsonable_python
from sqlalchemy import Column
from sqlalchemy import types as sa
from sqlalchemy.sql.visitors import iterate

from dotmac_database import Traits, traits_of

from .aliases import Annotation, AnyColumn, ColumnType, JsonObject
from .binary import AnyJsonValue, with_base64, without_encoding
from .declared import UNKNOWN, narrower, plain_type, value_type
from .fields import public_columns, python_type
from .json_types import Documented, DocumentedAs, json_type, written_type
from .keys import SEGMENT

_WRITTEN = ConfigDict(extra="forbid")
_READ = ConfigDict(from_attributes=True)


@lru_cache(maxsize=1024)
def create_schema_of(model: type) -> type[BaseModel]:
    """The schema of a new row. Unknown keys are refused.

    It has all public columns except those of the tenant, audit, soft deletion and version, and except the primary key,
    unless only the client can supply it.
    """
    return _model(model, "Create", _new_fields(model), _WRITTEN)


def child_schema_of(parent: type, model: type, filled: frozenset[str]) -> type[BaseModel]:
    """As `create_schema_of`, for a new row of ``model`` in the body of its parent, whose key fills some columns."""
    return _child_schema(parent, model, filled)


@lru_cache(maxsize=1024)
def _child_schema(parent: type, model: type, filled: frozenset[str]) -> type[BaseModel]:
    fields = {key: field for key, field in _new_fields(model).items() if key not in filled}
    return create_model(
        f"{model.__name__}CreateIn{parent.__name__}", __config__=_WRITTEN, __module__=model.__module__, **fields
    )


def _new_fields(model: type) -> JsonObject:
    traits: Traits[object] = traits_of(model)
    columns = {**_natural_key(traits), **_written(traits)}
    return {key: _created(traits, key, column) for key, column in columns.items()}


@lru_cache(maxsize=1024)
def update_schema_of(model: type) -> type[BaseModel]:
    """The schema of a change. No field is required, and a field that is not sent is not changed."""
    traits: Traits[object] = traits_of(model)
    fields = {
        key: (_annotation(traits, key, column, stored=True), _unset()) for key, column in _written(traits).items()
    }
    return _model(model, "Update", fields, _WRITTEN)


def keyed_schema_of(model: type, schema: type[BaseModel], parts: Iterable[str]) -> type[BaseModel]:
    """The schema of a change that contains the primary key of its row, whose columns ``parts`` are required."""
    return _keyed_schema(model, schema, tuple(parts))


@lru_cache(maxsize=1024)
def _keyed_schema(model: type, schema: type[BaseModel], parts: tuple[str, ...]) -> type[BaseModel]:
    traits: Traits[object] = traits_of(model)
    fields: JsonObject = {key: (_annotation(traits, key, traits.columns[key], stored=True), ...) for key in parts}
    return create_model(f"{schema.__name__}WithKey", __base__=schema, __module__=schema.__module__, **fields)


@lru_cache(maxsize=1024)
def read_schema_of(model: type) -> type[BaseModel]:
    """The schema of a row in responses: all public columns except the tenant's and those of soft deletion.

    They have the same values in all rows that a client can read.
    """
    traits: Traits[object] = traits_of(model)
    alike = {traits.tenant, traits.is_deleted, traits.deleted_at}
    if traits.primary_key == (traits.tenant,):
        alike.remove(traits.tenant)
    columns = {key: column for key, column in public_columns(traits).items() if key not in alike}
    fields = {key: (_annotation(traits, key, column), ...) for key, column in columns.items()}
    return _model(model, "Read", fields, _READ)


def list_of(item: Annotation) -> Annotation:
    """The type of a list of such items, which type checkers accept only for types that they know."""
    kind: Annotation = list
    return kind[item]


def _model(model: type, word: str, fields: Mapping[str, Any], config: ConfigDict) -> type[BaseModel]:
    # The module distinguishes two classes of one name in OpenAPI.
    return create_model(f"{model.__name__}{word}", __config__=config, __module__=model.__module__, **fields)


def _unset() -> object:
    """A field without a documented default: it is not changed if it is not sent."""
    return Field(default=None, json_schema_extra=_without_default)


def _without_default(schema: JsonObject) -> None:
    schema.pop("default", None)


def _written(traits: Traits[object]) -> dict[str, AnyColumn]:
    withheld = {
        *traits.primary_key,
        traits.tenant,
        traits.is_deleted,
        traits.deleted_at,
        traits.created_at,
        traits.updated_at,
        traits.created_by,
        traits.updated_by,
        traits.version,
        *_of_inheritance(traits),
    }
    return {
        key: column for key, column in public_columns(traits).items() if key not in withheld and _may_be_set(column)
    }


def _may_be_set(column: AnyColumn) -> bool:
    return column.computed is None and (column.identity is None or not column.identity.always)


def _of_inheritance(traits: Traits[object]) -> Iterator[str]:
    """The columns that the ORM fills: the discriminator, and the foreign keys to the rows of parent classes."""
    mapper = traits.mapper
    filled: set[object] = {mapper.polymorphic_on}
    for level in mapper.iterate_to_root():
        if level.inherit_condition is not None:
            own = set(level.local_table.columns)
            filled |= {part for part in iterate(level.inherit_condition) if part in own}
    yield from (key for key, column in traits.columns.items() if column in filled)


def _natural_key(traits: Traits[object]) -> dict[str, AnyColumn]:
    """The primary key columns that only the client can supply."""
    return {
        key: traits.columns[key] for key in traits.primary_key if key != traits.tenant and not _fills_key(traits, key)
    }


def _fills_key(traits: Traits[object], key: str) -> bool:
    """Whether a primary key column is filled by a default, in any of the tables of a joined class."""
    root: Traits[object] = traits_of(traits.mapper.base_mapper.class_)
    return key in (traits.makes_uuid, root.makes_uuid) or any(
        isinstance(column, Column) and Traits.fills_itself(column) for column in traits.mapper.column_attrs[key].columns
    )


def _created(traits: Traits[object], key: str, column: AnyColumn) -> tuple[Annotation, object]:
    annotation = _annotation(traits, key, column, stored=True)
    if key in traits.primary_key and isinstance(column.type, sa.String):
        annotation = Annotated[annotation, Documented(SEGMENT)]
    if not column.nullable and not Traits.fills_itself(column):
        return annotation, ...
    default: Any = column.default
    if default is not None and default.is_scalar and not isinstance(default.arg, bytes):
        return annotation, _column_default(default.arg)
    return annotation, _unset()


def _column_default(value: object) -> object:
    """A field whose default is only documented. The column itself applies it when the row is inserted.

    Thus a subclass (with the discriminator of an inheritance) or the repository can insert another value.
    """
    shown = to_jsonable_python(value, fallback=str, bytes_mode="base64")
    return Field(default=None, json_schema_extra=lambda schema: schema.update(default=shown))


def _annotation(traits: Traits[object], key: str, column: AnyColumn, *, stored: bool = False) -> Annotation:
    annotation, metadata = _declared(traits, key)
    if annotation is None or _says_no_more(annotation, column):
        annotation = _of_column(traits, key, column, stored=stored)
    elif stored and _holds_json(column.type):
        metadata = (*metadata, _AS_JSON)
    if column.nullable:
        annotation = annotation | None
    return Annotated[(annotation, *metadata)] if metadata else annotation


def _says_no_more(annotation: Annotation, column: AnyColumn) -> bool:
    """Whether the annotation of an SQLModel class is just the Python type of the column type."""
    parts = [part for part in get_args(annotation) if part is not type(None)] or [annotation]
    optional = type(None) in get_args(annotation)
    return len(parts) == 1 and parts[0] is python_type(column.type) and (bool(column.nullable) or not optional)


def _of_column(traits: Traits[object], key: str, column: AnyColumn, *, stored: bool) -> Annotation:
    """The type of a column's values in requests (``stored``) or in responses.

    Responses do not enforce the class's own annotations: one row that violates them must not make a whole list fail.
    """
    behind, values = json_type(column.type, written=stored), value_type(traits, key)
    if values is UNKNOWN:
        return behind if stored else Annotated[AnyJsonValue, DocumentedAs(behind)]
    if values is not None:
        return with_base64(written_type(values) if stored else values)
    narrow = narrower(traits, key)
    if narrow is None:
        return behind
    if isinstance(column.type, sa.JSON):
        return Annotated[with_base64(narrow), _AS_JSON] if stored else behind
    if not stored:
        return Annotated[behind, DocumentedAs(narrow)]
    origin: Annotation = get_origin(narrow)
    is_constrained = origin is Annotated
    return Annotated[(behind, *get_args(narrow)[1:])] if is_constrained else narrow


def _holds_json(type_: ColumnType) -> bool:
    """Whether a column stores JSON values as they are, without a decorator that converts them."""
    converts = isinstance(type_, sa.TypeDecorator) and (
        type(type_).process_bind_param is not sa.TypeDecorator.process_bind_param
    )
    return isinstance(plain_type(type_), sa.JSON) and not converts


_AS_JSON = AfterValidator(partial(to_jsonable_python, bytes_mode="base64"))
"""Converts sets, dates and objects, which a class may declare for a JSON column, to plain JSON for storage."""


def _declared(traits: Traits[object], key: str) -> tuple[Annotation, tuple[object, ...]]:
    """The type and the constraints that an SQLModel class declares; None for other classes."""
    declared = traits.model.model_fields.get(key) if issubclass(traits.model, BaseModel) else None
    if declared is None or declared.annotation in (None, Any):
        return None, ()
    # The metadata includes SQLModel's own column options.
    metadata = [each for each in declared.metadata if not type(each).__module__.startswith("sqlmodel")]
    return with_base64(declared.annotation), tuple(without_encoding(metadata))
