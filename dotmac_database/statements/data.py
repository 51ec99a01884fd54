"""Reads the names and values of a row from dicts, Pydantic objects and entities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.sql import ClauseElement

from ..errors import ValidationError
from ..models.traits import Traits

Values = dict[str, Any]

_DATA = frozenset((str, int, float, bool, type(None), UUID, datetime, date, Decimal, bytes, dict, list))
"""The most frequent types of values, none of which is an SQL expression."""


def is_sql(value: Any) -> bool:
    """Whether a value is an SQL expression of the programmer's instead of data."""
    return type(value) not in _DATA and (isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"))


def data_of(traits: Traits[Any], data: Any) -> Mapping[Any, Any]:
    """The fields that were set in a dict, a Pydantic object or an entity."""
    if type(data) is dict or isinstance(data, Mapping):
        return data
    if isinstance(data, BaseModel):
        names = data.model_fields_set - _excluded(traits, type(data))
        related = _held(data, traits.relationships) if isinstance(data, traits.model) else {}
        return {name: getattr(data, name) for name in names} | (data.model_extra or {}) | related
    if isinstance(data, traits.model):
        return _held(data, (*traits.columns, *traits.relationships))
    raise ValidationError(f"{traits.name}: a dict or a Pydantic object was expected, not {type(data).__name__}.")


def new_data_of(traits: Traits[Any], data: Any) -> tuple[Mapping[Any, Any], frozenset[str]]:
    """What a new row is made of, and the names in it that nobody has set: a Pydantic object's own defaults.

    A default of None is none: it leaves the column to its own default, or to NULL.
    """
    if not isinstance(data, BaseModel):
        return data_of(traits, data), _NOBODYS
    if not isinstance(data, traits.model):
        names = type(data).model_fields.keys() - data.model_fields_set - _excluded(traits, type(data))
        unset = {name: value for name in names if (value := getattr(data, name)) is not None}
    elif sa_inspect(data).key is not None:
        return _held(data, (*traits.columns, *traits.relationships)), _NOBODYS  # it was loaded, as the row is
    else:
        # What its class fills in for the repository to stamp, the repository stamps.
        names = traits.columns.keys() - data.model_fields_set - traits.stamped - {traits.discriminator}
        unset = {name: value for name, value in _held(data, names).items() if value is not None}
    return {**unset, **data_of(traits, data)}, frozenset(unset)


def _held(entity: Any, keys: Iterable[str]) -> Values:
    held: Values = sa_inspect(entity).dict
    return {key: held[key] for key in keys if key in held}


def _excluded(traits: Traits[Any], schema: type[BaseModel]) -> frozenset[str]:
    """The fields that a schema excludes from its dumps (``exclude=True``), unless the mapped class has them."""

    def find() -> frozenset[str]:
        fields = schema.model_fields.items()
        mapped = traits.mapper.all_orm_descriptors
        return frozenset(name for name, field in fields if field.exclude is True and name not in mapped)

    return traits.cached(("excluded", schema), find)


_NOBODYS: frozenset[str] = frozenset()


class NewRow(NamedTuple):
    """The values of a row to insert, and the keys that were not set explicitly."""

    values: Values
    unset: frozenset[str]
