"""The telemetry on SQLite, PostgreSQL and with row-level security: what counts, whose id it has, and what it costs."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import copy_context
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
from fastapi import Depends, FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import (
    AsyncRepository,
    DatabaseLogFilter,
    MisuseError,
    StatementBudget,
    create_async_repository,
    create_database,
    create_repository,
    instrument,
    observers,
)
from dotmac_database.telemetry import REQUEST, RequestContext, within
from dotmac_database.telemetry.application_name import MAX_LENGTH, name_of
from dotmac_database_fastapi import (
    DatabasePlugin,
    carry,
    crud_router,
    current_request_id,
    get_repository,
    get_session,
    register_exception_handlers,
    tenant_from_header,
    within_request,
)
from tests.fastapi.conftest import Api, checked_out
from tests.fastapi.job_models import KINDS, RLS, Order, User, database_of

KEY = "a key of at least sixteen bytes"
SLOW = "dotmac_database.slow_statements"


class Observed(NamedTuple):
    """An instrumented plugin, and what was measured."""

    plugin: DatabasePlugin
    registry: CollectorRegistry
    exporter: InMemorySpanExporter
    api: Api

    @property
    def is_postgresql(self) -> bool:
        return self.plugin.database.url.get_backend_name() == "postgresql"

    def measured(self) -> dict[tuple[str, str], int]:
        """How many statements were measured, by operation and model."""
        return {
            (sample.labels["operation"], sample.labels["model"]): int(sample.value)
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "dotmac_database_statement_duration_seconds_count" and sample.value
        }


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with database_of(request.param, request, tmp_path_factory.mktemp("telemetry")) as url:
        yield url, RLS if request.param == "rls" else None


Make = Callable[..., Observed]


@pytest.fixture
def make(place: tuple[str, Any], runner: asyncio.Runner) -> Iterator[Make]:
    made: list[Observed] = []

    def observed(*, named: bool = False, **options: Any) -> Observed:
        url, rls = place
        options = {"tenant": tenant_from_header("X-Tenant-ID"), "job_key": KEY, "rls": rls, **options}
        plugin = DatabasePlugin(url, **options)
        registry, exporter, provider = CollectorRegistry(), InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        instrument(
            plugin, prometheus=registry, opentelemetry=provider, slow_statement=0.0, name="main", application_name=named
        )
        made.append(Observed(plugin, registry, exporter, Api(app_with(plugin), runner)))
        return made[-1]

    yield observed
    held = [checked_out(each.plugin) for each in made]
    for each in made:
        each.plugin.database.instrumentation.remove()  # type: ignore[attr-defined]  # it is an Instrumentation
        runner.run(each.plugin.database.dispose_async())
    assert not any(held)


NAME = select(func.current_setting("application_name"))


def app_with(plugin: DatabasePlugin) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    plugin.install(app)
    app.include_router(crud_router(Order, prefix="/orders"))

    @app.post("/names/{first}")
    async def names(
        first: str,
        orders: AsyncRepository[Order] = Depends(get_repository(Order)),
        session: AsyncSession = Depends(get_session),
    ) -> list[str]:
        """The names of the connection's transaction, of which the first statement is a repository's or raw."""
        if first == "repository":
            await orders.create({"id": 900, "status": "new"})
        shown = [str(await session.scalar(NAME))]
        async with session.begin_nested() as savepoint:
            await orders.list()
            await savepoint.rollback()
        await orders.list()
        shown.append(str(await session.scalar(NAME)))
        await session.rollback()
        return shown

    return app


# What counts.


async def get(session: AsyncSession) -> None:
    await create_async_repository(session, Order, "acme").get_by_id(1)


async def write(session: AsyncSession) -> None:
    orders = create_async_repository(session, Order, "acme")
    await orders.create({"id": 900, "status": "new"})
    await orders.update(900, {"status": "paid"})


async def execute(session: AsyncSession) -> None:
    await session.execute(select(Order.status).where(Order.tenant_id == "acme"))


async def flush(session: AsyncSession) -> None:
    session.add(Order(id=900, tenant_id="acme"))
    await session.flush()


async def savepoint(session: AsyncSession) -> None:
    async with session.begin_nested() as block:
        await get(session)
        await block.rollback()
    await get(session)


Way = Callable[[AsyncSession], Awaitable[None]]
WAYS: dict[str, tuple[Way, dict[tuple[str, str], int]]] = {
    "get": (get, {("get_by_id", "Order"): 1}),
    "write": (write, {("create", "Order"): 1, ("update", "Order"): 1}),
    "execute": (execute, {("select", "Order"): 1}),
    "flush": (flush, {("insert", "Order"): 1}),
    "savepoint": (savepoint, {("get_by_id", "Order"): 2}),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_toolkits_own_settings_are_not_counted(make: Make, place: tuple[str, Any], way: str, named: bool) -> None:
    """Guarded sessions, with row-level security that announces the tenant: only the user's statements count."""
    if named and place[0].startswith("sqlite"):
        pytest.skip("application_name is PostgreSQL's")
    observed = make(named=named)
    run, expected = WAYS[way]

    async def work() -> int:
        async with observed.plugin.session("acme") as session:
            with within(RequestContext("GET /orders", "r-1")), StatementBudget(100) as budget:
                await run(session)
            await session.rollback()
            return budget.count

    count = observed.api.run(work())
    assert observed.measured() == expected
    assert count == sum(expected.values()) == len(observed.exporter.get_finished_spans())
    assert not [span for span in observed.exporter.get_finished_spans() if "set_config" in span.to_json()]


