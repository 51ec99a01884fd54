"""The FastAPI dependencies that give a request its session and its repositories."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

from fastapi import Depends, FastAPI, Response
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from dotmac_database import (
    AsyncRepository,
    AsyncTenantRepository,
    BaseRepository,
    BaseTenantRepository,
    Policy,
    TenantScoped,
    traits_of,
)

from .aliases import Endpoint
from .identity import Caller, RequestIdentity, declare_need, identity_of
from .internals import OperationRoute, calls_of, dependencies_of, follow_override, surround_overrides
from .refusals import REFUSALS, raise_identity
from .registry import only_source, source_of
from .repository_factory import AnyRepository, AnySession, Build, builder
from .request_telemetry import observe_request
from .ruling import RULED, no_actor
from .sessions import identity_session, identity_sync_session, lent_session, request_session, request_sync_session
from .source import Source

M = TypeVar("M")
T = TypeVar("T", bound=TenantScoped)
A = TypeVar("A", bound=AsyncRepository[Any, Any])
S = TypeVar("S", bound=BaseRepository[Any, Any])


class Dependencies:
    """The dependencies of one source; without a source, those of the only plugin of the request's app.

    ``Depends(…get_session)`` gives the request's async session, guarded and bound to the request's tenant;
    ``get_sync_session`` gives the sync one, for ``def`` endpoints. A request has at most one session of each kind, with
    one transaction. The first write begins the transaction, and it is committed before the response is sent.
    """

    get_session: Callable[..., Awaitable[AsyncSession]]
    get_sync_session: Callable[..., Awaitable[Session]]
    get_identity_session: Callable[..., Awaitable[AsyncSession]]
    get_sync_identity_session: Callable[..., Awaitable[Session]]
    get_caller: Callable[..., Awaitable[Caller]]

    def __init__(self, source: Source | None = None) -> None:
        # These functions are not generators, so Depends() can name them with any scope, and FastAPI does not have to
        # call them through several layers. They put the end of the session on FastAPI's exit stack themselves.
        async def get_session(connection: HTTPConnection, response: Response) -> AsyncSession:
            """The request's async session."""
            chosen = source or source_of(connection)
            identity = await _identified(chosen, connection, response, get_session)
            return await request_session(chosen, connection, identity)

        async def get_sync_session(connection: HTTPConnection, response: Response) -> Session:
            """The request's sync session."""
            chosen = source or source_of(connection)
            identity = await _identified(chosen, connection, response, get_sync_session)
            return await request_sync_session(chosen, connection, identity)

        async def get_identity_session(connection: HTTPConnection) -> AsyncSession:
            """An async session for the dependencies that find the tenant and the actor."""
            return await identity_session(source or source_of(connection), connection)

        async def get_sync_identity_session(connection: HTTPConnection) -> Session:
            """A sync session for the dependencies that find the tenant and the actor."""
            return await identity_sync_session(source or source_of(connection), connection)

        async def get_caller(connection: HTTPConnection, response: Response) -> Caller:
            """The request's tenant and actor."""
            identity = await _identified(source or source_of(connection), connection, response, get_caller)
            return Caller(identity.tenant, identity.person)

        for replaceable in (get_session, get_sync_session):
            surround_overrides(replaceable, lambda replacement: _lending(source, replacement))
            setattr(replaceable, _SOURCE, source)
            declare_need(replaceable, tenant=True)
        setattr(get_caller, _SOURCE, source)
        declare_need(get_caller, tenant=True)
        self.get_identity_session = get_identity_session
        self.get_sync_identity_session = get_sync_identity_session
        self.get_caller = get_caller
        self._source = source
        self.get_session = get_session
        self.get_sync_session = get_sync_session
        self._repositories: dict[tuple[type, str, Policy[Any] | None], Endpoint] = {}

    def tenant_models(self, app: FastAPI) -> list[type]:
        """The tenant-scoped models whose repositories of these dependencies the operations of ``app`` depend on."""
        own = {*self._repositories.values(), *_ONLY_PLUGIN._repositories.values()}
        models = _models(call for call in dependencies_of(app) if call in own)
        return [model for model in models if traits_of(model).tenant is not None]

    @overload
    def get_repository(  # type: ignore[overload-overlap]  # a repository has a tenant_id, too
        self, target: type[A], *, policy: Policy[Any] | None = None
    ) -> Callable[..., Awaitable[A]]: ...
    @overload
    def get_repository(
        self, target: type[T], *, policy: Policy[Any] | None = None
    ) -> Callable[..., Awaitable[AsyncTenantRepository[T]]]: ...
    @overload
    def get_repository(
        self, target: type[M], *, policy: Policy[Any] | None = None
    ) -> Callable[..., Awaitable[AsyncRepository[M]]]: ...
    def get_repository(self, target: type, *, policy: Policy[Any] | None = None) -> Endpoint:
        """A dependency that gives the repository of ``target``: a mapped class, or a repository class of the user's.

        The repository is for the request's tenant, on the request's session. The same class gives the same dependency.
        If the class is tenant-scoped and the request names no tenant, the response is a 400.
        ``policy`` takes the place of the plugin's for this class; it needs the plugin's ``actor``.
        """
        return self._dependency(target, AsyncRepository, self.get_session, request_session, policy)

    @overload
    def get_sync_repository(  # type: ignore[overload-overlap]  # a repository has a tenant_id, too
        self, target: type[S], *, policy: Policy[Any] | None = None
    ) -> Callable[..., Awaitable[S]]: ...
    @overload
    def get_sync_repository(
        self, target: type[T], *, policy: Policy[Any] | None = None
    ) -> Callable[..., Awaitable[BaseTenantRepository[T]]]: ...
    @overload
    def get_sync_repository(
        self, target: type[M], *, policy: Policy[Any] | None = None
    ) -> Callable[..., Awaitable[BaseRepository[M]]]: ...
    def get_sync_repository(self, target: type, *, policy: Policy[Any] | None = None) -> Endpoint:
        """As `get_repository`, on the request's sync session, for ``def`` endpoints."""
        return self._dependency(target, BaseRepository, self.get_sync_session, request_sync_session, policy)

    def _dependency(
        self,
        target: type,
        base: type,
        get_session: Endpoint,
        opening: Callable[..., Awaitable[AnySession]],
        policy: Policy[Any] | None,
    ) -> Endpoint:
        cached = self._repositories.get((target, base.__name__, policy))
        if cached is not None:
            return cached
        build, source = builder(target, base, policy), self._source
        if policy is not None and source is not None and source.actor is None:
            raise no_actor()

        async def on_session(
            connection: HTTPConnection, response: Response, session: AnySession = Depends(get_session)
        ) -> AnyRepository:
            chosen = source or source_of(connection)
            if policy is not None:
                _check_actor(chosen, connection)
            identity = await identity_of(chosen, connection, response)
            return await _built(build, session, identity, chosen, connection, on_session)

        # FastAPI needs some forty calls for each dependency. So this one opens the session itself, and depends on
        # `get_session` only in an app that overrides it.
        async def repository(connection: HTTPConnection, response: Response) -> AnyRepository:
            chosen = source or source_of(connection)
            if policy is not None:
                _check_actor(chosen, connection)
            identity = await _identified(chosen, connection, response, repository)
            session = await opening(chosen, connection, identity)
            return await _built(build, session, identity, chosen, connection, repository)

        follow_override(repository, get_session, instead=on_session)
        repository.__name__ = f"{target.__name__}_repository"
        setattr(repository, _SOURCE, source)
        model = _MODELS[repository] = getattr(target, "declared_model", None) or target
        declare_need(repository, tenant=issubclass(model, base) or traits_of(model).tenant is not None)
        self._repositories[target, base.__name__, policy] = repository
        return repository


