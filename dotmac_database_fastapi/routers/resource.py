"""What the generated endpoints of one class have in common: its repository, schemas, key, checks and hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

from fastapi import APIRouter, Depends, Request, Response
from pydantic import JsonValue
from pydantic_core import to_jsonable_python
from sqlalchemy import String

from dotmac_database import AsyncRepository, DatabaseTransaction, EntityNotFoundError, PermissionDeniedError, Traits

from ..aliases import Endpoint, JsonObject, Repository, Schema
from ..answers import PREFER, PREFERENCE_APPLIED, describe_endpoint
from ..bodies import collection_path
from ..etags import etag_of
from ..heads import add_get
from ..hiding import NOTHING, Hidden
from ..hooks import Hooks
from ..idempotency import IDEMPOTENCY_KEY, Replays, note_written
from ..keys import PathKey
from ..options import CrudOptions, Operation
from ..preferences import APPLIED
from ..read_only import without_read_only
from ..references import References
from ..rendering import Renderer
from ..selected_rows import SelectionRenderers
from ..sessions import can_end_with_write
from ..statuses import BODILESS, statuses_of
from .lists import View

_COMMITTED_LATER = nullcontext(False)

Write: TypeAlias = Callable[[Request, Any, Repository], Awaitable[Response]]
"""Writes the data of a request by the repository."""


@dataclass(frozen=True)
class Resource:
    """The rows of a class, as the endpoints of a generated router serve them."""

    router: APIRouter
    options: CrudOptions
    traits: Traits[object]
    get_rows: Endpoint
    renderer: Renderer
    key: PathKey
    references: References
    hooks: Hooks
    wrapped: bool
    """Whether a route class of the user's runs code after the endpoint, before the transaction's COMMIT."""
    view_of: Callable[[Repository], View]
    """Gives what the actor of a request's repository can see."""
    selects: SelectionRenderers | None
    """The renderers of selected rows; None: a request can't select anything."""

    hidden: Hidden = NOTHING
    """What is hidden from the actor of the request."""

    def seen_by(self, repository: Repository) -> Resource:
        """The resource as the actor of the repository sees it, which his policies may hide columns from."""
        view = self.view_of(repository)
        if not view.hidden:
            return self
        return replace(self, renderer=view.renderer, selects=view.selects, hidden=view.hidden)

    def add(
        self,
        operation: Operation,
        method: str,
        path: str,
        endpoint: Endpoint,
        status: int,
        problems: set[int],
        *,
        operation_id: str,
        summary: str,
        responses: dict[int | str, JsonObject],
        parameters: list[JsonObject],
    ) -> None:
        """Add an endpoint to the router, with its permission and what OpenAPI says of it."""
        has_hooks = self.hooks.has(operation.removeprefix("bulk_"))
        denied = {403} if self.options.policy is not None else set[int]()
        describe_endpoint(endpoint, operation_id, problems | denied, has_hooks=has_hooks)
        add = add_get if method == "GET" else partial(APIRouter.add_api_route, methods=[method])
        add(
            self.router,
            path,
            endpoint,
            status_code=status,
            name=f"{endpoint.__name__}_{self.traits.name.lower()}",
            summary=summary,
            response_model=None,
            responses=responses or None,
            dependencies=self.options.dependencies_of(operation),
            openapi_extra={"parameters": parameters} if parameters else None,
        )

    @property
    def path(self) -> str:
        """The path of the collection, below the router's prefix."""
        return collection_path(self.router, self.options.trailing_slash)

    @cached_property
    def statuses(self) -> dict[str, int]:
        """The status of each write's response."""
        return statuses_of(self.options.status_codes, self.options.delete_body)

    def changes(self, schema: Schema) -> Schema:
        """The schema of a change, which ignores the fields that nobody can change if ``read_only_fields`` says so."""
        ignores = self.options.read_only_fields == "ignore"
        return without_read_only(schema, self.renderer.schema) if ignores else schema

    def problems_of_tenant(self, schema: Schema) -> set[int]:
        """The problems of a schema of the user's that may contain the tenant, and name another one."""
        return {403} if self.traits.tenant in schema.model_fields else set()

    def last_write(
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

    async def call_after(self, operation: str, entity: object, repository: Repository) -> None:
        """Call the hook after an operation on a row, and check the foreign keys that the hook has changed."""
        if self.hooks.has_after(operation):
            [held] = await self.references.held(repository, [entity])
            await self.hooks.after(operation, entity, repository)
            await self.references.after(repository, entity, held, created=True)

    async def call_after_many(self, operation: str, entities: Sequence[object], repository: Repository) -> None:
        """As `call_after`, for many rows. An error has the ``index`` of its row."""
        if self.hooks.has_after(operation):
            held = await self.references.held(repository, entities)
            await self.hooks.after_many(operation, entities, repository)
            await self.references.after_many(repository, entities, held, created=True)

    async def loaded(self, repository: Repository, entity: object) -> object:
        """The entity with the relationships that the schema contains."""
        if not self.renderer.relationships:
            return entity
        return await self.renderer.get(repository, self.traits.key_of(entity))

    def response(self, body: bytes, entity: object, status: int, headers: dict[str, str] | None = None) -> Response:
        """The response with the JSON of a row."""
        return Response(body, status, self._tagged(entity, headers), "application/json")

    def minimal(self, entity: object, status: int, headers: dict[str, str] | None = None) -> Response:
        """The response to a write without a body: the request prefers that, or the status requires it."""
        applied = {} if status in BODILESS else APPLIED
        status = 204 if status == 200 else status
        return Response(status_code=status, headers={**self._tagged(entity, headers), **applied})

    def _tagged(self, entity: object, headers: dict[str, str] | None) -> dict[str, str]:
        tag = etag_of(self.traits, entity)
        return {**(headers or {}), **({"ETag": tag} if tag else {})}

    def note(self, request: Request, entities: Sequence[object]) -> None:
        """Note the new rows of a ruled request, and what was hidden in its response, for `check_replay`."""
        keys = [self.traits.key_of(entity) for entity in entities]
        note_written(request, {"keys": to_jsonable_python(keys), "hidden": self._hidden_names()})

    async def check_replay(self, repository: Repository, written: JsonValue) -> None:
        """Raise `PermissionDeniedError` if the actor may not see a recorded response any more. One statement.

        He may see it if he can read all of its rows, and if the same columns are hidden from him.
        """
        if isinstance(written, dict) and written.get("hidden") == self._hidden_names():
            stored = written.get("keys")
            keys = [tuple(key) if isinstance(key, list) else key for key in stored] if isinstance(stored, list) else []
            if len(await repository.get_many(keys)) == len(keys):
                return
        raise PermissionDeniedError(
            f"{self.traits.name}: the rows are written, but the response to the first request can't be shown any more."
        )

    def _hidden_names(self) -> list[JsonValue]:
        return [*sorted(f"{model.__qualname__}.{name}" for model, name in self.hidden.columns)]

    def missing(self) -> EntityNotFoundError:
        """The error for a row that does not exist in the tenant."""
        return EntityNotFoundError(f"There is no such {self.traits.name}.", model=self.traits.name)


def posting(write: Write, resource: Resource, replays: Replays | None) -> Endpoint:
    """An endpoint that writes the ``data`` of a POST. With ``replays``, an ``Idempotency-Key`` is heeded."""
    get_rows = resource.get_rows

    async def post(request: Request, data: Any, repository: Repository = Depends(get_rows)) -> Response:
        return await write(request, data, repository)

    if replays is None:
        return post

    async def post_once(
        request: Request,
        data: Any,
        repository: Repository = Depends(get_rows),
        idempotency_key: str | None = IDEMPOTENCY_KEY,
    ) -> Response:
        if idempotency_key is None:
            return await write(request, data, repository)
        session = repository.db

        async def check(written: JsonValue) -> None:
            await resource.seen_by(repository).check_replay(repository, written)

        return await replays.answered_once(
            request, session, idempotency_key, lambda: write(request, data, repository), check
        )

    return post_once


def written_responses(
    status: int, body: JsonObject, headers: JsonObject
) -> tuple[list[JsonObject], dict[int | str, JsonObject]]:
    """The parameters and responses of a write for OpenAPI: with ``body``, or without one if the client prefers that."""
    headed = {"headers": headers} if headers else {}
    responses: dict[int | str, JsonObject] = {status: {**body, **headed}}
    if status in BODILESS:
        responses = {status: {"description": "The change was made.", **headed}}
    if status == 200:
        description = "The change was made. The request preferred a response without a body."
        responses[204] = {"description": description, "headers": {**headers, **PREFERENCE_APPLIED}}
    return [PREFER], responses
