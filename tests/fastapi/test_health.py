"""The health of a database that is there, and of one that is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Header, HTTPException

from dotmac_database import DatabaseHealthChecker
from dotmac_database_fastapi import DatabasePlugin, health_router
from tests.fastapi.conftest import Api, MakePlugin


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
def gone(dialect: str) -> DatabasePlugin:
    return DatabasePlugin("sqlite:////nowhere/at/all.db" if dialect == "sqlite" else "postgresql://me:pw@127.0.0.1:1/x")


def test_a_database_that_is_not_there(gone: DatabasePlugin, runner: asyncio.Runner) -> None:
    api = Api(app_of(gone, checker=DatabaseHealthChecker(connection_timeout=1)), runner)
    for path in ("/health/db", "/health/db/ready"):
        answer = api.get(path)
        assert answer.status_code == 503
        assert answer.json()["status"] == "unhealthy"
        assert "pw" not in answer.text
    assert api.get("/health/db/live").status_code == 200
    runner.run(gone.database.dispose_async())


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
