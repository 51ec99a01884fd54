"""Which refusal a client reads where a request has more than one fault: who calls comes before what is asked for.

FastAPI solves dependencies in the order of the parameters and stops at the first exception. An endpoint that names its
repository before its user would tell an anonymous caller about tenants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection

from dotmac_database import TenantRequiredError, ValidationError

from .internals import solve_after

REFUSALS = (HTTPException, WebSocketException, RequestValidationError, TenantRequiredError, ValidationError)
"""What tells a client that its request is at fault."""

_SCOPE = "dotmac_database.refusing"


def rank(refused: Exception) -> int:
    """Where a refusal stands: 0 the caller is not known, 1 may not do it, 2 all other faults."""
    if isinstance(refused, WebSocketException):
        return 0
    status = refused.status_code if isinstance(refused, HTTPException) else 0
    return {401: 0, 403: 1}.get(status, 2)


async def raise_identity(connection: HTTPConnection, call: Callable[..., Any], refused: Exception) -> None:
    """Raise the 401 or 403 of a dependency after ``call``, where one has it and ``refused`` stands behind it.

    Only a request that is refused pays for it.
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
