"""The identity of a request: its tenant and its actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from starlette.requests import HTTPConnection
from starlette.responses import Response

from dotmac_database import ALL_TENANTS, MisuseError, TenantRequiredError

from .aliases import Endpoint
from .internals import overridden, solve
from .refusals import REFUSALS, rank
from .source import Source
from .tenants import BadTenantError, MissingTenantError, TenantSource

_SCOPE = "dotmac_database.identities"


class TenantNotAskedError(TenantRequiredError, MisuseError):
    """The app's code names no tenant where one is needed. No client can correct that: a 500."""


@dataclass(frozen=True, slots=True)
class RequestIdentity:
    """The tenant and the actor of a request. ``missing`` is the exception to raise if a tenant is needed but not named.

    ``request`` is the method and the path, which are logged if the tenant is `ALL_TENANTS`; None outside of a request.
    """

    tenant: object = None
    actor: str | None = None
    missing: TenantRequiredError | None = None
    request: str | None = None

    def refusal(self, reason: str) -> TenantRequiredError:
        """The exception for a missing tenant: a 400 if the request should have named one, else a 500."""
        return self.missing or TenantNotAskedError(
            f"{reason} The app's code names no tenant: give the plugin a dependency that returns the tenant, "
            "DatabasePlugin(url, tenant=…), or name the tenant of your own session, plugin.session(tenant=…)."
        )


_NOBODY = RequestIdentity()


async def identity_of(source: Source, connection: HTTPConnection, response: Response | None = None) -> RequestIdentity:
    """The request's tenant and actor. The source's dependencies are solved once for a request."""
    if source.tenant is None and source.actor is None:
        return _NOBODY
    known: dict[int, RequestIdentity] = connection.scope.setdefault(_SCOPE, {})
    identity = known.get(id(source))
    if identity is None:
        identity = known[id(source)] = await _solved(source, connection, response)
    return identity


def forget_identities(connection: HTTPConnection) -> None:
    """Forget the request's tenant and actor, so that their dependencies are solved again in the next attempt."""
    connection.scope.pop(_SCOPE, None)


async def _solved(source: Source, connection: HTTPConnection, response: Response | None) -> RequestIdentity:
    tenant, actor, missing = None, None, None
    refusals: list[Exception] = []
    try:
        tenant = await _value(source.tenant, connection, response)
    except REFUSALS as refused:
        # A missing tenant is an error only if a tenant-scoped model is used; a malformed one is always an error.
        if _is_missing(refused):
            missing = refused
        else:
            refusals.append(refused)
    try:
        actor = await _value(source.actor, connection, response)
    except REFUSALS as refused:
        refusals.append(refused)
    if refusals:
        raise min(refusals, key=rank)
    if tenant is None and missing is None and source.tenant is not None:
        missing = MissingTenantError("The request names no tenant.")
    request = None
    if tenant is ALL_TENANTS:
        # The path is logged as a Python literal, because it may contain line breaks, and logs are read line by line.
        request = f"{connection.scope.get('method', 'WEBSOCKET')} {connection.scope['path']!r}"
    return RequestIdentity(tenant, None if actor is None else str(actor), missing, request)


def _is_missing(refused: Exception) -> TypeGuard[TenantRequiredError]:
    if isinstance(refused, BadTenantError):
        return isinstance(refused, MissingTenantError)
    return isinstance(refused, TenantRequiredError) and not isinstance(refused, MisuseError)


async def _value(dependency: Endpoint | None, connection: HTTPConnection, response: Response | None) -> object:
    if dependency is None:
        return None
    if isinstance(dependency, TenantSource) and not overridden(connection, dependency):
        return dependency.read(connection)
    return await solve(dependency, connection, response)
