"""Jobs: what `carry` puts into headers, what `resume` makes of them, and which headers it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import (
    ALL_TENANTS,
    MisuseError,
    QueryFilter,
    TenantRequiredError,
    ValidationError,
    acting_as,
    bound_tenant,
    create_async_repository,
    create_repository,
    current_actor,
    on_commit,
    tenant_scope,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    JobFault,
    JobHeadersError,
    PluginError,
    SuspendedTenantError,
    TenantDirectory,
    UnknownTenantError,
    carry,
    current_request_id,
    get_repository,
    get_session,
    get_sync_session,
    register_exception_handlers,
    session_actor,
    tenant_from_header,
)
from dotmac_database_fastapi import job_headers as headers_module
from dotmac_database_fastapi.job_headers import CLOCK_SKEW, JobSigner
from tests.conftest import counted
from tests.fastapi.conftest import Api, checked_out
from tests.fastapi.job_models import KINDS, RLS, Order, Tenant, User, database_of

KEY, OTHER = "a key of at least sixteen bytes", "another key of sixteen bytes"
NAMES = ("tenant", "actor", "request-id", "signed-at", "signature")


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with database_of(request.param, request, tmp_path_factory.mktemp("jobs")) as url:
        yield url, RLS if request.param == "rls" else None


Make = Callable[..., DatabasePlugin]


@pytest.fixture
def make(place: tuple[str, Any], runner: asyncio.Runner) -> Iterator[Make]:
    made: list[DatabasePlugin] = []

    def plugin(**options: Any) -> DatabasePlugin:
        made.append(DatabasePlugin(place[0], **{"job_key": KEY, "rls": place[1], **options}))
        return made[-1]

    yield plugin
    held = [checked_out(each) for each in made]
    for each in made:
        runner.run(each.database.dispose_async())
    assert not any(held)


def orders_of(session: Session) -> Any:
    """The repository of the orders of the session's tenant; None without a tenant."""
    tenant = bound_tenant(session)
    return None if tenant is None else create_repository(session, Order, tenant)


def run(runner: asyncio.Runner, plugin: DatabasePlugin, kind: str, headers: Any, work: Any, **options: Any) -> Any:
    """The result of ``work(session, repository of orders)`` in a job with these headers."""

    async def by_async() -> Any:
        async with plugin.resume(headers, **options) as session:
            return await session.run_sync(lambda sync: work(session, orders_of(sync)))

    if kind == "async":
        return runner.run(by_async())
    with plugin.sync_resume(headers, **options) as session:
        return work(session, orders_of(session))


both = pytest.mark.parametrize("kind", ["async", "sync"])


