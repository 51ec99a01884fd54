"""`health_router`: the database's health for load balancers, orchestrators and people."""

from __future__ import annotations

from typing import Any, Unpack

from fastapi import APIRouter, Depends, Request, Response
from pydantic import TypeAdapter

from dotmac_database import Database, DatabaseHealthChecker, HealthCheckResult, HealthStatus

from .aliases import Endpoint, JsonObject
from .answers import describe_endpoint, header
from .bodies import router_of
from .heads import add_get, add_options
from .options import RouterKeywords
from .registry import source_of
from .source import Plugin

_RESULT: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, Any])
_PUBLIC = {
    HealthStatus.HEALTHY: "The database answers.",
    HealthStatus.DEGRADED: "The database works, but something needs attention.",
    HealthStatus.UNHEALTHY: "The database does not answer, or refuses to work.",
    HealthStatus.UNKNOWN: "The check itself failed.",
}
_SCHEMA = {
    "title": "DatabaseHealth",
    "type": "object",
    "required": ["status", "message"],
    "properties": {
        "status": {"type": "string", "enum": [each.value for each in HealthStatus]},
        "message": {"type": "string"},
        "details": {"type": "object", "additionalProperties": True},
        "error": {"type": ["string", "null"]},
    },
}
_CONTENT = {
    "content": {"application/json": {"schema": _SCHEMA}},
    "headers": {"Cache-Control": header("Never stored.", const="no-store")},
}
_RESPONSES: dict[int | str, JsonObject] = {
    200: {"description": "The database works.", **_CONTENT},
    503: {"description": "The database does not work, or its check failed.", **_CONTENT},
}
_ALIVE_SCHEMA = {
    "title": "ProcessHealth",
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string", "const": "alive"}},
}
_ALIVE: dict[int | str, JsonObject] = {
    200: {"description": "The process responds.", "content": {"application/json": {"schema": _ALIVE_SCHEMA}}}
}


def health_router(
    prefix: str = "/health/db",
    *,
    plugin: Plugin | None = None,
    checker: DatabaseHealthChecker | None = None,
    details: bool | Endpoint = False,
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
    """
    health = router_of(prefix, router, tag="health")

    async def shown() -> bool:
        return details is True

    may_see = details if callable(details) else shown

    def checks(request: Request) -> tuple[DatabaseHealthChecker, Database]:
        source = plugin.source if plugin else source_of(request)
        return checker or DatabaseHealthChecker(security=source.rls), source.database

    async def database_health(request: Request, see: object = Depends(may_see)) -> Response:
        checking, database = checks(request)
        return _response(await checking.async_check_health(database), details=bool(see))

    async def live() -> dict[str, str]:
        return {"status": "alive"}

    async def ready(request: Request) -> Response:
        checking, database = checks(request)
        return _response(await checking.async_check_connectivity(database), details=False)

    for path, endpoint in (("", database_health), ("/live", live), ("/ready", ready)):
        add_get(health, path, endpoint, response_model=None, responses=_ALIVE if endpoint is live else _RESPONSES)
    for endpoint, name in ((database_health, "getDatabaseHealth"), (live, "isAlive"), (ready, "isDatabaseReady")):
        describe_endpoint(endpoint, name)
    add_options(health)
    return health


def _response(result: HealthCheckResult, *, details: bool) -> Response:
    content = result.as_dict()
    if not details:
        kind = (result.error or "").partition(":")[0] or None
        content = {**content, "details": {}, "message": _PUBLIC[result.status], "error": kind}
    return Response(
        _RESULT.dump_json(content, fallback=str),
        200 if result.works else 503,
        {"Cache-Control": "no-store"},
        "application/json",
    )
