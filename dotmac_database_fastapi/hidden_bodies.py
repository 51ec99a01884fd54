"""Refuses data of hidden columns in the body of a request, as a schema without these fields would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from dotmac_database import Traits

from .body_hints import UNKNOWN
from .bounds import RefusedRequestError
from .hiding import Hidden
from .merge_patch import Refusal
from .read_only import aliases_of


def refuse_hidden(
    traits: Traits[object], data: object, hidden: Hidden, place: tuple[str | int, ...] = ("body",)
) -> None:
    """Raise `RefusedRequestError` for fields that are written to hidden columns, as for fields that no schema has.

    ``data`` is the data of a row, or those of several rows. ``place`` is where they are in the request.
    """
    names = hidden.of(traits)
    if not names:
        return
    several = isinstance(data, Sequence) and not isinstance(data, (str, bytes))
    faults: list[dict[str, object]] = []
    for index, each in enumerate(data if isinstance(data, Sequence) and several else [data]):
        where = (*place, index) if several else place
        for name, value in _sent(each, traits, names):
            message = "Extra inputs are not permitted"
            faults.append({"type": UNKNOWN, "loc": (*where, name), "msg": message, "input": value})
    if faults:
        raise RefusedRequestError(faults)


def _sent(data: object, traits: Traits[object], names: frozenset[str]) -> list[tuple[str, object]]:
    """The fields of the data for hidden columns, by their names in the request, with their values."""
    if isinstance(data, Refusal):
        data = data.body
    if isinstance(data, Mapping):
        return [(name, value) for name, value in data.items() if _attribute(traits, name) in names]
    if not isinstance(data, BaseModel):
        return []
    fields = type(data).model_fields
    sent = {
        key: next((each for each in aliases_of(key, fields[key]) if isinstance(each, str)), key)
        for key in fields
        if key in data.model_fields_set and _attribute(traits, key) in names
    }
    extra = {key: key for key in data.model_extra or {} if _attribute(traits, key) in names}
    return [(name, getattr(data, key)) for key, name in {**sent, **extra}.items()]


def _attribute(traits: Traits[object], name: str) -> str:
    synonym = traits.mapper.synonyms.get(name)
    return name if synonym is None else synonym.name