class TestCarrying:
    @both
    @pytest.mark.parametrize("tenant", ["acme", "globex"])
    def test_a_job_works_for_the_tenant_and_the_actor_of_its_request(
        self, make: Make, runner: asyncio.Runner, kind: str, tenant: str
    ) -> None:
        plugin = make(tenant=tenant_from_header(), actor=lambda: "Ada Løvelace")
        app, sent = FastAPI(), []
        plugin.install(app)

        @app.post("/async")
        async def by_async(session: AsyncSession = Depends(get_session)) -> None:
            sent.append(carry(session))

        @app.post("/sync")
        def by_sync(session: Session = Depends(get_sync_session)) -> None:
            sent.append(carry(session))

        with counted(plugin.database.async_engine.sync_engine) as statements:
            answer = Api(app, runner).post(f"/{kind}", tenant=tenant, headers={"X-Request-ID": "req-1"})
        assert (answer.status_code, statements) == (200, [])
        # It survives JSON and HTTP.
        headers = json.loads(json.dumps(sent[0]))
        assert sorted(headers) == sorted(f"dotmac-job-{name}" for name in NAMES)
        assert all(f"{name}{value}".isascii() and f"{name}{value}".isprintable() for name, value in headers.items())

        def work(session: Any, orders: Any) -> Any:
            assert (session_actor(session), current_actor(), current_request_id()) == ("Ada Løvelace",) * 2 + ("req-1",)
            orders.update_where([QueryFilter("id", "gt", 0)], {"status": "done"})
            return [(row.tenant_id, row.status, row.updated_by) for row in orders.list()]

        assert run(runner, plugin, kind, headers, work) == [(tenant, "done", "Ada Løvelace")] * 2
        assert (current_actor(), current_request_id()) == (None, None)
        with plugin.sync_session("globex" if tenant == "acme" else "acme") as session:
            others = create_repository(session, Order, bound_tenant(session)).list()
            assert {row.updated_by for row in others} <= {None, "Ada Løvelace"}
        with plugin.sync_session(tenant) as session:
            create_repository(session, Order, bound_tenant(session)).update_where(
                [QueryFilter("id", "gt", 0)], {"status": "new"}
            )

    @pytest.mark.parametrize("tenant", ["acme", "a/b c%ü:\n", 7, -7, UUID(int=5), None])
    @pytest.mark.parametrize("actor", ["ada", "", "Ådä\x00 :%", None])
    def test_names_come_back_as_they_were(self, tenant: Any, actor: Any) -> None:
        signer = JobSigner(KEY, "default")
        headers = signer.sign(tenant, actor, "r")
        job = signer.read({**headers, "lang": "py", "task": 1, b"x": 1}, 10)
        assert (job.tenant, job.actor, job.request_id) == (tenant, actor, "r")
        assert type(job.tenant) is type(tenant)
        assert ("dotmac-job-tenant" in headers, "dotmac-job-actor" in headers) == (
            tenant is not None,
            actor is not None,
        )
        assert signer.read({name.title(): value for name, value in headers.items()}, None) == job

    def test_the_session_of_a_script_and_that_of_a_job(self, make: Make, runner: asyncio.Runner) -> None:
        plugin = make()
        with plugin.sync_session("acme", "ada") as session:
            headers = carry(session)

        async def again() -> dict[str, str]:
            async with plugin.resume(headers) as session:
                return carry(session)

        read = JobSigner(KEY, "default").read
        assert read(runner.run(again()), None) == read(headers, None)

    def test_the_tenant_is_the_one_that_the_session_has_now(self, make: Make) -> None:
        plugin = make()
        read = JobSigner(KEY, "default").read
        with plugin.sync_session() as session:
            assert (read(carry(session), None).tenant, read(carry(session), None).actor) == (None, None)
            with tenant_scope(session, "acme"), acting_as("cron"):
                job = read(carry(session), None)
            assert (job.tenant, job.actor) == ("acme", "cron")
        with plugin.sync_session(ALL_TENANTS) as session, pytest.raises(MisuseError, match="ALL_TENANTS"):
            carry(session)

    @both
    def test_a_job_without_a_tenant_has_none(self, make: Make, runner: asyncio.Runner, kind: str) -> None:
        plugin = make()
        headers = JobSigner(KEY, "default").sign(None, None, "r")

        def read(session: Any, _: Any) -> Any:
            return getattr(session, "sync_session", session).scalars(select(Order)).all()

        with pytest.raises(TenantRequiredError):
            run(runner, plugin, kind, headers, read)

    def test_without_a_key_both_refuse(self, make: Make, runner: asyncio.Runner) -> None:
        plugin = make(job_key=None)
        with plugin.sync_session("acme") as session, pytest.raises(PluginError, match="job_key"):
            carry(session)
        for kind in ("async", "sync"):
            with pytest.raises(PluginError, match="job_key"):
                run(runner, plugin, kind, {}, lambda *_: None)

    def test_another_session_is_refused(self) -> None:
        for session in (Session(), AsyncSession()):
            with pytest.raises(PluginError, match=r"plugin\.session"):
                carry(session)

    @pytest.mark.parametrize("key", ["short", b"", "", [], ["a key of at least sixteen bytes", "short"], 7, [7]])
    def test_a_weak_key_is_refused_at_once(self, key: Any) -> None:
        with pytest.raises(ValidationError, match="job key") as refused:
            DatabasePlugin("sqlite://", job_key=key)
        assert refused.value.field == "job_key"
        assert "sixteen" not in str(refused.value)

    @pytest.mark.parametrize("tenant", [1.5, b"acme", object(), "\ud800"])
    def test_a_tenant_that_headers_cant_carry(self, tenant: Any) -> None:
        with pytest.raises(ValidationError):
            JobSigner(KEY, "default").sign(tenant, None, "r")


