"""Who calls: the tenant and the actor of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection
from starlette.responses import Response

from dotmac_database import TenantRequiredError

from .internals import overridden, solve
from .tenants import BadTenantError, MissingTenantError, TenantSource

if TYPE_CHECKING:
    from .plugin import DatabasePlugin


_SCOPE = "dotmac_database.callers"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request says of who makes it. ``missing`` is what to raise where a tenant is needed and there is none."""

    tenant: Any = None
    actor: str | None = None
    missing: TenantRequiredError | None = None

    def refusal(self, model: type) -> TenantRequiredError:
        """The exception for a model that needs the tenant."""
        return self.missing or TenantRequiredError(
            f"{model.__name__} belongs to tenants, and the request has none: "
            "give the plugin a dependency that names it, DatabasePlugin(url, tenant=…)."
        )


async def caller_of(plugin: DatabasePlugin, connection: HTTPConnection, response: Response | None = None) -> Caller:
    """The request's tenant and actor, of which the plugin's dependencies are asked once."""
    known: dict[int, Caller] = connection.scope.setdefault(_SCOPE, {})
    caller = known.get(id(plugin))
    if caller is None:
        caller = known[id(plugin)] = await _asked(plugin, connection, response)
    return caller


def forget_callers(connection: HTTPConnection) -> None:
    """Let the request's tenant and actor be asked for again: what their dependencies gave has ended with them."""
    connection.scope.pop(_SCOPE, None)


async def _asked(plugin: DatabasePlugin, connection: HTTPConnection, response: Response | None) -> Caller:
    tenant, missing = None, None
    try:
        tenant = await _value(plugin.tenant, connection, response)
    except TenantRequiredError as refused:
        # A request without a tenant may be for models that have none; a malformed one is refused at once.
        if isinstance(refused, BadTenantError) and not isinstance(refused, MissingTenantError):
            raise
        missing = refused
    actor = await _value(plugin.actor, connection, response)
    return Caller(tenant, None if actor is None else str(actor), missing)


async def _value(dependency: Callable[..., Any] | None, connection: HTTPConnection, response: Response | None) -> Any:
    if dependency is None:
        return None
    if isinstance(dependency, TenantSource) and not overridden(connection, dependency):
        return dependency.read(connection)
    return await solve(dependency, connection, response)
