"""The telemetry of requests: their budget, route, id and tenant, and metrics whose number no client can grow."""

from __future__ import annotations

import asyncio
import logging
import random
import string
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import (
    AsyncRepository,
    BaseRepository,
    Database,
    DatabaseLogFilter,
    MisuseError,
    StatementBudget,
    StatementBudgetWarning,
    instrument,
)
from dotmac_database.telemetry import REQUEST
from dotmac_database_fastapi import (
    DatabasePlugin,
    crud_router,
    get_repository,
    get_session,
    get_sync_repository,
    register_exception_handlers,
)
from tests.fastapi.conftest import Api, MakePlugin
from tests.models import Country, Tag


def app_with(plugin: DatabasePlugin) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    plugin.install(app)

    @app.get("/reads/{times}")
    async def reads(times: int, countries: AsyncRepository[Country] = Depends(get_repository(Country))) -> int:
        for _ in range(times):
            await countries.get_by_id("no")  # the line
        return times

    @app.get("/sync-reads/{times}")
    def sync_reads(times: int, countries: BaseRepository[Country] = Depends(get_sync_repository(Country))) -> int:
        for _ in range(times):
            countries.get_by_id("no")
        return times

    @app.get("/session/{times}")
    async def by_session(times: int, session: AsyncSession = Depends(get_session)) -> int:
        for _ in range(times):
            await session.execute(select(Country))
        return times

    @app.get("/log")
    async def log(tags: AsyncRepository[Tag] = Depends(get_repository(Tag))) -> None:
        logging.getLogger("app").warning("hello")

    app.include_router(crud_router(Country, prefix="/countries"))
    app.include_router(crud_router(Tag, prefix="/tags"))
    return app


PATHS = ("/reads", "/sync-reads", "/session")


@pytest.mark.parametrize("path", PATHS)
def test_a_budget_of_requests_raises(make_plugin: MakePlugin, runner: asyncio.Runner, path: str) -> None:
    plugin = make_plugin(statement_budget=StatementBudget(2, "raise"))
    api = Api(app_with(plugin), runner)
    for _ in range(2):  # each request counts by itself
        assert api.get(f"{path}/2", tenant="t").status_code == 200
        answer = api.get(f"{path}/3", tenant="t")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")


@pytest.mark.parametrize("path", PATHS)
def test_a_number_warns(make_plugin: MakePlugin, runner: asyncio.Runner, path: str) -> None:
    plugin = make_plugin(statement_budget=2)
    api = Api(app_with(plugin), runner)
    with pytest.warns(StatementBudgetWarning) as warned:
        assert api.get(f"{path}/4", tenant="t").status_code == 200
    (warning,) = warned
    assert warning.filename == __file__
    assert f"GET {path}/{{times}}: 3 statements" in str(warning.message)


def test_a_session_of_the_apps_own_has_the_budget(
    make_plugin: MakePlugin, runner: asyncio.Runner, database: Database
) -> None:
    plugin = make_plugin(statement_budget=StatementBudget(1, "raise"))
    app = app_with(plugin)

    async def own() -> Any:
        async with plugin.database.async_sessions() as session:
            yield session

    app.dependency_overrides[get_session] = own
    api = Api(app, runner)
    assert api.get("/reads/1", tenant="t").status_code == 200
    assert api.get("/reads/2", tenant="t").status_code == 500


def test_a_refused_write_leaves_nothing(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    api = Api(app_with(make_plugin(statement_budget=StatementBudget(0, "raise"))), runner)
    assert api.post("/countries", tenant="t", json={"code": "no", "name": "Norway"}).status_code == 500
    api = Api(app_with(make_plugin()), runner)
    assert api.get("/countries", tenant="t").json()["items"] == []


def test_a_budget_is_checked(make_plugin: MakePlugin) -> None:
    with pytest.raises(MisuseError):
        make_plugin(statement_budget=-1)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def observed(make_plugin: MakePlugin, registry: CollectorRegistry, runner: asyncio.Runner) -> Iterator[Api]:
    plugin = make_plugin(name="main")
    instrumentation = instrument(plugin, prometheus=registry, opentelemetry=False, slow_statement=0.0)
    yield Api(app_with(plugin), runner)
    instrumentation.remove()


def test_slow_statements_name_the_route(observed: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dotmac_database.slow_statements"):
        observed.get("/countries/xx", tenant="t", headers={"X-Request-ID": "r-17"})
    (record,) = caplog.records
    assert "GET /countries/{id}, Country." in record.getMessage()
    assert "xx" not in record.getMessage()
    assert (record.request_id, record.model) == ("r-17", "Country")  # type: ignore[attr-defined]  # of the filter
    assert record.tenant is None  # type: ignore[attr-defined]  # as above
    assert REQUEST.get() is None


def test_a_log_record_of_the_app_has_request_and_tenant(observed: Api, caplog: pytest.LogCaptureFixture) -> None:
    log_filter = DatabaseLogFilter(tenant=True)
    caplog.handler.addFilter(log_filter)
    observed.get("/log", tenant="acme")
    caplog.handler.removeFilter(log_filter)
    (record,) = (each for each in caplog.records if each.name == "app")
    assert (record.route, record.tenant) == ("GET /log", "acme")  # type: ignore[attr-defined]  # of the filter
    assert len(record.request_id) == 32  # type: ignore[attr-defined]  # as above


ODD = 10_000


def test_odd_requests_add_no_series(observed: Api, registry: CollectorRegistry) -> None:
    """Whatever clients send, a label is a method of a repository, or a mapped class."""
    chance = random.Random(7)

    def word() -> str:
        return "".join(chance.choices(string.ascii_letters + string.digits, k=8))

    async def call(path: str, query: str, tenant: str) -> None:
        headers = [(b"x-tenant-id", tenant.encode()), (b"x-request-id", word().encode())]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": headers}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_message: Any) -> None:
            """Drop the answer."""

        await observed.app(scope, receive, send)

    async def all_of_them() -> None:
        for number in range(ODD):
            kind = number % 10
            if kind == 0:
                await call(f"/countries/{word()[:2]}", "", word())
            elif kind == 1 and number % 100 == 1:
                await call("/tags", f"name={word()}", word())
            elif kind == 2 and number % 100 == 2:
                await call("/countries", f"sort=-{word()}&{word()}=1", word())
            else:
                await call(f"/{word()}/{word()}", word(), word())

    logging.getLogger("dotmac_database.slow_statements").disabled = True
    try:
        observed.run(all_of_them())
    finally:
        logging.getLogger("dotmac_database.slow_statements").disabled = False
    series = {
        (sample.labels["operation"], sample.labels["model"])
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "dotmac_database_statement_duration_seconds_count"
    }
    assert {model for _, model in series} == {"Country", "Tag"}
    assert len(series) <= 5


def test_a_plain_plugin_observes_nothing(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    plugin = make_plugin()
    api = Api(app_with(plugin), runner)
    assert not plugin.database.is_observed
    assert api.get("/reads/30", tenant="t").status_code == 200
