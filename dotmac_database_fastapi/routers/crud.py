"""`crud_router`: list, create, read, update, delete and restore the rows of a class."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Unpack

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy import String

from dotmac_database import (
    AsyncRepository,
    DatabaseTransaction,
    EntityNotFoundError,
    StaleEntityError,
    Traits,
    traits_of,
)

from ..aliases import Endpoint, JsonObject, Repository
from ..answers import (
    ETAG,
    IF_MATCH,
    IF_NONE_MATCH,
    LOCATION,
    PREFER,
    PREFERENCE_APPLIED,
    REPLAYED,
    describe_endpoint,
    plural,
)
from ..bodies import collection_path, router_of
from ..etags import etag_of, expected_version, is_unchanged, matched_versions
from ..heads import add_get, add_options
from ..idempotency import IDEMPOTENCY_KEY, Replays
from ..keys import PathKey
from ..options import CrudKeywords, CrudOptions, Operation, showing, with_keywords
from ..page_forms import PageForm
from ..preferences import APPLIED, prefers_minimal
from ..read_only import without_read_only
from ..references import References
from ..rendering import Renderer
from ..schemas import create_schema_of, update_schema_of
from ..sessions import can_end_with_write
from ..simple_rest import list_params
from ..statuses import BODILESS, DeleteBody, check_delete, delete_json, documented_delete, statuses_of
from .lists import add_list, rows_of


@showing(CrudOptions)
def crud_router(
    model: type,
    prefix: str = "",
    create_schema: type[BaseModel] | None = None,
    update_schema: type[BaseModel] | None = None,
    read_schema: type | None = None,
    *,
    options: CrudOptions | None = None,
    **keywords: Unpack[CrudKeywords],
) -> APIRouter:
    """A router for the rows of ``model`` of the request's tenant.

    It has the list of `list_router`, ``POST`` (201 with ``Location``), and ``GET``, ``PATCH`` and ``DELETE`` (204) of
    ``/{id}``, and, if the class is soft-deleted, ``POST /{id}/restore``. Schemas that are not given are derived. If the
    class has a version, it is the ``ETag``, and with ``If-Match`` a PATCH or DELETE of another version is a 412. A
    foreign key to a row of another tenant is a 409.

    With ``idempotency``, a POST that is repeated with the same ``Idempotency-Key`` gets the first response and writes
    nothing (see `once`). The repeated request must have the same tenant, actor, method, path, query string and body,
    else it is a 422. Keys are kept for ``idempotency_ttl`` (seconds or a timedelta; None: the plugin's).

    ``operations`` are those that the router has, of ``list``, ``read``, ``create``, ``update``, ``delete`` and
    ``restore``. ``permissions`` has a dependency for each of them, or is one for all; it refuses a request by an
    exception, before anything is read or written. The request's own session and repositories are at its hand.
    ``update_method="PUT"`` keeps the method of an API that exists; it changes what a PATCH would. So do
    ``status_codes`` (``{"create": 200}``) and ``delete_body``, the body of the response to a DELETE, whose status is
    then 200. ``read_only_fields="ignore"`` lets an update contain the whole row. `REACT_ADMIN` has the options for
    React Admin's ``ra-data-simple-rest``.

    The options are given as arguments, or as ``options``; an argument replaces the field of ``options``. The other
    arguments are those of `list_router`. Raises `ValidationError` for an unknown operation, and for a status that is no
    success, or that contradicts ``delete_body``.
    """
    schemas = {"create_schema": create_schema, "update_schema": update_schema, "read_schema": read_schema}
    named = {name: schema for name, schema in schemas.items() if schema is not None}
    chosen, of_router = with_keywords(options or CrudOptions(), {**keywords, **named})
    router = router_of(prefix, of_router, tag=plural(model.__name__))
    params, get_rows = list_params(model, chosen), rows_of(model, chosen)
    renderer = Renderer(model, chosen.read_schema)
    path = collection_path(router, chosen.trailing_slash)
    if "list" in chosen.operations:
        form = PageForm(model, chosen, params, renderer)
        add_list(router, model, params, get_rows, form, path, chosen.dependencies_of("list"))
    traits: Traits[object] = traits_of(model)
    of_users = of_router.get("route_class", APIRoute) is not APIRoute
    resource = _Resource(router, chosen, traits, get_rows, renderer, PathKey(traits), References(traits), of_users)
    source = None if chosen.plugin is None else chosen.plugin.source
    replays = Replays(source, chosen.idempotency_ttl) if chosen.idempotency else None
    if "create" in chosen.operations:
        resource.add_create(chosen.create_schema or create_schema_of(model), replays)
    if "read" in chosen.operations:
        resource.add_read()
    if "update" in chosen.operations:
        changes = chosen.update_schema or update_schema_of(model)
        ignores = chosen.read_only_fields == "ignore"
        resource.add_update(without_read_only(changes, renderer.schema) if ignores else changes)
    if "delete" in chosen.operations:
        resource.add_delete()
    if "restore" in chosen.operations and traits.soft_deletes:
        resource.add_restore()
    add_options(router)
    return router


_COMMITTED_LATER = nullcontext(False)


@dataclass(frozen=True)
class _Resource:
    router: APIRouter
    options: CrudOptions
    traits: Traits[object]
    get_rows: Endpoint
    renderer: Renderer
    key: PathKey
    references: References
    wrapped: bool
    """Whether a route class of the user's runs code after the endpoint, before the transaction's COMMIT."""

    def add_create(self, schema: type[BaseModel], replays: Replays | None) -> None:
        async def create_row(request: Request, data: BaseModel, repository: Repository) -> Response:
            self.key.refuse_unreachable(data)
            checked = await self.references.before_create(repository, data)
            with self._last_write(request, repository, "create", also=self.key.always_reachable) as last:
                entity = await repository.create(data)
            await self.references.after(repository, entity, checked, created=True)
            entity = await self._loaded(repository, entity)
            headers = {"Location": self.key.location(request, entity, data)}
            return self._written(request, entity, repository, self.statuses["create"], headers, is_last=last)

        async def create(
            request: Request, data: BaseModel, repository: Repository = Depends(self.get_rows)
        ) -> Response:
            return await create_row(request, data, repository)

        async def create_once(
            request: Request,
            data: BaseModel,
            repository: Repository = Depends(self.get_rows),
            idempotency_key: str | None = IDEMPOTENCY_KEY,
        ) -> Response:
            if idempotency_key is None or replays is None:
                return await create_row(request, data, repository)
            return await replays.answered_once(
                request, repository.db, idempotency_key, lambda: create_row(request, data, repository)
            )

        endpoint: Endpoint = create if replays is None else create_once
        endpoint.__annotations__["data"] = schema
        endpoint.__name__ = "create"
        headers = {"Location": LOCATION, **({} if replays is None else {"Idempotency-Replayed": REPLAYED})}
        # 400: the body is not valid UTF-8. 403: a schema of the user's may contain the tenant, and name another one.
        problems = {400, 409, 422, *self._of_tenant(schema)}
        path = collection_path(self.router, self.options.trailing_slash)
        self._add("create", "POST", path, endpoint, self.statuses["create"], problems, headers)

    def add_read(self) -> None:
        get_key = self.key.dependency()

        async def read(
            request: Request, parts: JsonObject = Depends(get_key), repository: Repository = Depends(self.get_rows)
        ) -> Response:
            key = self.key.of(parts, repository.tenant_id)
            rows = self.renderer.loading(repository)
            entity = await rows.get_by_id_or_raise(key, relationships=self.renderer.relationships)
            if self._has_tag_of_all:
                tag = etag_of(self.traits, entity)
                if tag is not None and is_unchanged(request, tag):
                    return Response(status_code=304, headers={"ETag": tag})
            return self._response(entity)

        self._add("read", "GET", self.key.path, read, 200, {404, 422})

    def add_update(self, schema: type[BaseModel]) -> None:
        get_key = self.key.dependency()

        async def update(
            request: Request,
            data: BaseModel,
            parts: JsonObject = Depends(get_key),
            repository: Repository = Depends(self.get_rows),
        ) -> Response:
            self.key.refuse_unreachable(data)
            key = self.key.of(parts, repository.tenant_id)
            expected = await self._expected(request, repository, key)
            checked = await self.references.before_update(repository, key, data)
            with self._last_write(request, repository, "update") as last:
                entity = await repository.update(key, data, expected_version=expected)
            await self.references.after(repository, entity, checked, created=False)
            entity = await self._loaded(repository, entity)
            return self._written(request, entity, repository, self.statuses["update"], is_last=last)

        update.__annotations__["data"] = schema
        problems = {400, 404, 409, 422, *self._of_tenant(schema), *self._of_version}
        self._add("update", self.options.update_method, self.key.path, update, self.statuses["update"], problems)

    def add_delete(self) -> None:
        check_delete(self.statuses["delete"], self.options.delete_body)
        get_key = self.key.dependency()

        async def delete(
            request: Request, parts: JsonObject = Depends(get_key), repository: Repository = Depends(self.get_rows)
        ) -> Response:
            key = self.key.of(parts, repository.tenant_id)
            expected = await self._expected(request, repository, key)
            # Without If-Match the argument is omitted: a user's repository may override delete() without it.
            version: dict[str, Any] = {} if expected is None else {"expected_version": expected}
            body = None if self.options.delete_body is None else await self._body_of_delete(repository, key)
            with self._last_write(request, repository, "delete"):
                exists = await repository.delete(key, **version)
            if not exists:
                raise self._missing()
            return Response(body, self.statuses["delete"], media_type=None if body is None else "application/json")

        problems = {404, 409, 422, *self._of_version}
        self._add("delete", "DELETE", self.key.path, delete, self.statuses["delete"], problems)

    def add_restore(self) -> None:
        get_key = self.key.dependency()

        async def restore(
            request: Request, parts: JsonObject = Depends(get_key), repository: Repository = Depends(self.get_rows)
        ) -> Response:
            with self._last_write(request, repository, "restore") as last:
                entity = await repository.restore(self.key.of(parts, repository.tenant_id))
            entity = await self._loaded(repository, entity)
            return self._written(request, entity, repository, self.statuses["restore"], is_last=last)

        path = f"{self.key.path}/restore"
        self._add("restore", "POST", path, restore, self.statuses["restore"], {404, 409, 422})

    def _of_tenant(self, schema: type[BaseModel]) -> set[int]:
        return {403} if self.traits.tenant in schema.model_fields else set()

    @property
    def _of_version(self) -> set[int]:
        return set() if self.traits.version is None else {412}

    def _add(
        self,
        operation: Operation,
        method: str,
        path: str,
        endpoint: Endpoint,
        status: int,
        problems: set[int],
        headers: JsonObject | None = None,
    ) -> None:
        name, verb = self.traits.name, "get" if operation == "read" else operation
        describe_endpoint(endpoint, f"{verb}{name}", problems)
        parameters, responses = self._documented(operation, status, headers or {})
        add = add_get if method == "GET" else partial(APIRouter.add_api_route, methods=[method])
        add(
            self.router,
            path,
            endpoint,
            status_code=status,
            name=f"{endpoint.__name__}_{name.lower()}",
            summary=f"{verb.title()} {name}",
            response_model=None,
            responses=responses or None,
            dependencies=self.options.dependencies_of(operation),
            openapi_extra={"parameters": parameters} if parameters else None,
        )

    def _documented(
        self, operation: Operation, status: int, headers: JsonObject
    ) -> tuple[list[JsonObject], dict[int | str, JsonObject]]:
        """The header parameters of an operation, and its responses, for OpenAPI."""
        tag = {} if self.traits.version is None else {"ETag": ETAG}
        shown = {**headers, **tag}
        parameters, responses = list[JsonObject](), dict[int | str, JsonObject]()
        if operation == "delete":
            body = self.options.delete_body
            if body is not None:
                described = documented_delete(body, self.renderer.schema)
                responses[status] = {"description": f"The {self.traits.name} was deleted.", **described}
        elif status not in BODILESS:
            row = {"model": self.renderer.schema, "description": f"The {self.traits.name}."}
            responses[status] = {**row, "headers": shown} if shown else row
        elif shown:
            responses[status] = {"description": "The change was made.", "headers": shown}
        if operation in ("update", "delete") and tag:
            parameters.append(IF_MATCH)
        if operation == "read" and self._has_tag_of_all:
            parameters.append(IF_NONE_MATCH)
            responses[304] = {"description": "The row still has this ETag.", "headers": tag}
        if operation in ("create", "update", "restore"):
            parameters.append(PREFER)
            if status == 200:
                description = "The change was made. The request preferred a response without a body."
                responses[204] = {"description": description, "headers": {**shown, **PREFERENCE_APPLIED}}
        return parameters, responses

    def _response(
        self, entity: object, status: int = 200, headers: dict[str, str] | None = None, *, committed: bool = False
    ) -> Response:
        tag = etag_of(self.traits, entity)
        headers = {**(headers or {}), **({"ETag": tag} if tag else {})}
        return Response(self.renderer.one(entity, committed=committed), status, headers, "application/json")

    def _written(
        self,
        request: Request,
        entity: object,
        repository: Repository,
        status: int,
        headers: dict[str, str] | None = None,
        *,
        is_last: bool,
    ) -> Response:
        """The response to a write: the row, or no body if the request prefers that.

        ``is_last``: the write may be committed already.
        """
        if status not in BODILESS and not prefers_minimal(request):
            return self._response(entity, status, headers, committed=is_last and not repository.db.in_transaction())
        tag = etag_of(self.traits, entity)
        applied = {} if status in BODILESS else APPLIED
        headers = {**(headers or {}), **({"ETag": tag} if tag else {}), **applied}
        return Response(status_code=204 if status == 200 else status, headers=headers)

    async def _body_of_delete(self, repository: Repository, key: object) -> bytes:
        """The JSON of the ``delete_body``. Raises `EntityNotFoundError` if it is the row, and there is no such row."""
        if self.options.delete_body is not DeleteBody.ROW:
            return self._fixed_body
        rows = self.renderer.loading(repository)
        return self.renderer.one(await rows.get_by_id_or_raise(key, relationships=self.renderer.relationships))

    @cached_property
    def _fixed_body(self) -> bytes:
        return delete_json(self.options.delete_body)

    @cached_property
    def statuses(self) -> dict[str, int]:
        """The status of each write's response."""
        return statuses_of(self.options.status_codes, self.options.delete_body)

    @cached_property
    def _has_tag_of_all(self) -> bool:
        """Whether the ``ETag`` changes with everything that the response to a GET contains."""
        return self.traits.version is not None and self.renderer.of_row_alone

    def _last_write(
        self, request: Request, repository: Repository, method: str, *, also: bool = True
    ) -> AbstractContextManager[bool]:
        """A block for the endpoint's write, which may be committed at once if nothing can fail after it.

        ``also`` is a further condition. ``with ... as`` gives whether the write may be committed at once.
        """
        ends = (
            also
            and self._can_end_with_write
            and getattr(type(repository), method) is getattr(AsyncRepository, method)
            and not self.traits.listens_to_loads
            and can_end_with_write(request, repository.db)
        )
        return DatabaseTransaction.last_write(repository.db) if ends else _COMMITTED_LATER

    @cached_property
    def _can_end_with_write(self) -> bool:
        """Whether nothing that the endpoints do after a write can fail, as far as this depends on the class."""
        version = self.traits.version
        has_text = version is not None and isinstance(self.traits.columns[version].type, String)  # may fit no header
        is_certain = self.renderer.certain and self.traits.plain and not has_text
        return is_certain and not self.wrapped and not self.references.all

    async def _loaded(self, repository: Repository, entity: object) -> object:
        """The entity with the relationships that the schema contains."""
        if not self.renderer.relationships:
            return entity
        key = self.traits.key_of(entity)
        rows = self.renderer.loading(repository)
        return await rows.get_by_id_or_raise(key, relationships=self.renderer.relationships)

    async def _expected(self, request: Request, repository: Repository, key: object) -> object:
        """The version that ``If-Match`` requires; None: any version."""
        versions = matched_versions(request)
        if versions is None:
            return None
        if len(versions) == 1:
            try:
                return expected_version(self.traits, versions)
            except StaleEntityError:
                if not await repository.exists(key):
                    raise self._missing() from None
                raise
        current = await self.renderer.loading(repository).get_by_id_or_raise(key)
        tag = etag_of(self.traits, current)
        held = frozenset() if tag is None else versions & {tag.strip('"')}
        return expected_version(self.traits, held)

    def _missing(self) -> EntityNotFoundError:
        return EntityNotFoundError(f"There is no such {self.traits.name}.", model=self.traits.name)
