"""``total=``: what a list's total may cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI

from dotmac_database import Database, ValidationError, create_repository
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.shared_routers import crud_router, list_router
from tests.models import Post

MANY = 10_030


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    app = shared_api.app
    app.include_router(list_router(Post, prefix="/posts"))
    app.include_router(list_router(Post, prefix="/uncounted", total="none"))
    kinds: Any = {"exact", "bounded", "none", "estimate"}
    app.include_router(list_router(Post, prefix="/estimated", totals=kinds, max_offset=None))
    return shared_api


@pytest.fixture
def api(served: Api, emptied: None) -> Api:
    return served


@pytest.fixture
def few(database: Database) -> None:
    _fill(database, 25)


def _fill(database: Database, many: int) -> None:
    with database.sessions() as session:
        rows = [{"id": n, "title": f"t{n}"} for n in range(many)]
        create_repository(session, Post, "a").bulk_create(rows, returning=False)
    if database.url.get_backend_name() == "postgresql":
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE posts")


def told(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {key: value for key, value in answer.json().items() if key != "items"}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("total", ["exact", "bounded", "estimate"])
def test_small_lists_are_counted_however_asked(api: Api, total: str) -> None:
    answer = api.get(f"/estimated?total={total}&page=2&per_page=10", tenant="a")
    page = {"total": 25, "page": 2, "per_page": 10, "pages": 3, "has_next": True, "has_prev": True}
    assert told(answer) == (page if total == "exact" else {**page, "total_is_exact": True})
    assert answer.links["last"]["url"] == f"/estimated?total={total}&page=3&per_page=10"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("path", ["/posts?total=none&page=2&per_page=10", "/uncounted?page=2&per_page=10"])
def test_nothing_is_counted_where_no_total_is_asked_for(api: Api, path: str) -> None:
    answer = api.get(path, tenant="a")
    assert told(answer) == {
        "total": None,
        "page": 2,
        "per_page": 10,
        "pages": None,
        "has_next": True,
        "has_prev": True,
        "total_is_exact": False,
    }
    assert set(answer.links) == {"first", "prev", "next"}
    last = api.get(path.replace("page=2", "page=3", 1), tenant="a")
    assert (last.json()["has_next"], set(last.links)) == (False, {"first", "prev"})


@pytest.mark.usefixtures("few")
def test_a_routers_own_way_can_be_overruled(api: Api) -> None:
    assert told(api.get("/uncounted?total=exact", tenant="a"))["total"] == 25


def test_long_lists(api: Api, database: Database, dialect: str) -> None:
    _fill(database, MANY)
    bounded = api.get("/posts?total=bounded&page=2&per_page=10", tenant="a")
    assert (told(bounded)["total"], told(bounded)["pages"], told(bounded)["total_is_exact"]) == (10_000, 1000, False)
    assert set(bounded.links) == {"first", "prev", "next"}  # the last page is not known
    estimate = told(api.get("/estimated?total=estimate", tenant="a"))
    assert estimate["total"] == (10_000 if dialect == "sqlite" else MANY)
    assert estimate["total_is_exact"] is False
    deep = told(api.get("/estimated?total=bounded&page=1003&per_page=10", tenant="a"))
    assert (deep["total"], deep["total_is_exact"], deep["has_next"]) == (MANY, True, False)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "query", ["total=most", "total=", "total=estimate", "total=exact&total=none", "total=none&limit=5"]
)
def test_other_totals_are_refused_by_name(api: Api, query: str) -> None:
    answer = api.get(f"/posts?{query}", tenant="a")
    assert answer.status_code == 422
    assert {fault["loc"][-1] for fault in answer.json()["errors"]} <= {"total", "limit"}


def test_openapi_names_the_kinds(api: Api) -> None:
    parameters = {each["name"]: each for each in inlined(api.app.openapi())["paths"]["/uncounted"]["get"]["parameters"]}
    assert parameters["total"]["schema"] == {"type": "string", "enum": ["exact", "bounded", "none"]}
    assert parameters["total"]["description"].endswith("Default: none.")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, {"exact", "bounded", "none"}),
        ({"totals": {"exact"}}, {"exact"}),
        ({"totals": ()}, {"exact"}),
        ({"totals": {"none"}, "total": "none"}, {"none"}),
        ({"totals": {"none"}, "total": "bounded"}, {"none", "bounded"}),
        ({"total": "estimate"}, {"exact", "bounded", "none", "estimate"}),
        ({"totals": {"estimate"}}, {"exact", "estimate"}),
    ],
)
@pytest.mark.parametrize("make", [list_router, crud_router])
def test_a_client_may_ask_for_what_the_router_names(
    app: FastAPI, runner: asyncio.Runner, make: Any, options: Any, allowed: set[str]
) -> None:
    app.include_router(make(Post, prefix="/some", **options))
    api = Api(app, runner)
    for kind in ("exact", "bounded", "estimate", "none"):
        assert api.get(f"/some?total={kind}", tenant="a").status_code == (200 if kind in allowed else 422)
    parameters = {each["name"]: each for each in inlined(app.openapi())["paths"]["/some"]["get"]["parameters"]}
    assert set(parameters["total"]["schema"]["enum"]) == allowed


@pytest.mark.parametrize("options", [{"totals": {"most"}}, {"total": "most"}, {"totals": "exact"}])
def test_a_total_that_there_is_not_is_refused_at_once(options: Any) -> None:
    with pytest.raises(ValidationError, match="total"):
        list_router(Post, prefix="/posts", **options)
