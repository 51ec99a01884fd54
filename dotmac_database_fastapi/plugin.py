"""`DatabasePlugin`: a database of a FastAPI app."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack, overload

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import (
    AsyncRepository,
    AsyncTenantRepository,
    BaseRepository,
    BaseTenantRepository,
    Database,
    PaginationHelper,
    Policy,
    RowLevelSecurity,
    StatementBudget,
    check_tenant_keys,
    create_database,
    traits_of,
)

from .actors import ActorKey, key_of
from .aliases import Endpoint
from .dependencies import A, Dependencies, M, S, T, models_of
from .entities import EntityKeywords, entity_of
from .idempotency import DAY, checked_ttl
from .identity import RequestIdentity
from .job_headers import JobKey, JobSigner
from .jobs import resumed, sync_resumed
from .openapi import describe
from .registry import PluginError, register
from .ruling import policies_of
from .session_makers import SessionMakers
from .sessions import async_unit, sync_unit
from .source import CursorKey, Source
from .sync_limits import SyncLimit

if TYPE_CHECKING:
    from fastapi import FastAPI


_log = logging.getLogger(__name__)

STATEMENT_TIMEOUT = 30.0
IDLE_TIMEOUT = 60.0
"""The default time limits of a plugin, in seconds."""


class DatabasePlugin:
    """A database, and the dependencies that give a request its session and repositories.

    Use ``app = FastAPI(lifespan=plugin.lifespan)`` or ``plugin.install(app)``; no connection is made before the first
    request. ``tenant`` and ``actor`` are FastAPI dependencies that return the request's tenant and audit user; for a
    request without a tenant, ``tenant`` returns None or raises `TenantRequiredError`. The actor may be any object (see
    `session_actor`); ``actor_key`` is a function of it that returns what is stored of it in audit columns and jobs, by
    default its primary key or ``id``, else ``str(actor)``. ``cursor_key`` signs cursors.
    ``job_key`` signs the headers of `carry` for `resume`: bytes or a text of at least 16 bytes, or several for
    rotation, of which the first signs. ``load_actor(session, key)`` makes the actor of a job of its key, or returns
    None if there is no such actor any more. A coroutine function gets an `AsyncSession`, a plain function a `Session`,
    which reads for the job's tenant. Without it the actor of a job is its key.
    ``rls`` names the tenant to PostgreSQL in each transaction. ``tenant_free`` names the views, tables and functions
    that requests may read although no mapped class describes them (see `guard_tenants`). ``name`` distinguishes the
    plugins of an app. ``options`` are those of `create_database`: ``pool_size``, ``max_overflow``, ``pool_timeout``,
    ``connect_timeout``, ``strict_loading``, ``new_id``, ….

    ``policies`` say what each actor may do with which rows (see `Policy`). They need ``actor``, and hold for all
    repositories of a request, also those that you make on its session, and for relationships into their models. A model
    without a policy is ruled by tenancy alone; with ``policies_required`` it is refused. For a request without an
    actor, the policies' functions are called with None.

    On PostgreSQL a statement may take ``statement_timeout`` seconds, and a transaction may be idle for
    ``idle_in_transaction_timeout`` seconds; beyond that the request fails with `DatabaseTimeoutError`, a 503. None sets
    no limit. The limits are settings of the connections, and cost no statement; `session` lifts them with
    ``unlimited``. A transaction pooler (``transaction_pooler=True``) does not preserve such settings, so the defaults
    are not set, and other values are refused: set them for the role, ``ALTER ROLE … SET statement_timeout = '30s'``.
    SQLite has neither limit.

    Idempotency keys are kept for ``idempotency_ttl`` (seconds, or a timedelta), unless a router overrides it. When the
    app starts, each key of the served tables that does not include the tenant is logged as a warning with its remedy;
    with ``strict`` it is a `TenantIsolationError` (see `check_tenant_keys`). Tenant-scoped models that are served by a
    plugin without ``tenant`` are a warning too, and with ``strict`` a `PluginError`.

    Each request may send as many statements as the ``statement_budget`` allows; a number warns when there are more, and
    a `StatementBudget` can also refuse them. None: there is no limit.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        tenant: Callable[..., object] | None = None,
        actor: Callable[..., object] | None = None,
        cursor_key: CursorKey = None,
        name: str = "default",
        rls: RowLevelSecurity | None = None,
        actor_key: ActorKey | None = None,
        load_actor: Callable[..., object] | None = None,
        job_key: JobKey | None = None,
        tenant_free: Iterable[str] = (),
        policies: Iterable[Policy[Any]] = (),
        policies_required: bool = False,
        statement_timeout: float | None = STATEMENT_TIMEOUT,
        idle_in_transaction_timeout: float | None = IDLE_TIMEOUT,
        idempotency_ttl: float | timedelta = DAY,
        strict: bool = False,
        statement_budget: StatementBudget | int | None = None,
        **options: Any,
    ) -> None:
        PaginationHelper.encode_cursor("", cursor_key)  # raises for a key that is too short, before any request uses it
        if options.get("transaction_pooler"):
            statement_timeout = None if statement_timeout == STATEMENT_TIMEOUT else statement_timeout
            idle_in_transaction_timeout = (
                None if idle_in_transaction_timeout == IDLE_TIMEOUT else idle_in_transaction_timeout
            )
        ruling = policies_of(policies, required=policies_required, actor=actor)
        database = create_database(
            url,
            statement_timeout=statement_timeout,
            idle_in_transaction_timeout=idle_in_transaction_timeout,
            **options,
        )
        budget = StatementBudget(statement_budget) if isinstance(statement_budget, int) else statement_budget
        database.is_observed = budget is not None
        self.source = Source(
            name=name,
            database=database,
            makers=SessionMakers(database, rls=rls, tenant_free=frozenset(tenant_free)),
            sync_limit=SyncLimit(options),
            idempotency_ttl=checked_ttl(idempotency_ttl),
            tenant=tenant,
            actor=actor,
            cursor_key=cursor_key,
            rls=rls,
            actor_key=actor_key,
            load_actor=load_actor,
            job_signer=None if job_key is None else JobSigner(job_key, name),
            statement_budget=budget,
            policies=ruling,
        )
        self.strict = strict
        self._dependencies = Dependencies(self.source)
        self.get_session = self._dependencies.get_session
        self.get_sync_session = self._dependencies.get_sync_session
        self.get_identity_session = self._dependencies.get_identity_session
        self.get_sync_identity_session = self._dependencies.get_sync_identity_session
        self.get_caller = self._dependencies.get_caller

    def __repr__(self) -> str:
        return f"DatabasePlugin({self.database.url.render_as_string()!r}, name={self.name!r})"

    @property
    def name(self) -> str:
        """The name that distinguishes the plugins of an app."""
        return self.source.name

    @property
    def database(self) -> Database:
        """The database, with its engines. The sessions of its factories are not guarded: see `sessions`."""
        return self.source.database

    @property
    def sessions(self) -> sessionmaker[Session]:
        """The factory of the sync sessions of requests, guarded, with the plugin's ``rls`` and ``tenant_free``.

        Its sessions are bound to no tenant and have no policies: it is there to be tested (see `find_leaks`). In tests,
        ``plugin.sessions(bind=engine)`` is such a session on the tests' database. Other code takes `sync_session`.
        """
        return self.source.makers.sync_maker

    @property
    def async_sessions(self) -> async_sessionmaker[AsyncSession]:
        """As `sessions`, of the async sessions (see `async_find_leaks`). Other code takes `session`.

        PostgreSQL's connections belong to one event loop: pass ``bind=`` in tests that have a loop each.
        """
        return self.source.makers.async_maker

    @property
    def rls(self) -> RowLevelSecurity | None:
        """The row-level security that the sessions name their tenant to; None: there is none."""
        return self.source.rls

    @property
    def policies(self) -> tuple[Policy[Any], ...]:
        """The policies of the requests."""
        return () if self.source.policies is None else self.source.policies.members

    @property
    def tenant(self) -> Callable[..., object] | None:
        """The FastAPI dependency that names a request's tenant."""
        return self.source.tenant

    @property
    def actor(self) -> Callable[..., object] | None:
        """The FastAPI dependency that names a request's audit user."""
        return self.source.actor

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
        return self._dependencies.get_repository(target, policy=policy)

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
        return self._dependencies.get_sync_repository(target, policy=policy)

    @overload
    def get_entity(
        self,
        target: type[AsyncRepository[M, Any]],
        param: str | Sequence[str] = "id",
        **options: Unpack[EntityKeywords],
    ) -> Callable[..., Awaitable[M]]: ...
    @overload
    def get_entity(
        self, target: type[M], param: str | Sequence[str] = "id", **options: Unpack[EntityKeywords]
    ) -> Callable[..., Awaitable[M]]: ...
    def get_entity(
        self, target: type, param: str | Sequence[str] = "id", **options: Unpack[EntityKeywords]
    ) -> Endpoint:
        """As the function `get_entity`, on this plugin's session."""
        return entity_of(self.get_repository(target), target, param, options)

    def install(self, app: FastAPI) -> None:
        """Add the plugin to ``app``. The app's own lifespan runs inside the plugin's."""
        self._register(app)
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(running: FastAPI) -> AsyncIterator[Any]:
            async with self.lifespan(running), inner(running) as state:
                yield state

        app.router.lifespan_context = lifespan

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Serve ``app`` while it runs, and close all connections afterwards. Connects to nothing."""
        self._register(app)
        self._check_tenant(app)
        self._check_keys(app)
        try:
            yield
        finally:
            await self.database.dispose_async()

    def _register(self, app: FastAPI) -> None:
        register(app, self.source)
        describe(app)

    def _check_tenant(self, app: FastAPI) -> None:
        models = [model.__name__ for model in self._dependencies.tenant_models(app)] if self.tenant is None else []
        if not models:
            return
        message = (
            f"{', '.join(models)}: the rows belong to tenants, and {self!r} asks no request for its tenant, so each "
            "request for them fails. Give the plugin a dependency that names the tenant, DatabasePlugin(url, tenant=…)."
        )
        if self.strict:
            raise PluginError(message)
        _log.warning(message)

    def _check_keys(self, app: FastAPI) -> None:
        served = {table.metadata: None for model in models_of(app) for table in traits_of(model).tables}
        if self.source.rls is not None:
            served[self.source.rls.metadata] = None
        for metadata in served:
            check_tenant_keys(metadata, strict=self.strict)

    def session(
        self, tenant: object = None, actor: object = None, *, unlimited: bool = False
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """A session for background tasks, streams and scripts: ``async with plugin.session(tenant="t")``.

        It is guarded and bound to the tenant like a request's session, committed when the block ends, and rolled back
        by any exception. With ``tenant=None`` only models without a tenant can be used. With `ALL_TENANTS` the block
        works across tenants, which is logged. ``unlimited`` lifts the plugin's timeouts, for an export or a migration:
        the block's transaction then begins at once, with one more statement.

        With ``actor`` the plugin's policies hold for the repositories of the block. Without one they do not: the block
        is trusted code.
        """
        return async_unit(self.source, self._identity(tenant, actor), unlimited=unlimited)

    def sync_session(
        self, tenant: object = None, actor: object = None, *, unlimited: bool = False
    ) -> AbstractContextManager[Session]:
        """As `session`, sync."""
        return sync_unit(self.source, self._identity(tenant, actor), unlimited=unlimited)

    def resume(
        self, headers: Mapping[str, object] | None, *, max_age: float | None = None, unlimited: bool = False
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """A session for a job: ``async with plugin.resume(message.headers) as session``.

        It is the session of `session` for the tenant and the actor that `carry` has put into the headers. Its block
        has the request's id, too (`current_request_id`). Other headers are ignored. ``max_age`` is the time for which
        the headers are valid, in seconds; None: for ever, so that a copy of them can be used at any time.

        Before a connection is used, it raises `JobHeadersError` for headers that are missing, altered, expired, or
        signed by another key or for a plugin of another name, and `PluginError` if the plugin has no ``job_key``. A
        tenant that its `TenantDirectory` does not call active is a `SuspendedTenantError` or an `UnknownTenantError`.
        ``load_actor`` may send statements, on a session of its own.
        """
        return resumed(self.source, headers, max_age, unlimited=unlimited)

    def sync_resume(
        self, headers: Mapping[str, object] | None, *, max_age: float | None = None, unlimited: bool = False
    ) -> AbstractContextManager[Session]:
        """As `resume`, sync, for workers such as Celery's. ``load_actor`` must be a plain function."""
        return sync_resumed(self.source, headers, max_age, unlimited=unlimited)

    def _identity(self, tenant: object, actor: object) -> RequestIdentity:
        return RequestIdentity(tenant, key_of(actor, self.source.actor_key), person=actor)
