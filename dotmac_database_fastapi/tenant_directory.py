"""`TenantDirectory`: tenants as rows with a life. A suspended or unknown tenant's requests are refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from dotmac_database import (
    FieldName,
    MisuseError,
    QueryFilter,
    QueryOptions,
    Traits,
    ValidationError,
    bound_tenant,
    create_async_repository,
    create_repository,
    names_for,
    on_commit,
    restrict_to_reads,
    traits_of,
)

from .aliases import Endpoint
from .identity import NOBODY
from .registry import PluginError, source_of, sources_of
from .session_callers import AnySession, caller_of
from .sessions import async_unit, sync_unit
from .source import Plugin, Source
from .tenant_states import TenantState, TenantStates
from .tenants import UnknownTenantError

M = TypeVar("M")

TTL = 5.0
"""For how long a tenant's state is remembered by default, in seconds."""

MAX_TENANTS = 10_000

_DIRECTORY = "dotmac_database_directory"
_WRAPPED = "dotmac_database_wrapped_tenant"


class TenantDirectory(Generic[M]):
    """The tenants of an app, as rows of a model of the app's own: ``TenantDirectory(Tenant)``.

    ``model`` is a mapped class without a tenant. ``active`` names its boolean column, which is false while the tenant
    is suspended. ``name`` names the column with the tenant's name; None: the primary key, which is one column. A
    soft-deleted row is no tenant.

    A state is remembered for ``ttl`` seconds, 5 by default; 0: not at all. `suspend` and `resume` are effective at once
    in their own process, and within ``ttl`` seconds in others and after all other changes of the rows. At most
    ``max_tenants`` states are remembered.

    The rows are read in the database of the plugin whose ``tenant`` is `active`. ``plugin``: they are in the database
    of that one. Raises `ValidationError` for a model that has a tenant, or has no such columns.
    """

    def __init__(
        self,
        model: type[M],
        *,
        active: FieldName = "is_active",
        name: FieldName | None = None,
        ttl: float = TTL,
        max_tenants: int = MAX_TENANTS,
        plugin: Plugin | None = None,
    ) -> None:
        traits: Traits[M] = traits_of(model)
        if traits.tenant is not None:
            raise ValidationError(f"{model.__name__} belongs to tenants, so it can't be the directory of all tenants.")
        if name is None and len(traits.primary_key) != 1:
            raise ValidationError(f"{model.__name__} has no primary key of one column: give name=.", field="name")
        if not ttl >= 0:
            raise ValidationError("ttl is a number of seconds, or 0.", field="ttl")
        if max_tenants < 1:
            raise ValidationError("max_tenants is at least 1.", field="max_tenants")
        self._model = model
        self._active = _column(traits, active, "active")
        self._name = traits.primary_key[0] if name is None else _column(traits, name, "name")
        self._ttl = ttl
        self._max_tenants = max_tenants
        self._plugin = plugin
        self._states: WeakKeyDictionary[Source, TenantStates] = WeakKeyDictionary()
        self._dependencies: dict[Hashable, Endpoint] = {}

    def active(self, tenant: Callable[..., object]) -> Endpoint:
        """A dependency that names the tenant as ``tenant`` does, and refuses a tenant that is not active.

        ``DatabasePlugin(url, tenant=directory.active(tenant_from_header()))``. A suspended tenant gets a 403
        (`SuspendedTenantError`), and an unknown one a 404 (`UnknownTenantError`). If the state is not remembered, one
        statement reads it, on a session of its own, before the request has a connection; if that fails, the request
        fails with its exception, such as a 503. None and `ALL_TENANTS` pass. The same ``tenant`` gives the same object.
        """
        if tenant not in self._dependencies:

            async def active_tenant(connection: HTTPConnection, named: object = Depends(tenant)) -> object:
                """The request's tenant, which is active."""
                await self.states_of(self._source_of(connection, active_tenant)).check(named)
                return named

            setattr(active_tenant, _DIRECTORY, self)
            setattr(active_tenant, _WRAPPED, tenant)
            self._dependencies[tenant] = active_tenant
        return self._dependencies[tenant]

    async def check(self, session: AnySession) -> None:
        """Raise `SuspendedTenantError` or `UnknownTenantError` unless the tenant of ``session`` is active now.

        For work that takes long, before each of its steps. ``session`` is one of a plugin's, such as that of a job, and
        is not used for the statement, if there is one. A session without a tenant is not refused.
        """
        await self.states_of(_source(session)).check(bound_tenant(session))

    def sync_check(self, session: AnySession) -> None:
        """As `check`, for ``def`` functions."""
        self.states_of(_source(session)).sync_check(bound_tenant(session))

    async def suspend(self, session: AsyncSession, tenant: object) -> None:
        """Suspend a tenant: after the session's COMMIT its requests are refused, and its exports end.

        One statement, in the transaction of ``session``. Raises `UnknownTenantError` if there is no such tenant.
        """
        await self._change(session, tenant, active=False)

    async def resume(self, session: AsyncSession, tenant: object) -> None:
        """Let a suspended tenant work again, after the session's COMMIT. As `suspend`."""
        await self._change(session, tenant, active=True)

    def sync_suspend(self, session: Session, tenant: object) -> None:
        """As `suspend`, on a `Session`."""
        self._sync_change(session, tenant, active=False)

    def sync_resume(self, session: Session, tenant: object) -> None:
        """As `resume`, on a `Session`."""
        self._sync_change(session, tenant, active=True)

    def forget(self) -> None:
        """Forget all states in this process, after the rows were changed by other means. Sends no statement."""
        for states in list(self._states.values()):
            states.forget()

    def states_of(self, source: Source) -> TenantStates:
        """The states of the tenants for the requests of a plugin."""
        chosen = source if self._plugin is None else self._plugin.source
        states = self._states.get(chosen)
        if states is None:
            reader = _Reader(chosen, self._model, self._name, self._active)
            new = TenantStates(reader.find, reader.sync_find, ttl=self._ttl, size=self._max_tenants)
            states = self._states.setdefault(chosen, new)
        return states

    def _source_of(self, connection: HTTPConnection, dependency: Endpoint) -> Source:
        if self._plugin is not None:
            return self._plugin.source
        named = [each for each in sources_of(connection.scope.get("app")).values() if each.tenant is dependency]
        if len(named) > 1:
            raise PluginError("Several plugins have this tenant directory: say which one has its rows, plugin=….")
        return named[0] if named else source_of(connection)

    async def _change(self, session: AsyncSession, tenant: object, *, active: bool) -> None:
        rows = create_async_repository(session, self._model)
        on_commit(session, self.forget)
        if not await rows.update_where(self._named(tenant), {self._active: active}):
            raise UnknownTenantError

    def _sync_change(self, session: Session, tenant: object, *, active: bool) -> None:
        rows = create_repository(session, self._model)
        on_commit(session, self.forget)
        if not rows.update_where(self._named(tenant), {self._active: active}):
            raise UnknownTenantError

    def _named(self, tenant: object) -> list[QueryFilter]:
        return [QueryFilter(self._name, "eq", tenant)]