# Whose request it is.


def records(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [each for each in caplog.records if each.name == SLOW]


CSV = {"Accept": "text/csv", "X-Request-ID": "r-1"}


@pytest.mark.parametrize("accepted", ["text/csv", "application/x-ndjson"])
def test_the_body_of_an_export_belongs_to_its_request(
    make: Make, caplog: pytest.LogCaptureFixture, accepted: str
) -> None:
    observed = make()
    with caplog.at_level(logging.WARNING, SLOW):
        answer = observed.api.get("/orders", tenant="acme", headers={**CSV, "Accept": accepted})
    assert answer.status_code == 200
    (record,) = records(caplog)
    assert (record.request_id, record.route, record.operation) == ("r-1", "GET /orders", "stream")
    (span,) = observed.exporter.get_finished_spans()
    assert (span.attributes or {})["dotmac.request_id"] == "r-1"
    assert REQUEST.get() is None


@pytest.mark.parametrize(("limit", "status"), [(0, 500), (1, 200)])
def test_the_body_of_an_export_counts_in_the_requests_budget(make: Make, limit: int, status: int) -> None:
    observed = make(statement_budget=StatementBudget(limit, "raise"))
    for _ in range(2):
        assert observed.api.get("/orders", tenant="acme", headers=CSV).status_code == status


def test_an_exports_lookup_and_body_share_one_budget(make: Make) -> None:
    """The tenant is looked up by a statement before; the body's is the second one of the same budget."""

    async def looked_up(session: AsyncSession = Depends(get_session)) -> None:
        await session.execute(select(User.role).where(User.id == "ada"))

    for limit, status in ((1, 500), (2, 200)):
        observed = make(statement_budget=StatementBudget(limit, "raise"))
        app = FastAPI(lifespan=observed.plugin.lifespan)
        register_exception_handlers(app)
        observed.plugin.install(app)
        app.include_router(crud_router(Order, prefix="/orders"), dependencies=[Depends(looked_up)])
        api = Api(app, observed.api.runner)
        assert api.get("/orders", tenant="acme", headers=CSV).status_code == status


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_job_has_the_id_of_its_request(make: Make, caplog: pytest.LogCaptureFixture, synchronous: bool) -> None:
    observed = make()
    caplog.handler.addFilter(log_filter := DatabaseLogFilter(tenant=True))
    log = logging.getLogger("job")
    headers: dict[str, str] = {}

    def sync_job() -> None:
        with observed.plugin.sync_resume(headers) as session:
            assert current_request_id() == "r-2"
            log.warning("works")
            create_repository(session, Order, "acme").get_by_id(1)

    async def work() -> None:
        async with observed.plugin.session("acme") as session:
            with within_request("r-2"):
                headers.update(carry(session))
        assert current_request_id() is None
        if synchronous:
            return
        async with observed.plugin.resume(headers) as session:
            assert current_request_id() == "r-2"
            log.warning("works")
            await get(session)
        assert current_request_id() is None

    with caplog.at_level(logging.WARNING):
        observed.api.run(work())
        if synchronous:
            sync_job()
    caplog.handler.removeFilter(log_filter)
    (own,) = (each for each in caplog.records if each.name == "job")
    assert (own.request_id, own.tenant) == ("r-2", "acme")  # type: ignore[attr-defined]  # of the filter
    assert [record.request_id for record in records(caplog)] == ["r-2"]
    (span,) = observed.exporter.get_finished_spans()
    assert (span.attributes or {})["dotmac.request_id"] == "r-2"
    assert (REQUEST.get(), current_request_id()) == (None, None)


# The route as application_name.


def test_a_transaction_has_its_route_as_application_name(make: Make, place: tuple[str, Any]) -> None:
    if place[0].startswith("sqlite"):
        with pytest.raises(MisuseError, match="application_name"):
            make(named=True)
        return
    observed = make(named=True)
    route = "POST /names/{first}"
    for first, expected in (("repository", f"{route} Order.create"), ("raw", route), ("repository", None)):
        shown = observed.api.post(f"/names/{first}", tenant="acme").json()
        assert shown[0] == (expected or f"{route} Order.create")
        assert shown[1].startswith(route), "it is announced again after a savepoint was rolled back"
    assert route not in observed.api.run(outside(observed))


Named = tuple[Callable[[Coroutine[Any, Any, Any]], Any], AsyncSession]
"""What runs a coroutine in a request, and a session."""


@pytest.fixture
def named_session(place: tuple[str, Any], runner: asyncio.Runner) -> Iterator[Named]:
    """A plain session in a request, on an instrumented database of PostgreSQL."""
    if place[0].startswith("sqlite") or place[1] is not None:
        pytest.skip("for a plain session on PostgreSQL")
    database = create_database(place[0])
    instrumentation = instrument(database, opentelemetry=False, application_name=True)
    session = database.async_sessions()
    with within(RequestContext("GET /x")):
        yield (lambda work: runner.run(work, context=copy_context())), session
    runner.run(session.close())
    instrumentation.remove()
    runner.run(database.dispose_async())


def test_the_name_comes_after_what_must_be_first(named_session: Named) -> None:
    run, session = named_session

    async def work() -> None:
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        await session.execute(text("LOCK TABLE job_orders"))
        assert await session.scalar(text("SHOW transaction_isolation")) == "serializable"
        assert await session.scalar(NAME) == "GET /x"
        await session.rollback()

    run(work())


def test_a_failed_savepoint_is_rolled_back(named_session: Named) -> None:
    run, session = named_session

    async def work() -> None:
        for _ in range(2):
            for _ in range(2):
                savepoint = await session.begin_nested()
                with pytest.raises(DBAPIError, match="division by zero"):
                    await session.execute(text("SELECT 1 / 0"))
                await savepoint.rollback()
                assert await session.scalar(NAME) == "GET /x"
            await session.rollback()

    run(work())


def test_a_name_ends_with_its_transaction(named_session: Named) -> None:
    run, session = named_session

    async def name() -> str:
        shown = str(await session.scalar(NAME))
        await session.rollback()
        return shown

    assert run(name()) == "GET /x"
    REQUEST.set(None)
    assert run(name()) != "GET /x"


async def outside(observed: Observed) -> str:
    """The name outside of a request, on the same connection of the pool."""
    async with observed.plugin.session("acme") as session:
        return str(await session.scalar(NAME))


def test_a_name_is_at_most_63_bytes() -> None:
    assert name_of("GET /users", " User.list") == "GET /users User.list"
    assert name_of("GET /" + "é" * 99, " User.list") == "GET /" + "?" * (MAX_LENGTH - 15) + " User.list"
    assert len(name_of("GET /", "x" * 99)) == MAX_LENGTH


# What it costs.


def own_calls(work: Callable[[], object]) -> list[str]:
    """The names of the toolkit's functions that ``work`` calls."""
    calls: list[str] = []

    def profile(frame: FrameType, kind: str, _argument: object) -> None:
        if kind == "call" and "/dotmac_database/" in frame.f_code.co_filename:
            calls.append(frame.f_code.co_qualname)

    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


COMMON = ["observe", "Statement.__init__", "Statement.end", "Instrumentation._record", "subject_of", "origin"]
COSTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "slow log": ({"slow_statement": 1e9, "opentelemetry": False}, COMMON[:4]),
    "metrics": ({"slow_statement": 1e9, "opentelemetry": False}, [*COMMON, "DatabaseMetrics.record"]),
    "spans": ({}, [*COMMON, "Spans.record"]),
}


