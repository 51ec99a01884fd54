"""Reads the names and values of a row from a dict, a Pydantic object or an entity."""

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

DATA_TYPES = frozenset((str, int, float, bool, type(None), UUID, datetime, date, Decimal, bytes, dict, list))
"""The most frequent types of values. None of them is an SQL expression, so `is_sql` can answer at once."""


def is_sql(value: object) -> bool:
    """Whether a value is an SQL expression from the app's code, instead of data."""
    return type(value) not in DATA_TYPES and (isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"))


def data_of(traits: Traits[object], data: object) -> Mapping[Any, Any]:
    """The fields that are set in a dict, a Pydantic object or an entity. Raises `ValidationError` for other objects."""
    if type(data) is dict or isinstance(data, Mapping):
        return data
    if isinstance(data, BaseModel):
        names = data.model_fields_set - _excluded(traits, type(data))
        related = _loaded(data, traits.relationships) if isinstance(data, traits.model) else {}
        return {name: getattr(data, name) for name in names} | (data.model_extra or {}) | related
    if isinstance(data, traits.model):
        return _loaded(data, (*traits.columns, *traits.relationships))
    raise ValidationError(f"{traits.name}: a dict or a Pydantic object was expected, not {type(data).__name__}.")


def new_data_of(traits: Traits[object], data: object) -> tuple[Mapping[Any, object], frozenset[str]]:
    """The fields of a new row, and the names of those that only have the default of a Pydantic class.

    A default of None is left out, so that the column gets its own default, or NULL.
    """
    if not isinstance(data, BaseModel):
        return data_of(traits, data), _NO_NAMES
    if not isinstance(data, traits.model):
        names = type(data).model_fields.keys() - data.model_fields_set - _excluded(traits, type(data))
        unset = {name: value for name in names if (value := getattr(data, name)) is not None}
    elif sa_inspect(data).key is not None:
        return _loaded(
            data, (*traits.columns, *traits.relationships)
        ), _NO_NAMES  # a loaded entity has no defaults: it has the values of a row
    else:
        # The class's defaults are not used for the columns that the repository fills in.
        names = traits.columns.keys() - data.model_fields_set - traits.stamped - {traits.discriminator}
        unset = {name: value for name, value in _loaded(data, names).items() if value is not None}
    return {**unset, **data_of(traits, data)}, frozenset(unset)


def _loaded(entity: object, keys: Iterable[str]) -> Values:
    """The values of those attributes that an entity has loaded or set. Nothing is loaded here."""
    values: Values = sa_inspect(entity).dict
    return {key: values[key] for key in keys if key in values}


def _excluded(traits: Traits[object], schema: type[BaseModel]) -> frozenset[str]:
    """The fields that a schema excludes from its dumps (``exclude=True``), unless the mapped class has them."""

    def find() -> frozenset[str]:
        fields = schema.model_fields.items()
        mapped = traits.mapper.all_orm_descriptors
        return frozenset(name for name, field in fields if field.exclude is True and name not in mapped)

    return traits.cached(("excluded", schema), find)


_NO_NAMES: frozenset[str] = frozenset()


class NewRow(NamedTuple):
    """The values of a row to insert, and the keys of values that are only defaults of a Pydantic class."""

    values: Values
    unset: frozenset[str]
