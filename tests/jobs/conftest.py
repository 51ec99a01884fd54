"""An app whose endpoints send jobs, for the tests with real queues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import MisuseError, create_repository, on_commit
from dotmac_database_fastapi import (
    DatabasePlugin,
    carry,
    get_repository,
    get_session,
    get_sync_repository,
    get_sync_session,
    register_exception_handlers,
    tenant_from_header,
)
from tests.fastapi.conftest import Api, checked_out
from tests.fastapi.job_models import RLS, Order, database_of

KEY = "a key of at least sixteen bytes"
TENANTS = ("acme", "globex")
KINDS = ("sqlite", "rls")

Send = Callable[[int, dict[str, str]], object]


def user(x_user: Annotated[str, Header()]) -> str:
    return x_user


def plugin_of(url: str, kind: str) -> DatabasePlugin:
    """The plugin of the app, and the same one in the worker."""
    return DatabasePlugin(url, tenant=tenant_from_header(), actor=user, job_key=KEY, rls=RLS if kind == "rls" else None)


class Shop:
    """An app with an endpoint that creates an order and sends a job for it, by ``send(order, headers)``."""

    def __init__(self, plugin: DatabasePlugin, runner: asyncio.Runner, send: Send) -> None:
        self.plugin = plugin
        app = FastAPI()
        plugin.install(app)
        register_exception_handlers(app)

        @app.post("/async/{number}", status_code=202)
        async def by_async(
            number: int,
            orders: Any = Depends(get_repository(Order)),
            session: AsyncSession = Depends(get_session),
            fails: bool = False,
        ) -> None:
            headers = carry(session)
            on_commit(session, lambda: send(number, headers))
            await orders.create({"id": number})
            if fails:
                raise MisuseError("nothing is committed")

        @app.post("/sync/{number}", status_code=202)
        def by_sync(
            number: int,
            orders: Any = Depends(get_sync_repository(Order)),
            session: Session = Depends(get_sync_session),
        ) -> None:
            headers = carry(session)
            on_commit(session, lambda: send(number, headers))
            orders.create({"id": number})

        self._api = Api(app, runner)

    def order(self, number: int, tenant: str, actor: str, way: str = "async", **params: Any) -> int:
        """Send a request that creates an order. The answer's status."""
        headers = {"X-User": actor, "X-Request-ID": f"request-{number}"}
        return self._api.post(f"/{way}/{number}", tenant=tenant, headers=headers, params=params).status_code

    def rows(self) -> dict[int, tuple[str, str, str | None]]:
        """The tenant, the status and the creator of each order of all tenants."""
        found = {}
        for tenant in TENANTS:
            with self.plugin.sync_session(tenant) as session:
                for row in create_repository(session, Order, tenant).list():
                    found[row.id] = row.tenant_id, row.status, row.created_by
        return found


@pytest.fixture(scope="module")
def urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The URLs of a database on SQLite, and of one on PostgreSQL with row-level security."""
    folder: Path = tmp_path_factory.mktemp("databases")
    with database_of("sqlite", request, folder) as sqlite, database_of("rls", request, folder) as rls:
        yield {"sqlite": sqlite, "rls": rls}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The database: a key of `urls`."""
    return str(request.param)


@pytest.fixture
def plugin(kind: str, urls: dict[str, str], runner: asyncio.Runner) -> Iterator[DatabasePlugin]:
    """A plugin, which may hold no connection at the end."""
    plugin = plugin_of(urls[kind], kind)
    yield plugin
    held = checked_out(plugin)
    runner.run(plugin.database.dispose_async())
    assert held == 0


def altered(headers: dict[str, str]) -> dict[str, dict[str, str] | None]:
    """Headers of which each is one that a job must not run with, by what is wrong with them."""
    unsigned = {name: value for name, value in headers.items() if name != "dotmac-job-signature"}
    return {
        "none": None,
        "empty": {},
        "another tenant": {**headers, "dotmac-job-tenant": "text:globex"},
        "another actor": {**headers, "dotmac-job-actor": "root"},
        "unsigned": unsigned,
        "no tenant": {name: value for name, value in headers.items() if name != "dotmac-job-tenant"},
    }
