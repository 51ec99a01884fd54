"""The identity of a request: its tenant and its actor."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeGuard

from starlette.requests import HTTPConnection
from starlette.responses import Response
from typing_extensions import TypeVar

from dotmac_database import ALL_TENANTS, MisuseError, TenantRequiredError

from .actors import key_of
from .aliases import Endpoint
from .internals import SolvedDependencies, calls_of_route, overridden, solve
from .refusals import REFUSALS, rank
from .source import Source
from .tenants import BadTenantError, MissingTenantError, TenantSource

T = TypeVar("T", default=object)
A = TypeVar("A", default=object)

_SCOPE = "dotmac_database.identities"
_NEEDS = "dotmac_database_needs_tenant"
"""The attribute of a dependency that says whether it needs the request's tenant."""

IDENTITY_SESSIONS = "dotmac_database.identity_sessions"
"""The key of the request's scope under which the open sessions for its identity are."""


class TenantNotAskedError(TenantRequiredError, MisuseError):
    """The app's code names no tenant where one is needed. No client can correct that: a 500."""


@dataclass(frozen=True, slots=True)
class Caller(Generic[T, A]):
    """Who makes a request: what the plugin's tenant and actor dependencies have returned (see `get_caller`).

    ``tenant`` is None if the request names no tenant, ``actor`` if it has none.
    """

    tenant: T
    actor: A


@dataclass(frozen=True, slots=True)
class RequestIdentity:
    """The tenant and the actor of a request. ``missing`` is the exception to raise if a tenant is needed but not named.

    ``actor`` is what is stored of the actor, as in audit columns. ``person`` is the actor itself, such as a user's row.
    ``request`` is the method and the path, which are logged if the tenant is `ALL_TENANTS`; None outside of a request.
    """

    tenant: object = None
    actor: str | None = None
    missing: TenantRequiredError | None = None
    request: str | None = None
    person: object = None

    def refusal(self, reason: str) -> TenantRequiredError:
        """The exception for a missing tenant: a 400 if the request should have named one, else a 500."""
        return self.missing or TenantNotAskedError(
            f"{reason} The app's code names no tenant: give the plugin a dependency that returns the tenant, "
            "DatabasePlugin(url, tenant=…), or name the tenant of your own session, plugin.session(tenant=…)."
        )


NOBODY = RequestIdentity()


async def identity_of(source: Source, connection: HTTPConnection, response: Response | None = None) -> RequestIdentity:
    """The request's tenant and actor. The source's dependencies are solved once for a request."""
    if source.tenant is None and source.actor is None:
        return NOBODY
    known: dict[int, RequestIdentity | None] = connection.scope.setdefault(_SCOPE, {})
    key = id(source)
    if key not in known:
        known[key] = None
        try:
            known[key] = await _solved(source, connection, response)
        finally:
            if known[key] is None:
                del known[key]
    identity = known[key]
    if identity is None:
        raise MisuseError(
            "The dependency that names the tenant or the actor needs the request's session or repository, which needs "
            "the tenant first: take Depends(get_identity_session) in it."
        )
    return identity


def declare_need(dependency: Endpoint, *, tenant: bool) -> None:
    """Register whether a dependency needs the request's tenant."""
    setattr(dependency, _NEEDS, tenant)


def tenant_of(source: Source, calls: Iterable[Endpoint]) -> Endpoint | None:
    """The dependency that names the tenant for a route with these dependencies; None: the route needs no tenant.

    A tenant that is read from the request itself is always read, since that can't fail without a tenant.
    """
    if source.tenant is None or isinstance(source.tenant, TenantSource):
        return source.tenant
    needs = [need for call in calls if isinstance(need := getattr(call, _NEEDS, None), bool)]
    return source.tenant if any(needs) or not needs else None


def forget_identities(connection: HTTPConnection) -> None:
    """Forget the request's tenant and actor, so that their dependencies are solved again in the next attempt."""
    connection.scope.pop(_SCOPE, None)


class IdentitySession(Protocol):
    """A session that a dependency for the tenant or the actor has opened."""

    def end(self) -> Awaitable[None]:
        """End the session, and detach its objects."""
        ...


async def _solved(source: Source, connection: HTTPConnection, response: Response | None) -> RequestIdentity:
    sessions: dict[object, IdentitySession] = connection.scope.setdefault(IDENTITY_SESSIONS, {})
    before = set(sessions)
    try:
        return await _answers(source, connection, response)
    finally:
        # The request's own session needs a connection too, and a request must not wait for a second one.
        for key in sessions.keys() - before:
            await sessions[key].end()


async def _answers(source: Source, connection: HTTPConnection, response: Response | None) -> RequestIdentity:
    tenant: object = None
    actor: object = None
    missing: TenantRequiredError | None = None
    refusals: list[Exception] = []
    cache: SolvedDependencies = {}
    ask = tenant_of(source, calls_of_route(connection))
    if ask is not source.tenant:
        missing = TenantNotAskedError(
            "The route depends only on repositories of classes without a tenant, so its request is not asked for "
            "one: depend on get_session, or on the repository of the tenant-scoped class."
        )
    try:
        tenant = await _value(ask, connection, response, cache)
    except REFUSALS as refused:
        # A missing tenant is an error only if a tenant-scoped model is used; a malformed one is always an error.
        if _is_missing(refused):
            missing = refused
        else:
            refusals.append(refused)
    try:
        actor = await _value(source.actor, connection, response, cache)
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
    return RequestIdentity(tenant, key_of(actor, source.actor_key), missing, request, actor)


def _is_missing(refused: Exception) -> TypeGuard[TenantRequiredError]:
    if isinstance(refused, BadTenantError):
        return isinstance(refused, MissingTenantError)
    return isinstance(refused, TenantRequiredError) and not isinstance(refused, MisuseError)


async def _value(
    dependency: Endpoint | None, connection: HTTPConnection, response: Response | None, cache: SolvedDependencies
) -> object:
    if dependency is None:
        return None
    if isinstance(dependency, TenantSource) and not overridden(connection, dependency):
        return dependency.read(connection)
    return await solve(dependency, connection, response, cache)