@pytest.fixture
def unobserved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plugins of other tests may be observed; not here."""
    before = observers.OBSERVED[:]
    monkeypatch.setattr(observers, "_EVERYWHERE", ())
    observers.OBSERVED.clear()
    yield
    observers.OBSERVED[:] = before


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A read of a repository on SQLite. Its attribute ``database`` is the database."""
    database = create_database(f"sqlite:///{tmp_path}/items.db")
    Order.metadata.create_all(database.engine)

    def count() -> None:
        with database.sessions() as session:
            create_repository(session, User, "acme").count()

    count.database = database  # type: ignore[attr-defined]  # a function takes any attribute
    for _ in range(3):
        count()
    yield count
    database.dispose()


def added(calls: list[str], before: list[str]) -> list[str]:
    for name in before:
        calls.remove(name)
    return sorted(calls)


@pytest.mark.usefixtures("unobserved")
@pytest.mark.parametrize("part", COSTS)
def test_a_statement_costs_exactly_these_calls(read: Any, part: str) -> None:
    options, expected = COSTS[part]
    if part == "metrics":
        options = {**options, "prometheus": CollectorRegistry()}
    elif part == "spans":
        options = {"opentelemetry": TracerProvider(sampler=ALWAYS_OFF)}
    before = own_calls(read)
    instrumentation = instrument(read.database, **options)
    read()
    calls = own_calls(read)
    instrumentation.remove()
    assert added(calls, before) == sorted(expected)


@pytest.mark.usefixtures("unobserved")
def test_a_budget_costs_exactly_these_calls(read: Any) -> None:
    """It looks for the user's line only for a statement that is repeated, or is one too many."""
    before = own_calls(read)
    with StatementBudget(100):
        first, second = own_calls(read), own_calls(read)
    common = ["observe", "Statement.__init__", "count", "StatementBudget.spend", "Statement.end"]
    assert added(first, before) == sorted(common)
    assert [name for name in added(second, before) if name != "_code_of"] == sorted([*common, "user_line", "_line"])
