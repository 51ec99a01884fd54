"""The health of a database that is there, and of one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import CircuitBreaker, DatabaseHealthChecker, DatabaseUnavailableError, RowLevelSecurity
from dotmac_database_fastapi import DatabasePlugin, health_router
from tests.fastapi.conftest import Api, MakePlugin, threads_ended
from tests.models import Base


def app_of(plugin: DatabasePlugin, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    app.include_router(health_router(plugin=plugin, **options))
    return app


def test_a_database_that_is_well(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    api = Api(app_of(make_plugin()), runner)
    for path in ("/health/db", "/health/db/ready"):
        answer = api.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] in ("healthy", "degraded")
        assert answer.json()["details"] == {}
        assert answer.headers["cache-control"] == "no-store"
    assert api.get("/health/db/live").status_code == 200


@pytest.fixture
def gone(dialect: str, runner: asyncio.Runner) -> Iterator[DatabasePlugin]:
    url = "sqlite:////nowhere/at/all.db" if dialect == "sqlite" else "postgresql://me:pw@127.0.0.1:1/x"
    plugin = DatabasePlugin(url)
    with threads_ended(runner):
        yield plugin
        runner.run(plugin.database.dispose_async())


def test_a_database_that_is_not_there(gone: DatabasePlugin, runner: asyncio.Runner) -> None:
    api = Api(app_of(gone, checker=DatabaseHealthChecker(connection_timeout=1)), runner)
    for path in ("/health/db", "/health/db/ready"):
        answer = api.get(path)
        assert answer.status_code == 503
        assert answer.json()["status"] == "unhealthy"
        assert "pw" not in answer.text
    assert api.get("/health/db/live").status_code == 200


def test_details_are_behind_an_option_or_a_dependency(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    def operator(authorization: str = Header("")) -> bool:
        if authorization == "bad":
            raise HTTPException(401)
        return authorization == "operator"

    assert Api(app_of(make_plugin(), details=True), runner).get("/health/db").json()["details"]
    api = Api(app_of(make_plugin(name="second"), details=operator), runner)
    assert api.get("/health/db").json()["details"] == {}
    assert api.get("/health/db", headers={"Authorization": "operator"}).json()["details"]
    assert api.get("/health/db", headers={"Authorization": "bad"}).status_code == 401
    assert api.get("/health/db/ready", headers={"Authorization": "operator"}).json()["details"] == {}


def test_a_breaker_that_is_open_is_shown(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    breaker = CircuitBreaker(failure_threshold=1)

    @breaker
    def away() -> None:
        raise DatabaseUnavailableError

    plugin = make_plugin()
    hidden = Api(app_of(plugin, checker=DatabaseHealthChecker(breaker=breaker)), runner)
    shown = Api(app_of(plugin, checker=DatabaseHealthChecker(breaker=breaker), details=True), runner)
    assert shown.get("/health/db").json()["details"]["circuit"] == "closed"
    with pytest.raises(DatabaseUnavailableError):
        away()
    answer = shown.get("/health/db")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["details"]["circuit"] == "open"
    assert answer.json()["message"] == "the circuit breaker is not closed"
    assert hidden.get("/health/db").json()["status"] == "degraded"
    assert "circuit" not in hidden.get("/health/db").text


def test_holes_of_the_plugins_row_level_security_are_shown(
    make_plugin: MakePlugin, runner: asyncio.Runner, dialect: str
) -> None:
    if dialect != "postgresql":
        pytest.skip("Row-level security is PostgreSQL's")
    plugin = make_plugin(rls=RowLevelSecurity(Base.metadata))
    told = Api(app_of(plugin, details=True), runner).get("/health/db").json()
    assert told["status"] == "degraded"
    assert {"users", "posts"} <= {found["object"].rpartition(".")[2] for found in told["details"]["row_level_security"]}
    # Nor does the message tell a stranger what is open.
    public = Api(app_of(plugin), runner).get("/health/db").json()
    assert public["status"] == "degraded"
    assert "security" not in str(public)


def test_what_went_wrong_is_behind_the_option_too(gone: DatabasePlugin, runner: asyncio.Runner) -> None:
    checker = DatabaseHealthChecker(connection_timeout=1)
    shown = Api(app_of(gone, checker=checker, details=True), runner).get("/health/db").json()
    public = Api(app_of(gone, checker=checker), runner).get("/health/db").json()
    assert shown["error"].startswith(f"{public['error']}: ")
    assert public["error"] == "DatabaseUnavailableError"
    assert public["message"] != shown["message"]


@pytest.mark.parametrize("path", ["/health/db", "/health/db/ready"])
@pytest.mark.parametrize("served", ["sync", "async"])
def test_the_engine_that_the_requests_use_is_checked(
    make_plugin: MakePlugin, runner: asyncio.Runner, path: str, served: str
) -> None:
    """No second engine, with another driver, is made for the check."""
    plugin = make_plugin()
    app = app_of(plugin, details=True)

    @app.get("/sync")
    def use(session: Session = Depends(plugin.get_sync_session)) -> int:
        return int(session.scalar(select(1)) or 0)

    @app.get("/async")
    async def use_async(session: AsyncSession = Depends(plugin.get_session)) -> int:
        return int(await session.scalar(select(1)) or 0)

    api = Api(app, runner)
    assert api.get(f"/{served}").json() == 1
    engines = list(plugin.database.engines)
    assert len(engines) == 1
    assert api.get(path).json()["status"] == "healthy"
    assert plugin.database.engines == engines