def altered(headers: dict[str, str]) -> Iterator[tuple[str, Any, JobFault]]:
    """Every way to alter headers, with the fault that is found."""
    yield "none", None, JobFault.MISSING
    yield "empty", {}, JobFault.MISSING
    for name in headers:
        rest = {each: value for each, value in headers.items() if each != name}
        is_needed = name.rpartition("job-")[2] in ("request-id", "signed-at", "signature")
        yield f"{name} missing", rest, JobFault.MISSING if is_needed else JobFault.ALTERED
        yield f"{name} repeated", {**headers, name.title(): headers[name]}, JobFault.ALTERED
        yield f"{name} renamed", {**rest, f"{name}s": headers[name]}, JobFault.ALTERED
        for value in (headers[name] + "0", headers[name][:-1], headers[name] + " ", "", "é", None, 7, b"x", ["a"]):
            yield f"{name} = {value!r}", {**headers, name: value}, JobFault.ALTERED
    yield "extra", {**headers, "dotmac-job-role": "admin"}, JobFault.ALTERED
    yield (
        "swapped",
        {
            **headers,
            "dotmac-job-tenant": headers["dotmac-job-actor"],
            "dotmac-job-actor": headers["dotmac-job-tenant"],
        },
        JobFault.ALTERED,
    )
    yield "another tenant", {**headers, "dotmac-job-tenant": "text:globex"}, JobFault.ALTERED
    other = JobSigner(KEY, "default").sign("globex", "ada", "r")
    for name in ("dotmac-job-signature", "dotmac-job-tenant"):
        yield f"{name} of another job", {**headers, name: other[name]}, JobFault.ALTERED
    yield "another key", JobSigner(OTHER, "default").sign("acme", "ada", "r"), JobFault.ALTERED
    yield "another plugin", JobSigner(KEY, "archive").sign("acme", "ada", "r"), JobFault.ALTERED