def directory_of(tenant: Endpoint | None) -> TenantDirectory[object] | None:
    """The directory whose dependency names a plugin's tenant; None if the plugin has none."""
    directory: TenantDirectory[object] | None = getattr(tenant, _DIRECTORY, None)
    return directory


def states_for(source: Source) -> TenantStates | None:
    """The states that a plugin's directory has of its tenants; None if the plugin has no directory."""
    directory = directory_of(source.tenant)
    return None if directory is None else directory.states_of(source)


def named_by(tenant: Endpoint | None) -> Endpoint | None:
    """The dependency that names the tenant, without a directory's around it."""
    wrapped: Endpoint | None = getattr(tenant, _WRAPPED, tenant)
    return wrapped


class _Reader(Generic[M]):
    """Reads the state of a tenant, in a session of its own that only reads."""

    def __init__(self, source: Source, model: type[M], name: str, active: str) -> None:
        self._source = source
        self._model = model
        self._name = name
        self._active = active

    async def find(self, tenant: object) -> TenantState:
        """The state of a tenant. Sends one statement."""
        async with async_unit(self._source, NOBODY) as session:
            restrict_to_reads(session)
            rows = create_async_repository(session, self._model).values(self._active)
            try:
                return _state(await rows.list(self._options(tenant)), self._active)
            except ValidationError as refused:
                return _no_name(refused)

    def sync_find(self, tenant: object) -> TenantState:
        """As `find`, on a `Session`."""
        with sync_unit(self._source, NOBODY) as session:
            restrict_to_reads(session)
            rows = create_repository(session, self._model).values(self._active)
            try:
                return _state(rows.list(self._options(tenant)), self._active)
            except ValidationError as refused:
                return _no_name(refused)

    def _options(self, tenant: object) -> QueryOptions:
        return QueryOptions(filters=[QueryFilter(self._name, "eq", tenant)])


def _state(rows: list[dict[str, object]], active: str) -> TenantState:
    if not rows:
        return TenantState.UNKNOWN
    # Two rows of one name are a fault of the model's, which has no unique constraint: one that is suspended counts.
    return TenantState.ACTIVE if all(row[active] for row in rows) else TenantState.SUSPENDED


def _no_name(refused: ValidationError) -> TenantState:
    """A name that the column can't have, such as a text where tenants are integers, is that of no tenant."""
    if isinstance(refused, MisuseError):
        raise refused
    return TenantState.UNKNOWN


def _column(traits: Traits[M], field: FieldName, option: str) -> str:
    [name] = names_for(traits.model, [field])
    if name not in traits.columns:
        raise ValidationError(f"{traits.model.__name__} has no column {name!r}, which {option}= names.", field=option)
    return name


def _source(session: AnySession) -> Source:
    caller = caller_of(session)
    if caller is None or caller[0] is None:
        raise PluginError("check() needs a session of a DatabasePlugin: the request's, or one of plugin.session(…).")
    return caller[0]
