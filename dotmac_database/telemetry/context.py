"""What the telemetry knows of the request or job that runs: the plugin sets it, and logs and budgets read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The request or the job that runs in this context.

    ``route`` is the template of its path, such as ``GET /users/{id}``, never the path itself. ``tenant`` is the tenant
    that it names. None: it is unknown, or there is none.
    """

    route: str | None = None
    request_id: str | None = None
    tenant: object = None


REQUEST: ContextVar[RequestContext | None] = ContextVar("dotmac_database_request", default=None)
"""The request that runs in this context; None: none, or nobody needs to know it."""


@contextmanager
def within(request: RequestContext) -> Iterator[None]:
    """Make ``request`` the current one in this block."""
    before = REQUEST.get()
    REQUEST.set(request)
    try:
        yield
    finally:
        REQUEST.set(before)  # not by a token: a request's block may be left in another context than it was entered in
