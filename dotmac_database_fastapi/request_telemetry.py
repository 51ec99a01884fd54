"""What the telemetry knows of a request, from its first session to the end of its endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from starlette.requests import HTTPConnection

from dotmac_database.telemetry import REQUEST, RequestContext

from .internals import ending_stack, route_of
from .request_ids import request_id_of, within_request
from .source import Source

_SCOPE = "dotmac_database.request_telemetry"


def observe_request(source: Source, connection: HTTPConnection, tenant: object) -> None:
    """Give the telemetry the request's id, route and tenant, and begin its budget of statements, once for a request.

    It ends after the request's sessions, so that their last statements and COMMIT still belong to the request. Call it
    only if the source's database is observed.
    """
    observed: set[int] = connection.scope.setdefault(_SCOPE, set())
    if not observed:
        ending_stack(connection).enter_context(_within(connection, tenant))
    request = REQUEST.get()
    if tenant is not None and request is not None and request.tenant is None:
        REQUEST.set(replace(request, tenant=tenant))
    if id(source) not in observed:
        observed.add(id(source))
        if source.statement_budget is not None:
            ending_stack(connection).enter_context(source.statement_budget.renewed())


@contextmanager
def _within(connection: HTTPConnection, tenant: object) -> Iterator[None]:
    """Make the request the current one in this block."""
    request_id = request_id_of(connection.scope)
    template = getattr(route_of(connection), "path_format", None)
    method = connection.scope.get("method", "WEBSOCKET")
    before = REQUEST.get()
    REQUEST.set(RequestContext(f"{method} {template}" if template else None, request_id, tenant))
    try:
        with within_request(request_id):
            yield
    finally:
        REQUEST.set(before)
