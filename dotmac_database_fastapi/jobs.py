"""Jobs that work for the tenant and the actor of the request that sent them: `carry` and `DatabasePlugin.resume`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeGuard

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import ALL_TENANTS, MisuseError, bound_tenant, current_actor, is_guarded, restrict_to_reads

from .identity import RequestIdentity
from .job_headers import JobCaller, JobFault, JobHeadersError, JobSigner
from .registry import PluginError
from .request_ids import current_request_id, new_request_id, request_id_of, within_job
from .session_callers import AnySession, caller_of
from .sessions import async_unit, sync_unit
from .source import Source
from .tenant_directory import states_for


def carry(session: AnySession) -> dict[str, str]:
    """The tenant, the actor and the request id of a session as signed headers, for a message of a job queue.

    ``session`` is a request's, or one of `DatabasePlugin.session` and `DatabasePlugin.resume`. The tenant is the one to
    which the session is bound now; a session without a tenant, or without an actor, carries none. Names and values are
    ASCII. The worker passes them to `DatabasePlugin.resume`. Whoever reads the queue can read them, and can send them
    again with another job: they say for whom a job works, and nothing about what it does.

    Raises `PluginError` if the session is of no plugin or its plugin has no ``job_key``, and `MisuseError` for a
    session of `ALL_TENANTS`: such a job names its tenants itself. Sends no statement.
    """
    caller = caller_of(session)
    source = None if caller is None else caller[0]
    if caller is None or source is None:
        raise PluginError("carry() needs a session of a DatabasePlugin: the request's, or one of plugin.session(…).")
    _, identity, scope = caller
    tenant = bound_tenant(session) if is_guarded(session) else identity.tenant
    if tenant is ALL_TENANTS:
        raise MisuseError(
            "A job can't carry ALL_TENANTS: send its tenants as arguments, and use plugin.session(tenant) in the job."
        )
    request_id = (current_request_id() or new_request_id()) if scope is None else request_id_of(scope)
    actor = current_actor() if identity.actor is None else identity.actor
    return signer_of(source).sign(tenant, actor, request_id)


@asynccontextmanager
async def resumed(
    source: Source, headers: Mapping[str, object] | None, max_age: float | None, *, unlimited: bool
) -> AsyncIterator[AsyncSession]:
    """The block of `DatabasePlugin.resume`."""
    job = signer_of(source).read(headers, max_age)
    states = states_for(source)
    with within_job(job.request_id, job.tenant):
        if states is not None:
            await states.check(job.tenant)
        person = await _loaded(source, job)
        identity = RequestIdentity(job.tenant, job.actor, person=person)
        async with async_unit(source, identity, unlimited=unlimited) as session:
            yield session


@contextmanager
def sync_resumed(
    source: Source, headers: Mapping[str, object] | None, max_age: float | None, *, unlimited: bool
) -> Iterator[Session]:
    """As `resumed`, on a `Session`."""
    job = signer_of(source).read(headers, max_age)
    states = states_for(source)
    with within_job(job.request_id, job.tenant):
        if states is not None:
            states.sync_check(job.tenant)
        person = _sync_loaded(source, job)
        identity = RequestIdentity(job.tenant, job.actor, person=person)
        with sync_unit(source, identity, unlimited=unlimited) as session:
            yield session


def signer_of(source: Source) -> JobSigner:
    """The signer of a source. Raises `PluginError` if it has no key."""
    if source.job_signer is None:
        raise PluginError("carry() and resume() need a key, DatabasePlugin(url, job_key=…), the same in all processes.")
    return source.job_signer


async def _loaded(source: Source, job: JobCaller) -> object:
    """The actor of a job, by ``load_actor``, in a session of its own that reads for the job's tenant."""
    load, key = source.load_actor, job.actor
    if load is None or key is None:
        return key
    async with async_unit(source, RequestIdentity(job.tenant, key)) as session:
        restrict_to_reads(session)
        return _existing(await load(session, key) if _is_async(load) else await session.run_sync(load, key))


def _sync_loaded(source: Source, job: JobCaller) -> object:
    load, key = source.load_actor, job.actor
    if load is None or key is None:
        return key
    if _is_async(load):
        raise PluginError(
            "sync_resume() needs a load_actor= that is a plain function of a Session and the actor's key."
        )
    with sync_unit(source, RequestIdentity(job.tenant, key)) as session:
        restrict_to_reads(session)
        return _existing(load(session, key))


def _is_async(load: Callable[..., object]) -> TypeGuard[Callable[..., Awaitable[object]]]:
    return inspect.iscoroutinefunction(load) or inspect.iscoroutinefunction(getattr(load, "__call__", None))  # noqa: B004


def _existing(person: object) -> object:
    if person is None:
        raise JobHeadersError("The actor of the job does not exist any more.", fault=JobFault.ACTOR)
    return person
