"""What the telemetry knows of the request or job that runs: the plugin sets it, and logs and budgets read it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The request that runs in this context.

    ``route`` is the template of its path, such as ``GET /users/{id}``, never the path itself. ``tenant`` is the tenant
    that it names. None: it is unknown, or there is none.
    """

    route: str | None = None
    request_id: str | None = None
    tenant: object = None


REQUEST: ContextVar[RequestContext | None] = ContextVar("dotmac_database_request", default=None)
"""The request that runs in this context; None: none, or nobody needs to know it."""
