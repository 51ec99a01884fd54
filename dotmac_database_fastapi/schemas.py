"""Pydantic models derived from a mapped class: what is created, what is changed, what is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_core import to_jsonable_python
from sqlalchemy import Column
from sqlalchemy import types as sa

from dotmac_database import Traits, traits_of

from .fields import plain_type, public_columns

_WRITTEN = ConfigDict(extra="forbid", val_json_bytes="base64", ser_json_bytes="base64")
_READ = ConfigDict(from_attributes=True, val_json_bytes="base64", ser_json_bytes="base64")

_FINITE: Any = Annotated[float, Field(allow_inf_nan=False)]
"""A number that JSON can show: it has neither infinities nor NaN."""

# The order matters: Float is a Numeric, Interval may wrap a DateTime.
_TYPES: tuple[tuple[type[sa.TypeEngine[Any]], Any], ...] = (
    (sa.Boolean, bool),
    (sa.Integer, int),
    (sa.Float, float),
    (sa.Numeric, Decimal),
    (sa.Uuid, UUID),
    (sa.Interval, timedelta),
    (sa.DateTime, datetime),
    (sa.Date, date),
    (sa.Time, time),
    (sa.LargeBinary, bytes),
)


@cache
def create_schema_of(model: type) -> type[BaseModel]:
    """What a client may set of a new row; unknown keys are refused.

    All public columns but the primary key (unless nothing else would fill it), tenant, audit, soft-delete and version.
    """
    traits: Traits[Any] = traits_of(model)
    columns = {**_natural_key(traits), **_written(traits)}
    fields = {key: _created(traits, key, column) for key, column in columns.items()}
    return _model(f"{model.__name__}Create", fields, _WRITTEN)


@cache
def update_schema_of(model: type) -> type[BaseModel]:
    """What a client may change of a row: nothing is required, and what is not set stays."""
    traits: Traits[Any] = traits_of(model)
    fields = {
        key: (_annotation(traits, key, column, stored=True), _unset()) for key, column in _written(traits).items()
    }
    return _model(f"{model.__name__}Update", fields, _WRITTEN)


@cache
def read_schema_of(model: type) -> type[BaseModel]:
    """What a client sees of a row: all public columns."""
    traits: Traits[Any] = traits_of(model)
    fields = {key: (_annotation(traits, key, column), ...) for key, column in public_columns(traits).items()}
    return _model(f"{model.__name__}Read", fields, _READ)


def _model(name: str, fields: Mapping[str, Any], config: ConfigDict) -> type[BaseModel]:
    return create_model(name, __config__=config, **fields)


def _unset() -> Any:
    """The default of a field that is left alone where it is not set: none that a client should see."""
    return Field(default=None, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _written(traits: Traits[Any]) -> dict[str, Column[Any]]:
    kept = {
        *traits.primary_key,
        traits.tenant,
        traits.is_deleted,
        traits.deleted_at,
        traits.created_at,
        traits.updated_at,
        traits.created_by,
        traits.updated_by,
        traits.version,
    }
    return {
        key: column for key, column in public_columns(traits).items() if key not in kept and column.computed is None
    }


def _natural_key(traits: Traits[Any]) -> dict[str, Column[Any]]:
    """The parts of the primary key that only the client can know."""
    return {
        key: traits.columns[key]
        for key in traits.primary_key
        if key not in (traits.tenant, traits.makes_uuid) and not _filled(traits.columns[key])
    }


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
    if not column.nullable and not _filled(column):
        return annotation, ...
    default: Any = column.default
    if default is not None and default.is_scalar:
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
    if annotation is None:
        annotation = _of_type(column.type)
    if stored and annotation is float:
        annotation = _FINITE
    if column.nullable:
        annotation = annotation | None
    return Annotated[(annotation, *metadata)] if metadata else annotation


def _declared(traits: Traits[Any], key: str) -> tuple[Any, tuple[Any, ...]]:
    """The type that an SQLModel class declares and its constraints; None for other classes."""
    declared = traits.model.model_fields.get(key) if issubclass(traits.model, BaseModel) else None
    if declared is None or declared.annotation in (None, Any):
        return None, ()
    # SQLModel keeps its notes for columns there, too.
    metadata = [each for each in declared.metadata if not type(each).__module__.startswith("sqlmodel")]
    return declared.annotation, tuple(metadata)


def _of_type(type_: sa.TypeEngine[Any]) -> Any:
    type_ = plain_type(type_)
    if isinstance(type_, sa.Enum):
        return Literal[tuple(type_.enums)] if type_.enum_class is None else type_.enum_class
    if isinstance(type_, sa.String):
        return str if type_.length is None else Annotated[str, Field(max_length=type_.length)]
    if isinstance(type_, sa.ARRAY):
        return list[_of_type(type_.item_type)]  # type: ignore[misc]  # a type that is known at run time
    for kind, annotation in _TYPES:
        if isinstance(type_, kind):
            return annotation
    return Any