@both
def test_headers_that_were_altered_are_refused_before_a_connection_is_used(
    make: Make, runner: asyncio.Runner, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    plugin = make(load_actor=lambda session, key: loads.append(key) or key)
    headers = JobSigner(KEY, "default").sign("acme", "ada", "r")
    engine = plugin.database.async_engine.sync_engine if kind == "async" else plugin.database.engine
    seen = 0
    with counted(engine) as sent:
        for name, wrong, fault in altered(headers):
            with pytest.raises(JobHeadersError) as refused:
                run(runner, plugin, kind, wrong, lambda *_: pytest.fail("the job ran"))
            assert refused.value.fault is fault, name
            seen += 1
    assert (sent, loads, engine.pool.checkedout()) == ([], [], 0)
    assert seen > 60
    assert run(runner, plugin, kind, headers, lambda _, orders: len(orders.list())) == 2
    assert loads == ["ada"]


@pytest.mark.parametrize(
    ("age", "max_age", "fault"),
    [
        (0, 1, None),
        (10, 10, None),
        (11, 10, JobFault.EXPIRED),
        (10**9, None, None),
        (-CLOCK_SKEW, 1, None),
        (-CLOCK_SKEW - 1, None, JobFault.FUTURE),
        (-(10**9), 10, JobFault.FUTURE),
    ],
)
def test_the_age_of_headers(age: int, max_age: float | None, fault: JobFault | None) -> None:
    now = 1_800_000_000
    headers = JobSigner(KEY, "default", clock=lambda: now - age).sign("acme", None, "r")
    signer = JobSigner(KEY, "default", clock=lambda: now)
    if fault is None:
        assert signer.read(headers, max_age).tenant == "acme"
        return
    with pytest.raises(JobHeadersError) as refused:
        signer.read(headers, max_age)
    assert refused.value.fault is fault


@pytest.mark.parametrize("max_age", [0, -1, float("nan")])
def test_an_age_that_is_none(max_age: float) -> None:
    signer = JobSigner(KEY, "default")
    with pytest.raises(ValidationError, match="max_age"):
        signer.read(signer.sign(None, None, "r"), max_age)


def test_keys_are_rotated() -> None:
    old, new = JobSigner(OTHER, "default"), JobSigner([KEY, OTHER.encode()], "default")
    assert new.read(old.sign("acme", None, "r"), 9).tenant == "acme"
    assert JobSigner(KEY, "default").read(new.sign("acme", None, "r"), 9).tenant == "acme"
    with pytest.raises(JobHeadersError):
        old.read(new.sign("acme", None, "r"), 9)


def test_the_names_are_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs wait in queues while the app is deployed: the headers of this version must be readable by the next."""
    headers = {
        "dotmac-job-request-id": "r-1",
        "dotmac-job-signed-at": "1800000000",
        "dotmac-job-tenant": "text:acme%20%C3%BC",
        "dotmac-job-actor": "7",
        "dotmac-job-signature": "SIGNATURE",
    }
    signed = JobSigner(KEY, "default", clock=lambda: 1_800_000_000.9).sign("acme ü", "7", "r-1")
    headers["dotmac-job-signature"] = signed["dotmac-job-signature"]
    assert signed == headers
    assert len(headers_module.JobFault) == 5


class TestActors:
    """What `load_actor` makes of the actor's key."""

    @staticmethod
    async def by_async(session: AsyncSession, key: str) -> User | None:
        return await create_async_repository(session, User, bound_tenant(session)).first(
            {"filters": [QueryFilter("id", "eq", key)]}
        )

    @staticmethod
    def by_sync(session: Session, key: str) -> User | None:
        return create_repository(session, User, bound_tenant(session)).first(
            {"filters": [QueryFilter("id", "eq", key)]}
        )

    @pytest.mark.parametrize(("kind", "load"), [("async", "by_async"), ("async", "by_sync"), ("sync", "by_sync")])
    @pytest.mark.parametrize("tenant", ["acme", "globex"])
    def test_the_actor_is_that_of_the_jobs_tenant(
        self, make: Make, runner: asyncio.Runner, kind: str, load: str, tenant: str
    ) -> None:
        plugin = make(load_actor=getattr(self, load), actor_key=lambda user: user.id)
        with plugin.sync_session(tenant, User(id="ada", tenant_id=tenant)) as session:
            headers = carry(session)

        def work(session: Any, orders: Any) -> Any:
            actor = session_actor(session)
            assert isinstance(actor, User)
            assert actor not in session
            return actor.role, current_actor(), orders.create({"id": 99}).created_by, orders.delete(99, False)

        assert run(runner, plugin, kind, headers, work) == (f"owner of {tenant}", "ada", "ada", True)

    @pytest.mark.parametrize(("kind", "load"), [("async", "by_async"), ("async", "by_sync"), ("sync", "by_sync")])
    def test_an_actor_that_is_gone(self, make: Make, runner: asyncio.Runner, kind: str, load: str) -> None:
        plugin = make(load_actor=getattr(self, load))
        headers = JobSigner(KEY, "default").sign("acme", "bob", "r")
        with pytest.raises(JobHeadersError) as refused:
            run(runner, plugin, kind, headers, lambda *_: pytest.fail("the job ran"))
        assert refused.value.fault is JobFault.ACTOR

    def test_it_only_reads(self, make: Make, runner: asyncio.Runner) -> None:
        def load(session: Session, key: str) -> Any:
            return create_repository(session, Order, bound_tenant(session)).create({"id": 98})

        plugin = make(load_actor=load)
        headers = JobSigner(KEY, "default").sign("acme", "ada", "r")
        for kind in ("async", "sync"):
            with pytest.raises(MisuseError, match="only reads"):
                run(runner, plugin, kind, headers, lambda *_: pytest.fail("the job ran"))

    def test_a_coroutine_function_is_not_for_sync_jobs(self, make: Make, runner: asyncio.Runner) -> None:
        headers = JobSigner(KEY, "default").sign("acme", "ada", "r")
        with pytest.raises(PluginError, match="plain function"):
            run(runner, make(load_actor=self.by_async), "sync", headers, lambda *_: pytest.fail("the job ran"))

    @both
    def test_without_it_the_actor_is_the_key(self, make: Make, runner: asyncio.Runner, kind: str) -> None:
        headers = JobSigner(KEY, "default").sign("acme", "ada", "r")
        assert run(runner, make(), kind, headers, lambda session, _: session_actor(session)) == "ada"


@both
@pytest.mark.parametrize(
    ("tenant", "error"), [("acme", None), ("asleep", SuspendedTenantError), ("gone", UnknownTenantError), (None, None)]
)
def test_a_directory_is_asked(make: Make, runner: asyncio.Runner, kind: str, tenant: Any, error: Any) -> None:
    plugin = make(tenant=TenantDirectory(Tenant).active(tenant_from_header()))
    headers = JobSigner(KEY, "default").sign(tenant, None, "r")
    if error is None:
        assert run(runner, plugin, kind, headers, lambda *_: "done") == "done"
        return
    with pytest.raises(error):
        run(runner, plugin, kind, headers, lambda *_: pytest.fail("the job ran"))


@both
def test_a_job_that_fails_is_rolled_back(make: Make, runner: asyncio.Runner, kind: str) -> None:
    plugin = make()
    headers = JobSigner(KEY, "default").sign("acme", "ada", "r")

    def work(_: Any, orders: Any) -> None:
        orders.create({"id": 97})
        raise LookupError("the job's own")

    with pytest.raises(LookupError, match="the job's own"):
        run(runner, plugin, kind, headers, work)
    assert run(runner, plugin, kind, headers, lambda _, orders: orders.get_by_id(97)) is None


def test_a_job_is_sent_after_the_commit_of_its_row(make: Make, runner: asyncio.Runner) -> None:
    """The job's own session sees the row; a request that fails sends no job."""
    plugin = make(tenant=tenant_from_header())
    app, seen = FastAPI(), []
    plugin.install(app)
    register_exception_handlers(app)

    async def enqueue(headers: dict[str, str], order_id: int) -> None:
        async with plugin.resume(headers, max_age=3600) as session:
            seen.append(
                (
                    await create_async_repository(session, Order, bound_tenant(session)).get_by_id_or_raise(order_id)
                ).tenant_id
            )

    @app.post("/orders/{number}")
    async def order(
        number: int, orders: Any = Depends(get_repository(Order)), session: Any = Depends(get_session)
    ) -> None:
        await orders.create({"id": number})
        headers = carry(session)
        on_commit(session, lambda: enqueue(headers, number))
        if number == 96:
            raise MisuseError("nothing is committed")

    api = Api(app, runner)
    assert [api.post(f"/orders/{number}", tenant="acme").status_code for number in (95, 96)] == [200, 500]
    assert seen == ["acme"]
    with plugin.sync_session("acme") as session:
        create_repository(session, Order, bound_tenant(session)).delete(95, soft_delete=False)


def test_what_a_request_costs_without_jobs(make: Make, runner: asyncio.Runner) -> None:
    """The id of a request is made only if something asks for it."""
    plugin = make(tenant=tenant_from_header())
    app, scopes = FastAPI(), []
    plugin.install(app)

    @app.get("/")
    async def read(session: Any = Depends(get_session)) -> None:
        scopes.append(dict(session.info["dotmac_database_fastapi.caller"][2]))

    Api(app, runner).get("/", tenant="acme")
    assert "dotmac_database.request_id" not in scopes[0]
