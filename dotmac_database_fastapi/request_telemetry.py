"""What the telemetry knows of a request, from its first session to the end of its endpoint or its export."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from starlette.requests import HTTPConnection

from dotmac_database.telemetry import REQUEST, Continued, RequestContext, within

from .internals import ending_stack, route_of
from .request_ids import request_id_of
from .source import Source

S = TypeVar("S")

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


def _within(connection: HTTPConnection, tenant: object) -> AbstractContextManager[None]:
    """A block in which the request is the current one."""
    template = getattr(route_of(connection), "path_format", None)
    method = connection.scope.get("method", "WEBSOCKET")
    route = f"{method} {template}" if template else None
    return within(RequestContext(route, request_id_of(connection.scope), tenant))


def continued(later: AbstractAsyncContextManager[S]) -> AbstractAsyncContextManager[S]:
    """``later``, a block that begins after the endpoint, as work of the request that is current now.

    It must be entered and left in the same task. If there is no request and no budget, it is ``later`` itself.
    """
    block = Continued()
    return _Continued(block, later) if block else later


class _Continued(AbstractAsyncContextManager[S]):
    def __init__(self, block: Continued, later: AbstractAsyncContextManager[S]) -> None:
        self._block = block
        self._later = later

    async def __aenter__(self) -> S:
        with ExitStack() as stack:
            stack.enter_context(self._block)
            session = await self._later.__aenter__()
            stack.pop_all()
        return session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._later.__aexit__(kind, error, traceback)
        finally:
            self._block.__exit__(kind, error, traceback)
