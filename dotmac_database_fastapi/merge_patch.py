"""JSON Merge Patch (RFC 7396): a PATCH of its media type merges the objects in JSON columns, and replaces no object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Request
from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import to_jsonable_python
from sqlalchemy import types as sa

from dotmac_database import Traits

from .aliases import Annotation, Data, Repository, Schema
from .bounds import RefusedRequestError
from .declared import plain_type
from .read_only import aliases_of

MEDIA_TYPE = "application/merge-patch+json"

_MAX_DEPTH = 64
"""A repository refuses values that are nested deeper."""


def merged(target: object, patch: object) -> object:
    """What the JSON value ``patch`` makes of the JSON value ``target`` (RFC 7396, section 2). Neither is changed.

    Objects are merged with their members, of which null removes one. Any other value replaces the target. Deeper than
    64 levels nothing is merged: a repository refuses such a value.
    """
    return _merged(target, patch, _MAX_DEPTH)


def _merged(target: object, patch: object, levels: int) -> object:
    if not isinstance(patch, Mapping) or not levels:
        return patch
    members: dict[str, object] = {**target} if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            members.pop(name, None)
        else:
            members[name] = _merged(members.get(name), value, levels - 1)
    return members


def merge_patch_of(traits: Traits[object], schema: Schema) -> MergePatch | None:
    """The merge patches of an update schema; None if it has no JSON column, so that there is nothing to merge."""
    columns = dict(_json_columns(traits, schema))
    return MergePatch(traits, schema, columns) if columns else None


class MergePatch:
    """The merge patches of one update schema. ``columns`` are the JSON columns, by their names in a request's JSON.

    A patch may contain a part of an object that the schema accepts only as a whole. So the schema's verdict on the body
    counts only if nothing is merged; else the schema validates the body with the merged objects.
    """

    def __init__(self, traits: Traits[object], schema: Schema, columns: Mapping[str, str]) -> None:
        self._traits = traits
        self._schema = schema
        self.columns = columns

    @property
    def body(self) -> Annotation:
        """The annotation of an endpoint's body, which leaves the refusal of an invalid one to `data`."""
        return Annotated[self._schema, WrapValidator(_verdict)]

    async def data(self, request: Request, body: Data | Refusal, repository: Repository, key: object) -> Data:
        """The changes that the request makes to the row with this primary key. ``body`` is what `body` has made of it.

        If the request has the media type of a merge patch, and sets a JSON column to an object, the row is read with a
        lock by one statement, so that no other change can come between. Raises `RefusedRequestError` for an invalid
        body, and `EntityNotFoundError` if the row is to be read and does not exist.
        """
        patches = await self._patches(request) if _is_merge_patch(request) else {}
        if patches:
            rows = repository.for_update()
            row = await (rows.undefer() if self._traits.deferred else rows).get_by_id_or_raise(key)
            sent: dict[str, object] = await request.json()
            values = {name: merged(self._stored(row, name), patch) for name, patch in patches.items()}
            try:
                return self._schema.model_validate({**sent, **values}, from_attributes=True)
            except ValidationError as refused:
                body = Refusal(refused, sent, with_input=False)
        if isinstance(body, Refusal):
            raise body.error()
        return body

    async def _patches(self, request: Request) -> dict[str, Mapping[str, object]]:
        """The objects to merge, by their names in the request's JSON."""
        sent: object = await request.json()
        if not isinstance(sent, dict):
            return {}
        return {name: value for name, value in sent.items() if name in self.columns and isinstance(value, dict)}

    def _stored(self, row: object, name: str) -> object:
        """The JSON of a column's value, as responses have it."""
        return to_jsonable_python(getattr(row, self.columns[name]), bytes_mode="base64", fallback=str)


@dataclass(frozen=True)
class Refusal:
    """A body that does not fit the schema.

    ``with_input``: the errors contain the values that were refused. Those of a merge are not all the client's.
    """

    reason: ValidationError
    body: object
    with_input: bool = True

    def error(self) -> RefusedRequestError:
        """The exception that FastAPI would have raised."""
        faults = self.reason.errors(include_url=False, include_input=self.with_input)
        return RefusedRequestError([{**each, "loc": ("body", *each["loc"])} for each in faults], body=self.body)


def _verdict(sent: object, validate: ValidatorFunctionWrapHandler) -> object:
    try:
        return validate(sent)
    except ValidationError as refused:
        return Refusal(refused, sent)


def _is_merge_patch(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


def _json_columns(traits: Traits[object], schema: Schema) -> Iterator[tuple[str, str]]:
    """The names of the JSON columns in a request's JSON, with their attributes."""
    by_name = schema.model_config.get("populate_by_name") or schema.model_config.get("validate_by_name")
    for key, field in schema.model_fields.items():
        synonym = traits.mapper.synonyms.get(key)
        attribute = key if synonym is None else synonym.name
        column = traits.columns.get(attribute)
        if column is not None and isinstance(plain_type(column.type), sa.JSON):
            for name in (*aliases_of(key, field), *([key] if by_name else [])):
                if isinstance(name, str):  # a path leads to a part of another value
                    yield name, attribute
