"""The results of health checks as JSON: what strangers see of them, and what else an operator sees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import Response
from pydantic import TypeAdapter

from dotmac_database import HealthCheckResult, HealthStatus

from ..aliases import JsonObject
from ..answers import header

PUBLIC = {
    HealthStatus.HEALTHY: "The database answers.",
    HealthStatus.DEGRADED: "The database works, but something needs attention.",
    HealthStatus.UNHEALTHY: "The database does not answer, or refuses to work.",
    HealthStatus.UNKNOWN: "The check itself failed.",
}
"""The messages for strangers. The checker's own messages may name what is wrong, or a host."""

NO_STORE = {"Cache-Control": "no-store"}

_JSON: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, Any])
_STATUS: JsonObject = {"type": "string", "enum": [each.value for each in HealthStatus]}

RESULT: JsonObject = {
    "title": "DatabaseHealth",
    "type": "object",
    "required": ["status", "message"],
    "properties": {
        "status": _STATUS,
        "message": {"type": "string"},
        "details": {"type": "object", "additionalProperties": True},
        "error": {"type": ["string", "null"]},
    },
}
"""The JSON schema of one result."""

GROUP_RESULT: JsonObject = {
    "title": "DatabaseGroupHealth",
    "type": "object",
    "required": ["status", "databases"],
    "properties": {
        "status": _STATUS,
        "databases": {"type": "object", "additionalProperties": RESULT, "description": "The results by plugin name."},
    },
}
"""The JSON schema of the results of a group of databases."""

_BAD_FIRST = (HealthStatus.UNHEALTHY, HealthStatus.UNKNOWN, HealthStatus.DEGRADED, HealthStatus.HEALTHY)


def worst(statuses: Iterable[HealthStatus]) -> HealthStatus:
    """The worst of some statuses: unhealthy before unknown, degraded and healthy."""
    return min(statuses, key=_BAD_FIRST.index)


def content_of(result: HealthCheckResult, *, details: bool) -> dict[str, object]:
    """A result as JSON values. Without ``details``, it has the public message, and only the kind of an error."""
    content = result.as_dict()
    if details:
        return content
    kind = (result.error or "").partition(":")[0] or None
    return {**content, "details": {}, "message": PUBLIC[result.status], "error": kind}


def json_response(content: dict[str, object], *, works: bool, **headers: str) -> Response:
    """A response that is never stored: 200 if the database works, else 503."""
    body = _JSON.dump_json(content, fallback=str)
    return Response(body, 200 if works else 503, {**NO_STORE, **headers}, "application/json")


def responses_of(schema: JsonObject) -> dict[int | str, JsonObject]:
    """The OpenAPI descriptions of the two responses with this schema."""
    content = {
        "content": {"application/json": {"schema": schema}},
        "headers": {"Cache-Control": header("Never stored.", const="no-store")},
    }
    return {
        200: {"description": "The database works.", **content},
        503: {"description": "The database does not work, or its check failed.", **content},
    }
