"""A POST writes the defaults of a schema that the app wrote; a derived one leaves columns to their own."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import MetaData

from dotmac_database_fastapi import crud_router
from tests.fastapi.conftest import Api
from tests.integration.test_given_defaults import Account, Base, New


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def test_a_schema_of_the_apps_own(app: FastAPI, runner: Any) -> None:
    app.include_router(crud_router(Account, prefix="/accounts", create_schema=New))
    made = Api(app, runner).post("/accounts", tenant="t", json={"name": "a"}).json()
    assert (made["balance"], made["role"], made["note"]) == (7, "guest", "by default")
    assert made["settings"] == {"colour": "blue", "sizes": [1, 2]}


def test_a_derived_schema_shows_defaults_and_writes_none(app: FastAPI, runner: Any) -> None:
    app.include_router(crud_router(Account, prefix="/accounts"))
    api = Api(app, runner)
    made = api.post("/accounts", tenant="t", json={"name": "a"}).json()
    assert (made["balance"], made["role"], made["settings"]) == (0, "guest", {"column": 1})
    shown = app.openapi()["components"]["schemas"]["AccountCreate"]["properties"]
    assert shown["balance"]["default"] == 0
    assert "default" not in shown["role"]
