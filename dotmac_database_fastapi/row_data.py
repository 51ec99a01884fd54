"""The data of rows on the way from a request to a repository."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from .aliases import Data


def with_values(data: Data, values: Mapping[str, object]) -> Data:
    """A copy of the data with these fields set."""
    data = _unmapped(data)
    return data.model_copy(update=values) if isinstance(data, BaseModel) else {**data, **values}


def without_fields(data: Data, names: frozenset[str]) -> Data:
    """A copy of the data in which these fields are not set. If a schema requires one of them, it is None."""
    data = _unmapped(data)
    if not isinstance(data, BaseModel):
        return {name: value for name, value in data.items() if name not in names}
    declared = names & type(data).model_fields.keys()
    copy = data.model_copy(update=dict.fromkeys(declared))
    copy.model_fields_set.difference_update(declared)
    return copy


def member(data: Data, name: str, default: object) -> object:
    """The value of a field in the data; ``default`` if the data have no such field."""
    if isinstance(data, Mapping):
        return data.get(name, default)
    has = name in type(data).model_fields or name in (data.model_extra or {})
    return getattr(data, name) if has else default


def _unmapped(data: Data) -> Data:
    """The set fields of an object of SQLModel's that is mapped, as a dict: a mapped object can't be copied."""
    if isinstance(data, BaseModel) and hasattr(data, "__table__"):
        return {name: getattr(data, name) for name in data.model_fields_set}
    return data
