"""A version column of any name and type is what ``ETag`` and ``If-Match`` are about, and no client's to write."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import MetaData

from dotmac_database import traits_of
from dotmac_database_fastapi import crud_router
from tests.fastapi.conftest import Api
from tests.integration.test_version_columns import MODELS, Base, names


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.mark.parametrize("model", MODELS, ids=names)
def test_a_row_is_written_under_the_version_that_was_read(app: FastAPI, runner: Any, model: Any) -> None:
    app.include_router(crud_router(model, prefix="/rows"))
    api = Api(app, runner)
    made = api.post("/rows", tenant="t", json={"name": "a"})
    assert made.status_code == 201, made.text
    path, first = made.headers["location"], made.headers["etag"]
    assert first not in ('"None"', '"0"')
    assert api.post("/rows", tenant="t", json={"name": "b", traits_of(model).version: 7}).status_code == 422

    def conditional(method: str, tag: str, **options: Any) -> Any:
        return api.request(method, path, tenant="t", headers={"If-Match": tag}, **options)

    changed = conditional("PATCH", first, json={"note": "x"})
    assert changed.status_code == 200, changed.text
    second = changed.headers["etag"]
    assert second != first
    assert conditional("PATCH", first, json={"note": "y"}).status_code == 412
    assert conditional("PATCH", '"nothing"', json={"note": "y"}).status_code == 412
    assert conditional("DELETE", first).status_code == 412
    assert conditional("PATCH", f"{first}, {second}", json={"note": "z"}).status_code == 200
    third = api.get(path, tenant="t").headers["etag"]
    assert conditional("DELETE", third).status_code == 204
