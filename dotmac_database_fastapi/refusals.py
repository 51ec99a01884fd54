"""Which error a client gets if a request has several: authentication comes before all others.

FastAPI solves dependencies in the order of the parameters and stops at the first exception. If an endpoint declares its
repository before its user, an anonymous client would get an error about tenants instead of a 401.
"""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection

from dotmac_database import TenantRequiredError, ValidationError

from .aliases import Endpoint
from .internals import solve_after

REFUSALS = (HTTPException, WebSocketException, RequestValidationError, TenantRequiredError, ValidationError)
"""The exceptions by which a dependency refuses a request."""

_SCOPE = "dotmac_database.refusing"


def rank(refused: Exception) -> int:
    """The precedence of an error: 0 not authenticated, 1 not authorised, 2 all others. The lowest is sent."""
    if isinstance(refused, WebSocketException):
        return 0
    status = refused.status_code if isinstance(refused, HTTPException) else 0
    return {401: 0, 403: 1}.get(status, 2)


async def raise_identity(connection: HTTPConnection, call: Endpoint, refused: Exception) -> None:
    """Raise the 401 or 403 of a dependency after ``call``, if one raises it and it precedes ``refused``.

    The remaining dependencies are solved only for a request that is refused, so that others cost nothing more.
    """
    if rank(refused) == 0 or connection.scope.get(_SCOPE):
        return
    connection.scope[_SCOPE] = True
    try:
        later: list[Exception] = []
        for solving in solve_after(connection, call):
            try:
                await solving
            except REFUSALS as other:
                later.append(other)
    finally:
        connection.scope.pop(_SCOPE, None)
    first = min([refused, *later], key=rank)
    if first is not refused:
        raise first from None
