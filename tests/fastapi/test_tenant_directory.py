"""The tenant directory: who is refused, what a request costs, and when a change is effective."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    ALL_TENANTS,
    Database,
    DatabaseUnavailableError,
    ValidationError,
    create_async_repository,
    create_repository,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    PluginError,
    SuspendedTenantError,
    TenantDirectory,
    UnknownTenantError,
    get_repository,
    register_exception_handlers,
    tenant_from_header,
)
from dotmac_database_fastapi.tenant_states import TenantState, TenantStates
from tests.conftest import counted
from tests.fastapi.conftest import Api, MakePlugin, checked_out
from tests.fastapi.job_models import KINDS, RLS, Order, Tenant, database_of
from tests.fastapi.shared_routers import list_router

NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with database_of(request.param, request, tmp_path_factory.mktemp("directory")) as url:
        yield url, RLS if request.param == "rls" else None


class Served:
    """An app whose tenants a directory knows."""

    def __init__(self, url: str, rls: Any, runner: asyncio.Runner) -> None:
        self.directory = TenantDirectory(Tenant, ttl=1e6)
        options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5, "rls": rls}
        self.plugin = DatabasePlugin(url, tenant=self.directory.active(tenant_from_header()), **options)
        self.app = FastAPI(lifespan=self.plugin.lifespan)
        register_exception_handlers(self.app)
        self.app.include_router(list_router(Order, "/orders"))

        @self.app.get("/free")
        async def free(tenants: Any = Depends(get_repository(Tenant))) -> int:
            return await tenants.count()  # type: ignore[no-any-return]

        self.api = Api(self.app, runner)
        self.engine = self.plugin.database.async_engine.sync_engine


@pytest.fixture
def served(place: tuple[str, Any], runner: asyncio.Runner) -> Iterator[Served]:
    served = Served(*place, runner)
    yield served
    assert checked_out(served.plugin) == 0

    async def restore() -> None:
        async with served.plugin.session() as session:
            await served.directory.resume(session, "acme")
        await served.plugin.database.dispose_async()

    runner.run(restore())


ANSWERS = {"acme": 200, "globex": 200, "asleep": 403, "gone": 404, "nobody": 404, "ACME": 404, "a b": 400}


@pytest.mark.parametrize("headers", [{}, NDJSON], ids=["json", "export"])
def test_who_is_refused(served: Served, headers: Any) -> None:
    for tenant, status in [*ANSWERS.items()] * 2:  # read, and remembered
        answer = served.api.get("/orders", tenant=tenant, headers=headers)
        assert answer.status_code == status, (tenant, answer.text)
        if status in (403, 404):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == {403: "tenant_suspended", 404: "tenant_unknown"}[status]
        # What belongs to no tenant is served to all.
        assert served.api.get("/free", tenant=tenant).status_code in (200, 400)
    assert served.api.get("/orders").status_code == 400


def test_a_request_costs_one_statement_and_none_while_the_state_is_remembered(served: Served) -> None:
    for tenant, own in (("acme", True), ("asleep", False), ("nobody", False)):
        seen = []
        for _ in range(3):
            with counted(served.engine) as sent:
                served.api.get("/orders?total=none", tenant=tenant)
            seen.append(sum("job_tenants" in statement for statement in sent))
            assert bool([each for each in sent if "job_orders" in each]) == own
        assert seen == [1, 0, 0]


def test_a_hundred_requests_at_once_send_one_statement_a_tenant(served: Served) -> None:
    async def all_at_once() -> list[int]:
        names = ["nobody", "acme"] * 50
        answers = await asyncio.gather(*(served.api.arequest("GET", "/orders", tenant=name) for name in names))
        return [answer.status_code for answer in answers]

    with counted(served.engine) as sent:
        assert served.api.run(all_at_once()) == [404, 200] * 50
    assert sum("job_tenants" in statement for statement in sent) == 2


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_change_is_effective_after_its_commit_and_never_if_it_is_rolled_back(served: Served, kind: str) -> None:
    plugin, directory = served.plugin, served.directory

    def change(name: str, fails: bool = False) -> None:
        async def by_async() -> None:
            async with plugin.session() as session:
                await getattr(directory, name)(session, "acme")
                if fails:
                    raise LookupError

        if kind == "async":
            served.api.run(by_async())
            return
        with plugin.sync_session() as session:
            getattr(directory, f"sync_{name}")(session, "acme")
            if fails:
                raise LookupError

    def status() -> int:
        return served.api.get("/orders", tenant="acme").status_code

    assert status() == 200
    with pytest.raises(LookupError):
        change("suspend", fails=True)
    with counted(served.engine) as sent:
        assert status() == 200
    assert not any("job_tenants" in statement for statement in sent)
    change("suspend")
    assert (status(), served.api.get("/orders", tenant="globex").status_code) == (403, 200)
    change("resume")
    assert status() == 200
    plugin.database.dispose()


def test_an_unknown_tenant_cant_be_suspended(served: Served) -> None:
    async def suspend(name: str) -> None:
        async with served.plugin.session() as session:
            await served.directory.suspend(session, name)

    for name in ("nobody", "gone"):
        with pytest.raises(UnknownTenantError):
            served.api.run(suspend(name))


def test_a_stream_ends_with_the_tenants_suspension(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dotmac_database_fastapi.exports.ROWS_PER_CHUNK", 1)
    monkeypatch.setattr("dotmac_database_fastapi.exports.ROWS_PER_STATEMENT", 1)

    async def suspended() -> bytes:
        body = b""
        scope = {
            "type": "http", "method": "GET", "path": "/orders", "raw_path": b"/orders", "query_string": b"",
            "headers": [(b"x-tenant-id", b"acme"), (b"accept", b"application/x-ndjson")], "http_version": "1.1",
            "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "", "asgi": {},
        }  # fmt: skip

        async def receive() -> Any:
            return await asyncio.Event().wait()  # the client stays

        async def send(message: Any) -> None:
            nonlocal body
            if message.get("body") and not body:
                async with served.plugin.session() as session:
                    await served.directory.suspend(session, "acme")
            body += message.get("body", b"")

        # Starlette's error for an exception after the first part of a body.
        with pytest.raises(RuntimeError, match="already started") as ended:
            await served.app(scope, receive, send)  # type: ignore[arg-type]
        assert isinstance(ended.value.__cause__, SuspendedTenantError)
        return body

    assert served.api.run(suspended()).count(b"\n") == 1


def test_a_database_that_is_down_is_a_503_and_is_not_remembered(served: Served) -> None:
    assert served.api.get("/orders", tenant="globex").status_code == 200
    served.directory.forget()

    def broken(*_: Any) -> None:
        raise DatabaseUnavailableError("down")

    event.listen(served.engine, "before_cursor_execute", broken)
    assert [served.api.get("/orders", tenant=name).status_code for name in ("globex", "nobody")] == [503, 503]
    event.remove(served.engine, "before_cursor_execute", broken)
    assert [served.api.get("/orders", tenant=name).status_code for name in ("globex", "nobody")] == [200, 404]


CHECKED: dict[Any, type[Exception] | None] = {
    "acme": None,
    "globex": None,
    None: None,
    ALL_TENANTS: None,
    "asleep": SuspendedTenantError,
    "gone": UnknownTenantError,
    "nobody": UnknownTenantError,
}


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("tenant", CHECKED)
def test_work_that_takes_long_is_refused_like_a_request(served: Served, kind: str, tenant: Any) -> None:
    plugin, directory = served.plugin, served.directory
    engine = served.engine if kind == "async" else plugin.database.engine

    async def work() -> Any:
        async with plugin.session(tenant) as session:
            await directory.check(session)
            found = tenant and await create_async_repository(session, Order, tenant).count()
            await directory.check(session)  # the state is remembered, so no second connection is needed
            return found

    def sync_work() -> Any:
        with plugin.sync_session(tenant) as session:
            directory.sync_check(session)
            found = tenant and create_repository(session, Order, tenant).count()
            directory.sync_check(session)
            return found

    refused = CHECKED[tenant]
    with counted(engine) as sent, nullcontext() if refused is None else pytest.raises(refused):
        found = served.api.run(work()) if kind == "async" else sync_work()
        assert found == {None: None, ALL_TENANTS: 6}.get(tenant, 2)
    assert sum("job_tenants" in each for each in sent) == (0 if tenant in (None, ALL_TENANTS) else 1)
    assert sum("job_orders" in each for each in sent) == (1 if tenant and refused is None else 0)
    plugin.database.dispose()


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_tenant_that_is_suspended_meanwhile_works_no_further(served: Served, kind: str) -> None:
    plugin, directory = served.plugin, served.directory

    async def suspend() -> None:
        async with plugin.session() as session:
            await directory.suspend(session, "acme")

    async def work() -> None:
        async with plugin.session("acme") as session:
            await directory.check(session)
            await suspend()
            await directory.check(session)

    def sync_work() -> None:
        with plugin.sync_session("acme") as session:
            directory.sync_check(session)
            served.api.run(suspend())
            directory.sync_check(session)

    with pytest.raises(SuspendedTenantError):
        served.api.run(work()) if kind == "async" else sync_work()
    plugin.database.dispose()


def test_a_session_of_no_plugin_has_no_tenant_to_check(served: Served) -> None:
    database = served.plugin.database
    with database.sessions() as session, pytest.raises(PluginError, match="session of a DatabasePlugin"):
        served.directory.sync_check(session)
    with pytest.raises(PluginError, match="session of a DatabasePlugin"):
        served.api.run(served.directory.check(database.async_sessions()))


class Numbered(DeclarativeBase):
    """Tables whose tenants are numbers."""


class Firm(Numbered):
    __tablename__ = "directory_firms"

    id: Mapped[int] = mapped_column(primary_key=True)
    is_active: Mapped[bool]


class Share(Numbered):
    __tablename__ = "directory_shares"

    firm: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    is_active: Mapped[bool]


@pytest.fixture(scope="module")
def tables() -> Any:
    return Numbered.metadata


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_name_that_no_number_has_is_that_of_no_tenant(
    database: Database, make_plugin: MakePlugin, runner: asyncio.Runner, kind: str
) -> None:
    with database.sessions() as session:
        session.add_all([Firm(id=1, is_active=True), Firm(id=2, is_active=False)])
        session.commit()
    directory = TenantDirectory(Firm)
    states = directory.states_of(make_plugin(tenant=directory.active(tenant_from_header())).source)

    def check(tenant: Any) -> None:
        runner.run(states.check(tenant)) if kind == "async" else states.sync_check(tenant)

    check(1)
    check("1")
    for tenant, refused in {
        2: SuspendedTenantError, "2": SuspendedTenantError, 3: UnknownTenantError, "acme": UnknownTenantError,
        "": UnknownTenantError, "1.5": UnknownTenantError, 10**30: UnknownTenantError,
    }.items():  # fmt: skip
        with pytest.raises(refused):
            check(tenant)
    with pytest.raises(ValidationError, match="can't be a list"):
        check(["1"])


def test_a_directory_needs_one_column_with_the_name() -> None:
    with pytest.raises(ValidationError, match="no primary key of one column"):
        TenantDirectory(Share)
    TenantDirectory(Share, name="number")


def test_the_document_has_the_problems_and_the_header(served: Served) -> None:
    operation = served.app.openapi()["paths"]["/orders"]["get"]
    assert {"403", "404"} <= operation["responses"].keys()
    assert "X-Tenant-ID" in str(operation["parameters"])


class TestStates:
    """What is remembered, by a clock of the test's own."""

    def test_for_how_long_and_how_many(self, runner: asyncio.Runner) -> None:
        asked, now, rows = [], [0.0], {"a": TenantState.ACTIVE}

        async def find(name: Any) -> TenantState:
            asked.append(name)
            return rows.get(name, TenantState.UNKNOWN)

        states = TenantStates(find, lambda name: TenantState.ACTIVE, ttl=5, size=2, clock=lambda: now[0])

        async def check(name: str) -> None:
            await states.check(name)

        runner.run(check("a"))
        for name in "bcdefg":
            with pytest.raises(UnknownTenantError):
                runner.run(check(name))
        now[0] = 4.9
        runner.run(check("a"))
        assert asked == [*"abcdefg"]
        rows["a"], now[0] = TenantState.SUSPENDED, 5.0
        with pytest.raises(SuspendedTenantError):
            runner.run(check("a"))

    def test_a_statement_that_began_before_a_change_is_not_remembered(self, runner: asyncio.Runner) -> None:
        async def race() -> None:
            reading, changed = asyncio.Event(), asyncio.Event()
            answers = iter([TenantState.ACTIVE, TenantState.SUSPENDED])

            async def find(_: Any) -> TenantState:
                answer = next(answers)
                if answer is TenantState.ACTIVE:
                    reading.set()
                    await changed.wait()
                return answer

            states = TenantStates(find, lambda _: TenantState.ACTIVE, ttl=5, size=2)
            gone = asyncio.create_task(states.check("a"))
            early = asyncio.create_task(states.check("a"))
            await reading.wait()
            gone.cancel()  # its client goes away, and the other request still gets its answer
            states.forget()
            with pytest.raises(SuspendedTenantError):
                await states.check("a")
            changed.set()
            await early
            with pytest.raises(SuspendedTenantError):
                await states.check("a")

        runner.run(race())


def test_a_model_that_is_no_directory() -> None:
    for options in ({"active": "nothing"}, {"name": "nothing"}, {"ttl": -1}, {"max_tenants": 0}):
        with pytest.raises(ValidationError):
            TenantDirectory(Tenant, **options)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="belongs to tenants"):
        TenantDirectory(Order)