def _check_actor(source: Source, connection: HTTPConnection) -> None:
    """Mark a request whose repository has a policy of its own. Raises `MisuseError` if the plugin knows no actor."""
    if source.actor is None:
        raise no_actor()
    connection.scope[RULED] = True


async def _built(
    build: Build,
    session: AnySession,
    identity: RequestIdentity,
    source: Source,
    connection: HTTPConnection,
    call: Endpoint,
) -> AnyRepository:
    """The repository on this session, for the dependency ``call``."""
    try:
        return build(session, identity, source.cursor_key)
    except REFUSALS as refused:
        await raise_identity(connection, call, refused)
        raise


def _lending(source: Source | None, replacement: Endpoint) -> Endpoint:
    """A dependency that wraps an override of the session in the request's unit of work, tenant and actor.

    Without ``source``, the tenant and the actor are None in an app that has no plugin, or more than one.
    """

    async def lent(connection: HTTPConnection, response: Response, session: object = Depends(replacement)) -> object:
        chosen = source or only_source(connection)
        identity = RequestIdentity() if chosen is None else await _identified(chosen, connection, response, lent)
        if chosen is not None and chosen.database.is_observed:
            observe_request(chosen, connection, identity.tenant)
        return await lent_session(connection, identity, session, chosen)

    setattr(lent, _SOURCE, source)
    return lent


async def _identified(
    source: Source, connection: HTTPConnection, response: Response, call: Endpoint
) -> RequestIdentity:
    """The request's tenant and actor, for the dependency ``call``.

    If the tenant or the actor is refused, and a dependency that FastAPI would solve after ``call`` raises a 401 or 403,
    that exception is raised instead.
    """
    try:
        return await identity_of(source, connection, response)
    except REFUSALS as refused:
        await raise_identity(connection, call, refused)
        raise


def models_of(app: FastAPI) -> list[type]:
    """The mapped classes whose repositories the app's operations depend on."""
    return _models(dependencies_of(app))


def served_by(route: OperationRoute) -> tuple[list[Source | None], list[type]]:
    """The sources of a route's sessions (None: that of the app's only plugin), and the classes of its repositories."""
    calls = list(calls_of(route.dependant))
    sources = dict.fromkeys(getattr(call, _SOURCE) for call in calls if hasattr(call, _SOURCE))
    return list(sources), _models(calls)


def _models(calls: Iterable[Endpoint]) -> list[type]:
    """The mapped classes of the repositories among these dependencies."""
    # A dependency of the user's may be an object that can't be weakly referenced.
    models = (_MODELS.get(call) for call in calls if inspect.isfunction(call))
    return list(dict.fromkeys(model for model in models if model is not None))


_SOURCE = "dotmac_database_source"
"""The attribute by which a dependency that opens a session names its source."""

_MODELS: WeakKeyDictionary[Endpoint, type] = WeakKeyDictionary()
"""The mapped class of each dependency that gives a repository."""

_ONLY_PLUGIN = Dependencies()

get_session = _ONLY_PLUGIN.get_session
get_sync_session = _ONLY_PLUGIN.get_sync_session
get_identity_session = _ONLY_PLUGIN.get_identity_session
get_sync_identity_session = _ONLY_PLUGIN.get_sync_identity_session
get_caller = _ONLY_PLUGIN.get_caller
get_repository = _ONLY_PLUGIN.get_repository
get_sync_repository = _ONLY_PLUGIN.get_sync_repository
