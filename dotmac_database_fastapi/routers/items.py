"""The endpoints of single rows: create, read, update, delete and restore."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request, Response

from dotmac_database import StaleEntityError

from ..aliases import Data, Endpoint, JsonObject, Repository, Schema
from ..answers import ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION, REPLAYED
from ..etags import etag_of, expected_version, is_unchanged, matched_versions
from ..hidden_bodies import refuse_hidden
from ..idempotency import Replays
from ..internals import accept_query
from ..merge_patch import merge_patch_of
from ..nested import Nested
from ..options import Operation
from ..preferences import prefers_minimal
from ..query_string import openapi_parameters, selection_of
from ..ruling import RULED
from ..selected_rows import RowRenderer
from ..statuses import BODILESS, DeleteBody, check_delete, delete_json, documented_delete
from .resource import Resource, posting, written_responses


def add_create(resource: Resource, schema: Schema, nested: Nested, replays: Replays | None) -> None:
    """Add ``POST`` to the collection, whose body may contain the children of ``nested``."""
    key, references, hooks = resource.key, resource.references, resource.hooks
    is_plain, status = not nested and not hooks.has("create"), resource.statuses["create"]

    async def create_row(request: Request, data: Any, repository: Repository) -> Response:
        seen = resource
        if RULED in request.scope:
            seen = resource.seen_by(repository)
            refuse_hidden(resource.traits, data, seen.hidden)
            nested.refuse_hidden(data, seen.hidden)
        key.refuse_unreachable(data)
        row: Data = data if is_plain else await hooks.before_create(data, repository)
        row, children = nested.split(row, data) if nested else (row, {})
        checked = await references.before_create(repository, row)
        with resource.last_write(request, repository, "create", also=is_plain and key.always_reachable) as last:
            entity = await repository.create(row)
        await references.after(repository, entity, checked, created=True)
        created = await nested.create(repository, entity, children) if nested else {}
        if not is_plain:
            await resource.call_after("create", entity, repository)
        entity = await seen.loaded(repository, entity)
        headers = {"Location": key.location(request, entity, data)}
        if RULED in request.scope:
            seen.note(request, [entity])
        if status in BODILESS or prefers_minimal(request):
            return seen.minimal(entity, status, headers)
        body = seen.renderer.one(entity, committed=last and not repository.db.in_transaction())
        body = nested.shown(seen.renderer, body, created, seen.hidden) if nested else body
        return seen.response(body, entity, status, headers)

    endpoint = posting(create_row, resource, replays)
    endpoint.__annotations__["data"] = nested.create_schema(schema)
    endpoint.__name__ = "create"
    headers = {"Location": LOCATION, **({} if replays is None else {"Idempotency-Replayed": REPLAYED})}
    # 400: the body is not valid UTF-8. 403: a schema of the user's may contain the tenant, and name another one.
    problems = {400, 409, 422, *resource.problems_of_tenant(schema)}
    shown = nested.read_schema(resource.renderer)
    _add(resource, "create", "POST", resource.path, endpoint, status, problems, {**headers, **_tag(resource)}, shown)


def add_read(resource: Resource) -> None:
    """Add ``GET`` of a row."""
    get_key, selects = resource.key.dependency(), resource.selects

    async def read(
        request: Request, parts: JsonObject = Depends(get_key), repository: Repository = Depends(resource.get_rows)
    ) -> Response:
        key = resource.key.of(parts, repository.tenant_id)
        seen = resource.seen_by(repository) if RULED in request.scope else resource
        shown: RowRenderer = seen.renderer
        if seen.selects is not None:
            shown = seen.selects.of(selection_of(request, seen.selects.params))
        entity = await shown.get(repository, key)
        if _has_tag_of_all(resource, shown):
            tag = etag_of(resource.traits, entity)
            if tag is not None and is_unchanged(request, tag):
                return Response(status_code=304, headers={"ETag": tag})
        return resource.response(shown.one(entity), entity, 200)

    if selects is not None:
        accept_query(read, selects.params.known)
    _add(resource, "read", "GET", resource.key.path, read, 200, {404, 422}, _tag(resource))


def add_update(resource: Resource, schema: Schema) -> None:
    """Add ``PATCH`` of a row, or ``PUT``."""
    get_key, references, hooks = resource.key.dependency(), resource.references, resource.hooks
    is_plain, status = not hooks.has("update"), resource.statuses["update"]
    method = resource.options.update_method
    schema = resource.changes(schema)
    patch = merge_patch_of(resource.traits, schema) if method == "PATCH" else None

    async def update(
        request: Request,
        data: Any,
        parts: JsonObject = Depends(get_key),
        repository: Repository = Depends(resource.get_rows),
    ) -> Response:
        key = resource.key.of(parts, repository.tenant_id)
        seen = resource
        if RULED in request.scope:
            seen = resource.seen_by(repository)
            refuse_hidden(resource.traits, data, seen.hidden)
        if patch is not None:
            data = await patch.data(request, data, repository, key)
        resource.key.refuse_unreachable(data)
        expected = await _expected(resource, request, repository, key)
        row: Data = data if is_plain else await hooks.before_update(key, data, repository)
        checked = await references.before_update(repository, key, row)
        with resource.last_write(request, repository, "update", also=is_plain) as last:
            entity = await repository.update(key, row, expected_version=expected)
        await references.after(repository, entity, checked, created=False)
        if not is_plain:
            await resource.call_after("update", entity, repository)
        entity = await seen.loaded(repository, entity)
        return _written(seen, request, entity, repository, status, is_last=last)

    update.__annotations__["data"] = schema if patch is None else patch.body
    problems = {400, 404, 409, 422, *resource.problems_of_tenant(schema), *_of_version(resource)}
    _add(resource, "update", method, resource.key.path, update, status, problems, _tag(resource))


def add_delete(resource: Resource) -> None:
    """Add ``DELETE`` of a row."""
    get_key, hooks = resource.key.dependency(), resource.hooks
    is_plain, status = not hooks.has("delete"), resource.statuses["delete"]
    deleted = resource.options.delete_body
    check_delete(status, deleted)
    fixed = None if deleted is None or deleted is DeleteBody.ROW else delete_json(deleted)

    async def delete(
        request: Request, parts: JsonObject = Depends(get_key), repository: Repository = Depends(resource.get_rows)
    ) -> Response:
        key = resource.key.of(parts, repository.tenant_id)
        expected = await _expected(resource, request, repository, key)
        # Without If-Match the argument is omitted: a user's repository may override delete() without it.
        version: dict[str, Any] = {} if expected is None else {"expected_version": expected}
        if not is_plain:
            await hooks.before_delete(key, repository)
        body = fixed
        if deleted is DeleteBody.ROW:
            seen = resource.seen_by(repository) if RULED in request.scope else resource
            body = seen.renderer.one(await seen.renderer.get(repository, key))
        with resource.last_write(request, repository, "delete", also=is_plain):
            exists = await repository.delete(key, **version)
        if not exists:
            raise resource.missing()
        if not is_plain:
            await hooks.after("delete", key, repository)
        return Response(body, status, media_type=None if body is None else "application/json")

    problems = {404, 409, 422, *_of_version(resource)}
    _add(resource, "delete", "DELETE", resource.key.path, delete, status, problems, {})


def add_restore(resource: Resource) -> None:
    """Add ``POST /{id}/restore``, which undoes a soft deletion."""
    get_key, status = resource.key.dependency(), resource.statuses["restore"]

    async def restore(
        request: Request, parts: JsonObject = Depends(get_key), repository: Repository = Depends(resource.get_rows)
    ) -> Response:
        seen = resource.seen_by(repository) if RULED in request.scope else resource
        with resource.last_write(request, repository, "restore") as last:
            entity = await repository.restore(resource.key.of(parts, repository.tenant_id))
        entity = await seen.loaded(repository, entity)
        return _written(seen, request, entity, repository, status, is_last=last)

    path = f"{resource.key.path}/restore"
    _add(resource, "restore", "POST", path, restore, status, {404, 409, 422}, _tag(resource))


def _written(
    resource: Resource, request: Request, entity: object, repository: Repository, status: int, *, is_last: bool
) -> Response:
    """The response to a change of a row. ``is_last``: the write may be committed already."""
    if status in BODILESS or prefers_minimal(request):
        return resource.minimal(entity, status)
    body = resource.renderer.one(entity, committed=is_last and not repository.db.in_transaction())
    return resource.response(body, entity, status)


async def _expected(resource: Resource, request: Request, repository: Repository, key: object) -> object:
    """The version that ``If-Match`` requires; None: any version."""
    versions = matched_versions(request)
    if versions is None:
        return None
    if len(versions) == 1:
        try:
            return expected_version(resource.traits, versions)
        except StaleEntityError:
            if not await repository.exists(key):
                raise resource.missing() from None
            raise
    current = await resource.renderer.loading(repository).get_by_id_or_raise(key)
    tag = etag_of(resource.traits, current)
    held = frozenset() if tag is None else versions & {tag.strip('"')}
    return expected_version(resource.traits, held)


def _has_tag_of_all(resource: Resource, shown: RowRenderer) -> bool:
    """Whether the ``ETag`` changes with everything that the response to a GET contains."""
    return resource.traits.version is not None and shown.of_row_alone


def _of_version(resource: Resource) -> set[int]:
    return set() if resource.traits.version is None else {412}


def _tag(resource: Resource) -> JsonObject:
    """The header ``ETag`` for OpenAPI; empty if the class has no version."""
    return {} if resource.traits.version is None else {"ETag": ETAG}


def _add(
    resource: Resource,
    operation: Operation,
    method: str,
    path: str,
    endpoint: Endpoint,
    status: int,
    problems: set[int],
    headers: JsonObject,
    shown: Schema | None = None,
) -> None:
    """Add an endpoint of one row. ``shown`` is the schema of the response; None: the read schema."""
    name, verb = resource.traits.name, "get" if operation == "read" else operation
    parameters, responses = list[JsonObject](), dict[int | str, JsonObject]()
    if operation == "read" and resource.selects is not None:
        shown = resource.selects.params.documented
        parameters += openapi_parameters(resource.selects.params.openapi())
    row = {"model": shown or resource.renderer.schema, "description": f"The {name}."}
    if operation == "read":
        responses[status] = {**row, "headers": headers} if headers else row
    elif operation == "delete":
        deleted = resource.options.delete_body
        described = {} if deleted is None else documented_delete(deleted, resource.renderer.schema)
        responses[status] = {"description": f"The {name} was deleted.", **described}
    else:
        parameters, responses = written_responses(status, row, headers)
    if operation in ("update", "delete") and resource.traits.version is not None:
        parameters = [IF_MATCH, *parameters]
    if operation == "read" and _has_tag_of_all(resource, resource.renderer):
        parameters.append(IF_NONE_MATCH)
        responses[304] = {"description": "The row still has this ETag.", "headers": headers}
    resource.add(
        operation,
        method,
        path,
        endpoint,
        status,
        problems,
        operation_id=f"{verb}{name}",
        summary=f"{verb.title()} {name}",
        responses=responses,
        parameters=parameters,
    )
