"""A filter or a body with a value that a column's type can't convert is a 422 that names the field."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import MetaData

from dotmac_database_fastapi import crud_router
from tests.fastapi.conftest import Api
from tests.integration.test_refused_values import Base, Event, Thing


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def test_moments_of_sqlmodel(app: FastAPI, runner: Any) -> None:
    app.include_router(crud_router(Event, prefix="/events"))
    api = Api(app, runner)
    for name, moment in (
        ("a", "2026-01-01T00:00:00Z"),
        ("b", "2026-01-01T00:00:00"),
        ("c", "2026-01-01T01:00:00+01:00"),
    ):
        made = api.post("/events", tenant="t", json={"name": name, "at": moment})
        assert made.status_code == 201, made.text
        assert datetime.fromisoformat(made.json()["at"]).isoformat() == "2026-01-01T00:00:00+00:00"
    for moment in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01"):
        found = api.get(f"/events?at={moment}", tenant="t")
        assert (found.status_code, found.json().get("total")) == (200, 3), found.text
    for parameter in ("at", "at__gte", "at__in"):
        refused = api.get(f"/events?{parameter}=nonsense", tenant="t")
        assert refused.status_code == 422
        assert "at" in refused.json()["detail"]


def test_a_type_of_the_apps_own(app: FastAPI, runner: Any) -> None:
    app.include_router(crud_router(Thing, prefix="/things"))
    api = Api(app, runner)
    for key in ("by_value", "by_attribute", "by_type", "by_lookup"):
        asked = api.get(f"/things?{key}=bad", tenant="t")
        written = api.post("/things", tenant="t", json={"name": "a", key: "bad"})
        assert (asked.status_code, written.status_code) == (422, 422), asked.text + written.text
        assert asked.json()["errors"][0]["loc"] == ["query", key]
        assert written.json()["fields"] == [key]
        assert "Error" not in asked.text + written.text
