"""The endpoints that create or update many rows: all of them, or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Body, Depends, Request, Response

from dotmac_database import PermissionDeniedError, ValidationError

from ..aliases import Data, Endpoint, JsonObject, Repository, Schema
from ..answers import REPLAYED, plural
from ..bounds import MAX_ROWS
from ..hidden_bodies import refuse_hidden
from ..idempotency import Replays
from ..options import Operation
from ..preferences import APPLIED, prefers_minimal
from ..refused_rows import row_at, written_together
from ..row_data import with_values
from ..ruling import RULED
from ..schemas import keyed_schema_of, list_of
from .resource import Resource, posting, written_responses

BULK = "bulk"
"""The last segment of the path of both endpoints. So it can't be the key of a row."""


def methods_of_bulk(operations: Collection[Operation]) -> list[str]:
    """The methods that the path has with these operations."""
    methods: dict[Operation, str] = {"bulk_create": "POST", "bulk_update": "PATCH"}
    return [method for operation, method in methods.items() if operation in operations]


def add_bulk_create(resource: Resource, schema: Schema, replays: Replays | None) -> None:
    """Add ``POST /bulk``, which creates up to `MAX_ROWS` rows by one INSERT for each set of their fields."""
    hooks, references = resource.hooks, resource.references

    async def create_rows(request: Request, data: Sequence[Any], repository: Repository) -> Response:
        seen = resource
        if RULED in request.scope:
            seen = resource.seen_by(repository)
            refuse_hidden(resource.traits, data, seen.hidden)
        rows: list[Data] = []
        for index, each in enumerate(data):
            with row_at(index):
                resource.key.refuse_unreachable(each)
                rows.append(await hooks.before_create(each, repository))
        checked = await references.before_create_many(repository, rows)
        entities = await written_together(
            repository,
            rows,
            lambda: repository.bulk_create(rows),
            lambda some: repository.bulk_create(some, returning=False),
        )
        await references.after_many(repository, entities, checked, created=True)
        await resource.call_after_many("create", entities, repository)
        if seen.renderer.relationships:
            keys = [resource.traits.key_of(entity) for entity in entities]
            entities = await _locked(resource, repository, keys, seen.renderer.relationships)
        if RULED in request.scope:
            seen.note(request, entities)
        return _response(seen, request, entities, 201)

    endpoint = posting(create_rows, resource, replays)
    endpoint.__name__ = "bulk_create"
    problems = {400, 409, 422, *resource.problems_of_tenant(schema)}
    headers = {} if replays is None else {"Idempotency-Replayed": REPLAYED}
    _add(resource, "create", endpoint, schema, 201, problems, headers)


def add_bulk_update(resource: Resource, schema: Schema) -> None:
    """Add ``PATCH /bulk``, which changes up to `MAX_ROWS` rows by one UPDATE for each set of changed fields.

    The rows are first locked, by one statement, and afterwards read, by one more.
    """
    hooks, references, parts = resource.hooks, resource.references, resource.key.parts

    async def bulk_update(request: Request, data: Any, repository: Repository = Depends(resource.get_rows)) -> Response:
        seen = resource
        if RULED in request.scope:
            seen = resource.seen_by(repository)
            refuse_hidden(resource.traits, data, seen.hidden)
        key_values = [{part: getattr(each, part) for part in parts} for each in data]
        _refuse_repeated(key_values)
        keys = [resource.key.of(each, repository.tenant_id) for each in key_values]
        stored = await _locked(resource, repository, keys)
        rows: list[Data] = []
        for index, each in enumerate(data):
            with row_at(index):
                row = await hooks.before_update(keys[index], each, repository)
                rows.append(with_values(row, key_values[index]))
        checked = await references.before_update_many(repository, rows, stored)
        await written_together(repository, rows, lambda: repository.bulk_update(rows), repository.bulk_update)
        entities = await _locked(resource, repository, keys, seen.renderer.relationships)
        await references.after_many(repository, entities, checked, created=False)
        await resource.call_after_many("update", entities, repository)
        return _response(seen, request, entities, 200)

    problems = {400, 404, 409, 422, *resource.problems_of_tenant(schema)}
    keyed = resource.changes(keyed_schema_of(resource.traits.mapper.class_, schema, parts))
    _add(resource, "update", bulk_update, keyed, 200, problems, {})


def _refuse_repeated(keys: Sequence[Mapping[str, object]]) -> None:
    """Raise `ValidationError` if two rows have the same primary key."""
    seen = set[tuple[object, ...]]()
    for index, key in enumerate(keys):
        values = tuple(key.values())
        if values in seen:
            with row_at(index):
                raise ValidationError("Two rows have the same primary key.", field=next(iter(key)))
        seen.add(values)


async def _locked(
    resource: Resource, repository: Repository, keys: Sequence[object], relationships: Sequence[str] = ()
) -> list[object]:
    """The rows with these primary keys as they are now, locked, with all columns and these relationships.

    One statement, and one for each relationship. Raises `EntityNotFoundError` for the first row that does not exist,
    and `PermissionDeniedError` if the actor can read it and may not change it.
    """
    rows = repository.for_update()
    if resource.traits.deferred:
        rows = rows.undefer()
    entities: list[object] = await rows.get_many(keys, relationships=relationships)
    if len(entities) < len(keys):
        existing = set(map(resource.traits.key_of, entities))
        first = next((index for index, key in enumerate(keys) if key not in existing), 0)
        with row_at(first):
            if repository.is_ruled and await repository.exists(keys[first]):
                raise PermissionDeniedError(f"The policy of {resource.traits.name} does not allow to update this row.")
            raise resource.missing()
    return entities


def _response(resource: Resource, request: Request, entities: Sequence[object], status: int) -> Response:
    if prefers_minimal(request):
        return Response(status_code=204 if status == 200 else status, headers=APPLIED)
    return Response(resource.renderer.many(entities), status, media_type="application/json")


def _add(
    resource: Resource,
    verb: str,
    endpoint: Endpoint,
    schema: Schema,
    status: int,
    problems: set[int],
    headers: JsonObject,
) -> None:
    body: Any = Annotated[list_of(schema), Body(min_length=1, max_length=MAX_ROWS)]
    endpoint.__annotations__["data"] = body
    names = plural(resource.traits.name)
    response = {"model": list_of(resource.renderer.schema), "description": f"The {names}, in the order of the request."}
    parameters, responses = written_responses(status, response, headers)
    resource.add(
        "bulk_create" if verb == "create" else "bulk_update",
        "POST" if verb == "create" else "PATCH",
        f"/{BULK}",
        endpoint,
        status,
        problems,
        operation_id=f"bulk{verb.title()}{names}",
        summary=f"{verb.title()} many {names}",
        responses=responses,
        parameters=parameters,
    )
