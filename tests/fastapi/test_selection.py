"""The parameters ``fields`` and ``include`` of lists and items: which columns and related rows a request gets.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import make_url

from dotmac_database import RowLevelSecurity, create_database
from dotmac_database_fastapi import DatabasePlugin, register_exception_handlers, tenant_from_header
from tests.confined import confined_database
from tests.conftest import counted
from tests.fastapi.conftest import Api, checked_out
from tests.fastapi.shared_routers import crud_router

from .selected_models import AUTHORS, TENANTS, TOKEN, Base, ComputedOut, Post, PostOut, author_id, fill

pytest.importorskip("sqlmodel")

from .selected_sqlmodels import SqlPost, SqlTag  # after the check that SQLModel is there

PLACES = ("sqlite", "postgresql", "rls")
KINDS: dict[str, tuple[type, type | None]] = {
    "derived": (Post, None),
    "schema": (Post, PostOut),
    "computed": (Post, ComputedOut),
    "sqlmodel": (SqlPost, None),
}
"""The model and the read schema of each kind of router."""

FIELDS, INCLUDE = ("id", "title", "words"), ("author", "author.team", "tags")
SELECTIONS = {
    "none": "",
    "fields": "fields=title,id",
    "include": "include=author.team,tags",
    "both": "fields=title&fields=id&include=tags,author.team,author",
}


class Place:
    """A database with the rows of both tenants, and the plugin of its apps."""

    def __init__(self, url: str, **options: Any) -> None:
        self.runner = asyncio.Runner()
        tenant = tenant_from_header("X-Tenant-ID")
        self.plugin = DatabasePlugin(url, tenant=tenant, strict_loading=True, **options)
        self.engine = self.plugin.database.async_engine.sync_engine
        self.apis: dict[str, Api] = {}
        """The apps with the usual options, by their kind."""

    def api(self, *routers: Any) -> Api:
        app = FastAPI(lifespan=self.plugin.lifespan)
        self.plugin.install(app)
        register_exception_handlers(app)
        for router in routers:
            app.include_router(router)
        return Api(app, self.runner)

    def close(self) -> None:
        self.runner.run(self.plugin.database.dispose_async())
        self.runner.close()


@pytest.fixture(params=PLACES, scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if request.param == "rls":
        rls = RowLevelSecurity(Base.metadata)
        server = request.getfixturevalue("postgres_server")
        name = f"selection_{os.getpid()}"
        with confined_database(server, name, rls) as url:
            _fill(str(make_url(server).set(database=name).render_as_string(hide_password=False)))
            place = Place(url, rls=rls)
            yield place
            place.close()
        return
    folder = tmp_path_factory.mktemp("selection")
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{folder}/test.db"
    _fill(url)
    place = Place(url)
    yield place
    place.close()


def _fill(url: str) -> None:
    database = create_database(url)
    with database.engine.begin() as connection:
        Base.metadata.create_all(connection)
        for prefix in ("selected", "selectedsql"):
            fill(connection, prefix)
    database.dispose()


@pytest.fixture(autouse=True)
def _no_connection_is_left(place: Place) -> Iterator[None]:
    yield
    assert checked_out(place.plugin) == 0


def routed(place: Place, kind: str) -> Api:
    if kind not in place.apis:
        model, schema = KINDS[kind]
        router = crud_router(model, "/posts", read_schema=schema, fields=FIELDS, include=INCLUDE, list_etag=True)
        place.apis[kind] = place.api(router)
    return place.apis[kind]


def expected(kind: str, tenant: str, selection: str) -> list[dict[str, Any]]:
    """The rows of a tenant as a request gets them, by their ids. They are made without the toolkit."""
    first, made = TENANTS[tenant], []
    fields, include = selection in ("fields", "both"), selection in ("include", "both")
    for place, author in enumerate(AUTHORS):
        derived = kind in ("derived", "sqlmodel")
        row: dict[str, Any] = {"id": first + 1 + place}
        row["title" if derived else "heading"] = f"post {place}"
        token = {"token": str(TOKEN)} if derived else {}
        team = {"id": first + 1, "name": "team 1", **token} if author == "live" else None
        key = author_id(tenant, author)
        seen = author in ("live", "of a deleted team")
        if not fields:
            row["words"] = (place * 3) % 4
            if derived:
                row |= {"body": f"b{place}", "author_id": key, "editor_id": key, "version": 1}
            if kind == "computed":
                row |= {"body": f"b{place}", "loud": f"post {place}!b{place}"}
                row["editor"] = {"id": key, "motto": f"m{key and key % 100}", "team": team} if seen else None
        if include:
            row["tags"] = [{"id": first + 1, "name": "t1", "labels": ["x"]}] if place % 2 == 0 else []
            named = {"id": key, "name" if derived else "fullName": f"author {key and key % 100}", "team": team}
            if derived:
                named |= {"motto": f"m{key and key % 100}", "team_id": first + (1 if author == "live" else 2)}
            row["author" if derived else "writtenBy"] = named if seen else None
        made.append(row)
    return made


def numbered(api: Api, query: str, tenant: str) -> list[dict[str, Any]]:
    answer = api.get(f"/posts?{query}", tenant=tenant)
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == len(AUTHORS)
    return list(answer.json()["items"])


def walked(api: Api, query: str, tenant: str) -> list[dict[str, Any]]:
    """The rows of all cursor pages, there and back, in an order by a column that the fields leave out."""
    rows: list[dict[str, Any]] = []
    path, back = f"/posts?limit=2&sort=-words&{query}", None
    while path:
        answer = api.get(path, tenant=tenant)
        assert answer.status_code == 200, answer.text
        if rows:
            assert api.get(answer.links["prev"]["url"], tenant=tenant).json()["items"] == back
        back = answer.json()["items"]
        rows += back
        path = answer.links.get("next", {}).get("url", "")
    places = sorted(range(len(AUTHORS)), key=lambda place: (-((place * 3) % 4), -place))
    assert [row["id"] % 100 for row in rows] == [place + 1 for place in places]
    return sorted(rows, key=lambda row: int(row["id"]))


def each_item(api: Api, query: str, tenant: str) -> list[dict[str, Any]]:
    first = TENANTS[tenant]
    answers = [api.get(f"/posts/{first + 1 + place}?{query}", tenant=tenant) for place in range(len(AUTHORS))]
    for answer in answers:
        assert (answer.status_code, answer.headers["etag"]) == (200, '"1"'), answer.text
    foreign = api.get(f"/posts/{101 - first}?{query}", tenant=tenant)
    deleted = api.get(f"/posts/{first + 50}?{query}", tenant=tenant)
    assert (foreign.status_code, deleted.status_code) == (404, 404)
    assert foreign.json() == deleted.json()
    return [answer.json() for answer in answers]


ROUTES = {"numbered": numbered, "cursor": walked, "item": each_item}


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ROUTES)
def test_each_route_gives_what_the_request_selects(place: Place, route: str, kind: str, selection: str) -> None:
    api = routed(place, kind)
    for tenant in TENANTS:
        assert ROUTES[route](api, SELECTIONS[selection], tenant) == expected(kind, tenant, selection)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ["/posts?sort=id&{}", "/posts?limit=9&{}", "/posts/{id}?{}"])
def test_which_statements_are_sent(place: Place, kind: str, route: str) -> None:
    api = routed(place, kind)

    def sent(query: str) -> list[str]:
        with counted(place.engine) as statements:
            assert api.get(route.replace("{id}", "1").replace("{}", query), tenant="a").status_code == 200
        return [each for each in statements if "selected" in each]

    statements = sent("fields=id,title")
    if kind == "computed":
        assert "body" in statements[0]
    else:
        assert len(statements) == 1
        columns = statements[0].partition(" FROM ")[0]
        assert ("title" in columns, "words" in columns, "body" in columns) == (True, False, False)
    always = {"computed": 2}.get(kind, 0)
    assert len(sent("")) == 1 + always
    assert len(sent("include=author")) == 2 + always
    assert len(sent("include=author.team,tags")) == 4 + always


@pytest.mark.parametrize("route", ["/tags?per_page=1&{}", "/tags?limit=1&{}", "/tags/1?{}"])
def test_a_value_that_must_be_converted(place: Place, route: str) -> None:
    if "tags" not in place.apis:
        place.apis["tags"] = place.api(crud_router(SqlTag, "/tags", fields=["id", "name", "labels"]))
    for query, expected in (("fields=labels", {"labels": ["x"]}), ("fields=name", {"name": "t1"})):
        answer = place.apis["tags"].get(route.replace("{}", query), tenant="a")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["items"][0] if "items" in answer.json() else answer.json()) == expected
