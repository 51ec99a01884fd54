"""What a client, the log and the start say where there is no tenant, or where it is all of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import ALL_TENANTS, TenantMixin
from dotmac_database_fastapi import (
    DatabasePlugin,
    PluginError,
    get_repository,
    get_sync_repository,
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
