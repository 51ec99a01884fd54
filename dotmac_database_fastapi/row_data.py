"""The data of rows on the way from a request to a repository."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from .aliases import Data


def with_values(data: Data, values: Mapping[str, object]) -> Data:
    """A copy of the data with these fields set."""
    return data.model_copy(update=values) if isinstance(data, BaseModel) else {**data, **values}


def without_fields(data: Data, names: frozenset[str]) -> Data:
    """A copy of the data in which these fields are not set. If a schema requires one of them, it is None."""
    if not isinstance(data, BaseModel):
        return {name: value for name, value in data.items() if name not in names}
    declared = names & type(data).model_fields.keys()
    copy = data.model_copy(update=dict.fromkeys(declared))
    copy.model_fields_set.difference_update(declared)
    return copy
