"""HEAD answers as GET does, without the body."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from dotmac_database_fastapi import health_router, rerun_route
from tests.fastapi.conftest import Api, inlined, serving
from tests.fastapi.shared_routers import crud_router, list_router
from tests.models import Country, User

PATHS = (
    *("/users", "/users?per_page=1", "/users?limit=1", "/users?nonsense=1", "/users?cursor=x"),
    *("/users/{id}", "/users/018f3c2e-0000-7000-8000-0123456789ab", "/users/x"),
    *("/listed", "/api/countries", "/api/countries/nz", "/rerun/", "/health/db/live", "/health/db/ready"),
)


def add_routes(app: FastAPI) -> None:
    app.include_router(crud_router(User, prefix="/users"))
    app.include_router(list_router(User, prefix="/listed"))
    outer = APIRouter(prefix="/api")
    outer.include_router(crud_router(Country, prefix="/countries"))
    app.include_router(outer)
    app.include_router(list_router(User, route_class=rerun_route()), prefix="/rerun")
    app.include_router(health_router())


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    add_routes(shared_api.app)
    return shared_api


@pytest.fixture
def api(served: Api, emptied: None) -> Api:
    return served


def told(answer: Any) -> tuple[int, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "server")}
    return answer.status_code, headers


@pytest.mark.parametrize("tenant", ["a", None])
@pytest.mark.parametrize("path", PATHS)
def test_head_tells_what_get_tells(api: Api, path: str, tenant: str | None) -> None:
    made = api.post("/users", tenant="a", json={"name": "Ann"})
    path = path.replace("{id}", made.json()["id"])
    get, head = api.get(path, tenant=tenant), api.request("HEAD", path, tenant=tenant)
    if path == "/health/db/ready":  # its body has the time that it took
        get.headers.pop("content-length"), head.headers.pop("content-length")
    assert told(head) == told(get)
    assert (head.content, bool(get.content)) == (b"", True)


def test_the_whole_health_answers_too(api: Api) -> None:
    assert api.request("HEAD", "/health/db").status_code == api.get("/health/db").status_code


def test_on_the_wire_too(app: FastAPI) -> None:
    add_routes(app)
    with serving(app) as url:
        for path in ("/users", "/users/x", "/health/db/live"):
            headers = {"X-Tenant-ID": "a"}
            get, head = (send(url + path, headers=headers, timeout=90) for send in (httpx.get, httpx.head))
            assert told(head) == told(get)


def test_openapi_shows_each_operation_once(app: FastAPI, recwarn: pytest.WarningsRecorder) -> None:
    add_routes(app)
    paths = inlined(app.openapi())["paths"]
    assert not any("head" in operations for operations in paths.values())
    ids = [each["operationId"] for operations in paths.values() for each in operations.values()]
    assert len(set(ids)) == len(ids)
    assert not recwarn.list


def test_other_methods_are_refused_as_before(api: Api) -> None:
    assert api.request("PUT", "/users", tenant="a").status_code == 405
    assert api.request("HEAD", "/users/x/restore", tenant="a").status_code == 405
