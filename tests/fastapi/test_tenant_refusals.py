"""What a client, the log and the start say where there is no tenant, or where it is all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import MetaData, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    ALL_TENANTS,
    TenantMixin,
    TenantRequiredError,
    create_async_repository,
    create_repository,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    PluginError,
    get_repository,
    get_session,
    get_sync_repository,
    get_sync_session,
    register_exception_handlers,
    tenant_from_header,
)

from .conftest import Api, MakePlugin


class Base(DeclarativeBase):
    pass


class Memo(TenantMixin, Base):
    __tablename__ = "refusal_memos"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


async def nobody() -> None:
    return None


async def everybody() -> Any:
    return ALL_TENANTS


async def ada() -> str:
    return "ada"


def api_of(plugin: DatabasePlugin, runner: asyncio.Runner) -> Api:
    app = FastAPI()
    plugin.install(app)
    register_exception_handlers(app)

    @app.get("/async/{name}")
    async def count(name: str, memos: Any = Depends(get_repository(Memo))) -> int:
        return int(await memos.count())

    @app.get("/sync/{name}")
    def sync_count(name: str, memos: Any = Depends(get_sync_repository(Memo))) -> int:
        return int(memos.count())

    return Api(app, runner)


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("override", [False, True])
def test_a_tenant_dependency_that_gives_none_is_told_to_the_client(
    make_plugin: MakePlugin, runner: asyncio.Runner, kind: str, override: bool
) -> None:
    source = tenant_from_header()
    plugin = make_plugin(tenant=source if override else nobody)
    api = api_of(plugin, runner)
    if override:
        api.app.dependency_overrides[source] = nobody
    answer = api.get(f"/{kind}/a")
    assert (answer.status_code, answer.json()["detail"]) == (400, "The request names no tenant.")


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_plugin_that_asks_for_no_tenant_is_the_programmers_fault(
    make_plugin: MakePlugin, runner: asyncio.Runner, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = api_of(make_plugin(tenant=None), runner).get(f"/{kind}/a")
    assert answer.status_code == 500
    assert "tenant" not in answer.text
    assert "DatabasePlugin(url, tenant=…)" in caplog.text


WAYS = ["repository", "by hand", "read", "raw", "add", "own session", "own session beside", "own words"]
"""How an endpoint comes to need a tenant."""

SERVERS = {"own session", "own session beside"}
"""The ways in which the code leaves the tenant out, whatever the request says."""


def _on_async(app: FastAPI, plugin: DatabasePlugin) -> None:
    @app.get("/repository")
    async def repository(memos: Any = Depends(get_repository(Memo))) -> int:
        return int(await memos.count())

    @app.get("/by hand")
    async def by_hand(session: Any = Depends(get_session)) -> int:
        return int(await create_async_repository(session, Memo).count())

    @app.get("/read")
    async def read(session: Any = Depends(get_session)) -> int:
        return int(await session.scalar(select(func.count()).select_from(Memo)))

    @app.get("/raw")
    async def raw(session: Any = Depends(get_session)) -> None:
        await session.execute(text("SELECT count(*) FROM refusal_memos"))

    @app.get("/add")
    async def add(session: Any = Depends(get_session)) -> None:
        session.add(Memo())

    @app.get("/own session")
    async def own() -> int:
        async with plugin.session() as session:
            return int(await session.scalar(select(func.count()).select_from(Memo)))

    @app.get("/own session beside")
    async def beside(_: Any = Depends(get_session)) -> int:
        return await own()

    @app.get("/own words")
    async def own_words(_: Any = Depends(get_session)) -> None:
        raise TenantRequiredError("Choose a workspace.")


def _on_sync(app: FastAPI, plugin: DatabasePlugin) -> None:
    @app.get("/repository")
    def repository(memos: Any = Depends(get_sync_repository(Memo))) -> int:
        return int(memos.count())

    @app.get("/by hand")
    def by_hand(session: Any = Depends(get_sync_session)) -> int:
        return int(create_repository(session, Memo).count())

    @app.get("/read")
    def read(session: Any = Depends(get_sync_session)) -> int:
        return int(session.scalar(select(func.count()).select_from(Memo)))

    @app.get("/raw")
    def raw(session: Any = Depends(get_sync_session)) -> None:
        session.execute(text("SELECT count(*) FROM refusal_memos"))

    @app.get("/add")
    def add(session: Any = Depends(get_sync_session)) -> None:
        session.add(Memo())

    @app.get("/own session")
    def own() -> int:
        with plugin.sync_session() as session:
            return int(session.scalar(select(func.count()).select_from(Memo)) or 0)

    @app.get("/own session beside")
    def beside(_: Any = Depends(get_sync_session)) -> int:
        return own()

    @app.get("/own words")
    def own_words(_: Any = Depends(get_sync_session)) -> None:
        raise TenantRequiredError("Choose a workspace.")


FACES: dict[str, Callable[[FastAPI, DatabasePlugin], None]] = {"async": _on_async, "sync": _on_sync}


def expected(way: str, asked: bool, named: bool) -> tuple[int, str]:
    """The status, and words of the problem or of the log."""
    if way == "own words":
        return 400, "Choose a workspace."
    if way in SERVERS or not asked:
        return 500, "DatabasePlugin(url, tenant=…)"
    if not named:
        return 400, "The header X-Tenant-ID must name one."
    if way == "by hand":
        return 500, "DatabasePlugin(url, tenant=…)"
    return (403, "can't be confined") if way == "raw" else (200, "")


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "unasked"])
def test_who_is_at_fault_where_a_tenant_is_missing(
    make_plugin: MakePlugin, runner: asyncio.Runner, kind: str, asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Each way to need a tenant, with and without one in the request."""
    plugin = make_plugin() if asked else make_plugin(tenant=None)
    app = FastAPI()
    plugin.install(app)
    register_exception_handlers(app)
    FACES[kind](app, plugin)
    api = Api(app, runner)
    for way in WAYS:
        for named in (True, False):
            caplog.clear()
            answer = api.get(f"/{way}", tenant="a" if named else None)
            status, words = expected(way, asked, named)
            cell = f"{way}, named: {named}: {answer.text}"
            assert answer.status_code == status, cell
            errors = [record for record in caplog.records if record.levelname == "ERROR"]
            assert bool(errors) == (status == 500), cell
            if status == 500:
                assert answer.json()["code"] == "internal", cell
                assert "detail" not in answer.json(), cell
                assert words in errors[0].getMessage(), cell
            elif status != 200:
                assert words.lower() in answer.json()["detail"].lower(), cell


