"""`health_router`: the routes of a database's health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Unpack
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, Query, Request, Response

from dotmac_database import Database, DatabaseHealthChecker, HealthCheckResult

from ..accepting import HTML, VARY, preferred_type
from ..aliases import Endpoint, JsonObject
from ..answers import describe_endpoint
from ..bodies import router_of
from ..heads import add_get, add_options
from ..options import RouterKeywords
from ..registry import source_of
from ..source import Plugin, Source
from .groups import check_group, sources_of_groups
from .history import HealthHistory
from .page import REFRESH, page_response, with_page
from .results import GROUP_RESULT, RESULT, content_of, json_response, responses_of

_ALIVE_SCHEMA = {
    "title": "ProcessHealth",
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string", "const": "alive"}},
}
_ALIVE: dict[int | str, JsonObject] = {
    200: {"description": "The process responds.", "content": {"application/json": {"schema": _ALIVE_SCHEMA}}}
}

_Refresh = Annotated[
    int, Query(ge=0, le=3600, description="After how many seconds the HTML page loads itself again; 0: never.")
]


def health_router(
    prefix: str = "/health/db",
    *,
    plugin: Plugin | None = None,
    checker: DatabaseHealthChecker | None = None,
    details: bool | Endpoint = False,
    groups: Mapping[str, Sequence[Plugin]] | None = None,
    **router: Unpack[RouterKeywords],
) -> APIRouter:
    """A router for the database's health.

    ``GET /health/db`` runs the full check: 200 if the database is healthy or degraded, 503 if not, with the result as
    JSON. ``/live`` below it is always 200 while the process can respond, whatever the database does; ``/ready`` is 200
    while the database responds at all. The checks use the engine that the app's requests use; if the app has a sync and
    an async engine, the pools of both are checked. The result's details and error messages are shown if ``details`` is
    True, or if it is a FastAPI dependency that returns a true value. Do not show them to strangers, because they would
    help an attacker. ``checker`` None: a checker with the default timeouts that also verifies the plugin's ``rls``.
    Pass a checker with ``breaker=`` to show the state of a circuit breaker. ``router`` is passed to `APIRouter`.

    A client that prefers ``text/html``, such as a browser, gets the result of ``/health/db`` as a page. With details,
    the page plots what this process's checks have measured in the last ten minutes.

    ``groups`` names databases that count together: for ``{"ready": (orders, reports)}``, ``/health/db/ready`` is 200
    only if the databases of both plugins respond, and its JSON has the result of each by the plugin's name. They are
    checked concurrently, with ``checker`` if it is given. Every name is a path below ``prefix``; ``ready`` replaces the
    route for one database. Raises `ValidationError` if a group is empty, has anything but plugins, has two plugins of
    one name, or has a name that can't be a path.
    """
    health = router_of(prefix, router, tag="health")
    grouped = sources_of_groups(groups or {})
    histories: WeakKeyDictionary[Database, HealthHistory] = WeakKeyDictionary()

    async def shown() -> bool:
        return details is True

    may_see = details if callable(details) else shown

    def source_for(request: Request) -> Source:
        return plugin.source if plugin else source_of(request)

    def checker_for(source: Source) -> DatabaseHealthChecker:
        return checker or DatabaseHealthChecker(security=source.rls)

    def note(source: Source, result: HealthCheckResult) -> HealthHistory:
        history = histories.setdefault(source.database, HealthHistory())
        history.add(result)
        return history

    async def database_health(
        request: Request, see: object = Depends(may_see), refresh: _Refresh = REFRESH
    ) -> Response:
        source = source_for(request)
        result = await checker_for(source).async_check_health(source.database)
        history = note(source, result)
        if preferred_type(request, (HTML,)) == HTML:
            return page_response(result, history if see else None, refresh)
        return json_response(content_of(result, details=bool(see)), works=result.works, **VARY)

    async def live() -> dict[str, str]:
        return {"status": "alive"}

    async def ready(request: Request) -> Response:
        source = source_for(request)
        result = await checker_for(source).async_check_connectivity(source.database)
        note(source, result)
        return json_response(content_of(result, details=False), works=result.works)

    def group_endpoint(sources: tuple[Source, ...]) -> Callable[[], Awaitable[Response]]:
        async def group() -> Response:
            return await check_group(sources, checker_for)

        return group

    result, group_result = responses_of(RESULT), responses_of(GROUP_RESULT)
    routes: dict[str, tuple[Endpoint, str, dict[int | str, JsonObject]]] = {
        "": (database_health, "getDatabaseHealth", with_page(result)),
        "/live": (live, "isAlive", _ALIVE),
        "/ready": (ready, "isDatabaseReady", result),
    }
    for name, sources in grouped.items():
        routes[f"/{name}"] = (group_endpoint(sources), f"checkDatabases_{name.replace('-', '_')}", group_result)
    for path, (endpoint, operation_id, responses) in routes.items():
        add_get(health, path, endpoint, response_model=None, responses=responses)
        describe_endpoint(endpoint, operation_id, (422,) if path == "" else ())
    add_options(health)
    return health
