"""Pydantic models derived from a mapped class: what is created, what is changed, what is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

from .binary import Whatever, with_base64, without_encoding
from .declared import UNKNOWN, narrower, plain_type, value_type
from .fields import public_columns, python_type
from .json_types import Documented, DocumentedAs, json_type, written_type
from .keys import SEGMENT

_WRITTEN = ConfigDict(extra="forbid")
_READ = ConfigDict(from_attributes=True)


@lru_cache(maxsize=1024)
def create_schema_of(model: type) -> type[BaseModel]:
    """What a client may set of a new row; unknown keys are refused.

    All public columns but the primary key (unless nothing else would fill it), tenant, audit, soft-delete and version.
    """
    traits: Traits[Any] = traits_of(model)
    columns = {**_natural_key(traits), **_written(traits)}
    fields = {key: _created(traits, key, column) for key, column in columns.items()}
    return _model(model, "Create", fields, _WRITTEN)


@lru_cache(maxsize=1024)
def update_schema_of(model: type) -> type[BaseModel]:
    """What a client may change of a row: nothing is required, and what is not set stays."""
    traits: Traits[Any] = traits_of(model)
    fields = {
        key: (_annotation(traits, key, column, stored=True), _unset()) for key, column in _written(traits).items()
    }
    return _model(model, "Update", fields, _WRITTEN)


@lru_cache(maxsize=1024)
def read_schema_of(model: type) -> type[BaseModel]:
    """What a client sees of a row: all public columns."""
    traits: Traits[Any] = traits_of(model)
    fields = {key: (_annotation(traits, key, column), ...) for key, column in public_columns(traits).items()}
    return _model(model, "Read", fields, _READ)


def _model(model: type, word: str, fields: Mapping[str, Any], config: ConfigDict) -> type[BaseModel]:
    # The module is what tells two classes of one name apart in OpenAPI.
    return create_model(f"{model.__name__}{word}", __config__=config, __module__=model.__module__, **fields)


def _unset() -> Any:
    """The default of a field that is left alone where it is not set: none that a client should see."""
    return Field(default=None, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _written(traits: Traits[Any]) -> dict[str, Column[Any]]:
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


def _may_be_set(column: Column[Any]) -> bool:
    return column.computed is None and (column.identity is None or not column.identity.always)


def _of_inheritance(traits: Traits[Any]) -> Iterator[str]:
    """The columns that the ORM fills: which class a row is of, and the keys that lead to the rows of its parents."""
    mapper = traits.mapper
    filled: set[Any] = {mapper.polymorphic_on}
    for level in mapper.iterate_to_root():
        if level.inherit_condition is not None:
            own = set(level.local_table.columns)
            filled |= {part for part in iterate(level.inherit_condition) if part in own}
    yield from (key for key, column in traits.columns.items() if column in filled)


def _natural_key(traits: Traits[Any]) -> dict[str, Column[Any]]:
    """The parts of the primary key that only the client can know."""
    return {
        key: traits.columns[key] for key in traits.primary_key if key != traits.tenant and not _fills_key(traits, key)
    }


def _fills_key(traits: Traits[Any], key: str) -> bool:
    """Whether something fills a part of the key; in a row of several tables it is the key of each of them."""
    root: Traits[Any] = traits_of(traits.mapper.base_mapper.class_)
    return key in (traits.makes_uuid, root.makes_uuid) or any(
        isinstance(column, Column) and _filled(column) for column in traits.mapper.column_attrs[key].columns
    )


def _filled(column: Column[Any]) -> bool:
    """Whether something fills the column where nobody gives a value."""
    table: Any = column.table
    return (
        column.default is not None
        or column.server_default is not None
        or column.identity is not None
        or column is getattr(table, "autoincrement_column", None)
    )


def _created(traits: Traits[Any], key: str, column: Column[Any]) -> tuple[Any, Any]:
    annotation = _annotation(traits, key, column, stored=True)
    if key in traits.primary_key and isinstance(column.type, sa.String):
        annotation = Annotated[annotation, Documented(SEGMENT)]
    if not column.nullable and not _filled(column):
        return annotation, ...
    default: Any = column.default
    if default is not None and default.is_scalar and not isinstance(default.arg, bytes):
        return annotation, _column_default(default.arg)
    return annotation, _unset()


def _column_default(value: Any) -> Any:
    """A field that a client sees with its column's default, which the column applies by itself: it is not the row's.

    A subclass may write another one (the discriminator of an inheritance), and so may the repository.
    """
    shown = to_jsonable_python(value, fallback=str, bytes_mode="base64")
    return Field(default=None, json_schema_extra=lambda schema: schema.update(default=shown))


def _annotation(traits: Traits[Any], key: str, column: Column[Any], *, stored: bool = False) -> Any:
    annotation, metadata = _declared(traits, key)
    if annotation is None or _says_no_more(annotation, column):
        annotation = _of_column(traits, key, column, stored=stored)
    elif stored and _holds_json(column.type):
        metadata = (*metadata, _AS_JSON)
    if column.nullable:
        annotation = annotation | None
    return Annotated[(annotation, *metadata)] if metadata else annotation


def _says_no_more(annotation: Any, column: Column[Any]) -> bool:
    """Whether what an SQLModel class declares is just the class of its column's values."""
    parts = [part for part in get_args(annotation) if part is not type(None)] or [annotation]
    optional = type(None) in get_args(annotation)
    return len(parts) == 1 and parts[0] is python_type(column.type) and (bool(column.nullable) or not optional)


def _of_column(traits: Traits[Any], key: str, column: Column[Any], *, stored: bool) -> Any:
    """The type of a column's values, written (``stored``) or read.

    What is read is shown even where it is not as the class says: one odd row must not take a list away.
    """
    behind, values = json_type(column.type, written=stored), value_type(traits, key)
    if values is UNKNOWN:
        return behind if stored else Annotated[Whatever, DocumentedAs(behind)]
    if values is not None:
        return with_base64(written_type(values) if stored else values)
    narrow = narrower(traits, key)
    if narrow is None:
        return behind
    if isinstance(column.type, sa.JSON):
        return Annotated[with_base64(narrow), _AS_JSON] if stored else behind
    if not stored:
        return Annotated[behind, DocumentedAs(narrow)]
    is_constrained = get_origin(narrow) is Annotated
    return Annotated[(behind, *get_args(narrow)[1:])] if is_constrained else narrow


def _holds_json(type_: sa.TypeEngine[Any]) -> bool:
    """Whether a column takes JSON's own values; a decorator that converts takes its own."""
    converts = isinstance(type_, sa.TypeDecorator) and (
        type(type_).process_bind_param is not sa.TypeDecorator.process_bind_param
    )
    return isinstance(plain_type(type_), sa.JSON) and not converts


_AS_JSON = AfterValidator(partial(to_jsonable_python, bytes_mode="base64"))
"""What a class declares of a JSON column may be sets, dates and objects: they are stored as they were written."""


def _declared(traits: Traits[Any], key: str) -> tuple[Any, tuple[Any, ...]]:
    """The type that an SQLModel class declares and its constraints; None for other classes."""
    declared = traits.model.model_fields.get(key) if issubclass(traits.model, BaseModel) else None
    if declared is None or declared.annotation in (None, Any):
        return None, ()
    # SQLModel keeps its notes for columns there, too.
    metadata = [each for each in declared.metadata if not type(each).__module__.startswith("sqlmodel")]
    return with_base64(declared.annotation), tuple(without_encoding(metadata))