@pytest.mark.parametrize("kind", FACES)
def test_without_handlers_a_request_without_a_tenant_is_a_400_and_the_apps_fault_is_raised(
    make_plugin: MakePlugin, runner: asyncio.Runner, kind: str
) -> None:
    asked, unasked = make_plugin(name="asked"), make_plugin(tenant=None, name="unasked")
    for plugin in (asked, unasked):
        app = FastAPI()
        plugin.install(app)
        FACES[kind](app, plugin)
        api = Api(app, runner)
        for way in ("repository", "read", "add", "own session"):
            if plugin is asked and way not in SERVERS:
                assert api.get(f"/{way}").status_code == 400
            else:
                with pytest.raises(TenantRequiredError, match="DatabasePlugin"):
                    api.get(f"/{way}")


def test_a_tenant_dependency_that_needs_a_tenant_itself_is_the_apps_fault(
    make_plugin: MakePlugin, runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def tenant() -> str:
        async with plugin.session() as session:
            return str(await session.scalar(select(Memo.tenant_id)))

    plugin = make_plugin(tenant=tenant)
    assert api_of(plugin, runner).get("/async/a").status_code == 500
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == ["ERROR"]


def test_the_start_tells_of_tenants_models_without_a_tenant(
    make_plugin: MakePlugin, runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def started(plugin: DatabasePlugin) -> None:
        api = api_of(plugin, runner)
        async with plugin.lifespan(api.app):
            pass

    runner.run(started(make_plugin()))
    assert "asks no request" not in caplog.text
    runner.run(started(make_plugin(tenant=None)))
    assert "Memo: the rows belong to tenants" in caplog.text
    with pytest.raises(PluginError, match="asks no request"):
        runner.run(started(make_plugin(tenant=None, strict=True)))


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_request_for_all_tenants_is_one_record_with_actor_and_path(
    make_plugin: MakePlugin, runner: asyncio.Runner, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dotmac_database.tenancy")
    api = api_of(make_plugin(tenant=everybody, actor=ada), runner)
    assert api.get(f"/{kind}/a%0Ab").status_code == 200
    opened = [record for record in caplog.records if record.name == "dotmac_database.tenancy"]
    assert [record.levelname for record in opened] == ["INFO"]
    message = opened[0].getMessage()
    assert "actor 'ada'" in message
    assert f"GET '/{kind}/a\\nb'" in message
