"""Lists in the form of an API that exists: each kind of page, in each envelope, with each total.

Every list is read by a tenant whose rows look like those of another tenant, on SQLite and, with row-level security, on
PostgreSQL. Every response is compared with its schema in the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import jsonschema_rs
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import (
    AsyncTenantRepository,
    CursorPaginationResult,
    PaginationResult,
    RowLevelSecurity,
    SoftDeleteMixin,
    TenantMixin,
    ValidationError,
    create_database,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    crud_router,
    list_router,
    register_exception_handlers,
    tenant_from_header,
)
from tests.confined import confined_database
from tests.conftest import counted
from tests.fastapi.conftest import Api, inlined

T = TypeVar("T")


class Base(DeclarativeBase):
    """The tables of this module."""


class Team(TenantMixin, Base):
    __tablename__ = "fitted_teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Person(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "fitted_people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    score: Mapped[int | None]
    salary: Mapped[int] = mapped_column(default=1)
    hashed: Mapped[str] = mapped_column(default="hash", info={"private": True})
    team_id: Mapped[int] = mapped_column(sa.ForeignKey(Team.id))
    team: Mapped[Team] = relationship()


class TeamPublic(BaseModel):
    name: str


class PersonPublic(BaseModel):
    """A row without the salary, and with a relationship and a computed value."""

    id: int
    name: str
    team: TeamPublic


class People(BaseModel):
    """The envelope of FastAPI's template."""

    data: list[PersonPublic] = Field(validation_alias="items")
    count: int = Field(validation_alias="total")


class Uncounted(BaseModel):
    """An envelope that any page can have."""

    data: list[PersonPublic] = Field(validation_alias="items")
    count: int | None = Field(default=None, validation_alias="total")
    next: str | None = Field(default=None, validation_alias="next_cursor", serialization_alias="nextCursor")


class Enveloped(BaseModel, Generic[T]):
    """An envelope for rows of any schema."""

    data: list[T] = Field(validation_alias="items")
    count: int | None = Field(default=None, validation_alias="total")


class Loose(BaseModel):
    """An envelope that does not say what its rows are: the read schema does."""

    data: list[Any] = Field(validation_alias="items")


def bare(page: Any) -> Any:
    return page.items


def plain(page):  # type: ignore[no-untyped-def]
    return {"data": page.items, "count": getattr(page, "total", None)}


def typed(page: Any) -> Uncounted:
    return Uncounted.model_validate({"items": page.items, "total": getattr(page, "total", None)})


def as_dict(page: Any) -> Enveloped[PersonPublic]:
    """A dict, which the annotation validates."""
    made: Any = {"items": page.items}
    return made


ENVELOPES: dict[str, Any] = {
    "none": None,
    "class": Uncounted,
    "generic": Enveloped,
    "parametrised": Enveloped[PersonPublic],
    "loose": Loose,
    "function": plain,
    "list": bare,
    "typed function": typed,
    "dict": as_dict,
    "partial": partial(typed),
}
PAGES: dict[Any, list[tuple[str, str]]] = {
    None: [("page=2&per_page=10", "page=1&per_page=30"), ("limit=10", "limit=30")],
    "page": [("page=2&per_page=10", "page=1&per_page=30")],
    "offset": [("skip=10&limit=10", "skip=0&limit=30")],
    "cursor": [("limit=10", "limit=30")],
}
"""The query strings for the second ten rows (the first ones of a cursor page) and for all rows."""

SHOWS_PEOPLE = ("class", "parametrised", "typed function", "dict", "partial")
"""The envelopes whose rows are `PersonPublic`."""

CELLS = [
    (paging, envelope, total, schema)
    for paging in PAGES
    for envelope in ENVELOPES
    for total in (("exact",) if paging == "cursor" else ("exact", "bounded", "none"))
    for schema in ("derived", "own")
    if schema == "own" or envelope not in SHOWS_PEOPLE
    if envelope not in ("list", "partial", "parametrised", "dict") or (paging, total) == ("page", "exact")
]


class World:
    """An app with a list for each cell, on a database with the rows of two tenants."""

    def __init__(self, url: Any, rls: RowLevelSecurity | None) -> None:
        self.plugin = DatabasePlugin(url, tenant=tenant_from_header("X-Tenant-ID"), rls=rls)
        self.runner = asyncio.Runner()
        self.app = FastAPI()
        self.plugin.install(self.app)
        register_exception_handlers(self.app)
        for number, (paging, envelope, total, schema) in enumerate(CELLS):
            router = list_router(
                Person,
                f"/{number}",
                paging=paging,
                envelope=ENVELOPES[envelope],
                total=total,
                read_schema=PersonPublic if schema == "own" else None,
            )
            self.app.include_router(router)
        self.api = Api(self.app, self.runner)
        self.document = self.app.openapi()

    def get(self, path: str, tenant: str = "a") -> Any:
        return self.api.get(path, tenant=tenant)

    def schema(self, path: str, method: str = "get", status: str = "200") -> Any:
        """The validator of a response."""
        response = self.document["paths"][path][method]["responses"][status]
        schema = {**response["content"]["application/json"]["schema"], "components": self.document["components"]}
        return jsonschema_rs.validator_for(schema)


def fill(engine: sa.Engine) -> None:
    """25 people of each tenant, and two that are deleted."""
    with engine.begin() as connection:
        for tenant, first in (("a", 100), ("b", 200)):
            connection.execute(sa.insert(Team.__table__), {"id": first, "tenant_id": tenant, "name": f"team {tenant}"})  # type: ignore[arg-type]
            people = [
                {
                    "id": first + number,
                    "tenant_id": tenant,
                    "name": f"person {number:02}",
                    "score": number,
                    "salary": 1,
                    "hashed": "hash",
                    "team_id": first,
                    "is_deleted": number >= 25,
                }
                for number in range(27)
            ]
            connection.execute(sa.insert(Person.__table__), people)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    def serve(url: str, owner: str, rls: RowLevelSecurity | None = None) -> Iterator[World]:
        database = create_database(owner)
        if request.param == "sqlite":
            Base.metadata.create_all(database.engine)
        fill(database.engine)
        database.dispose()
        world = World(url, rls)
        yield world
        world.runner.run(world.plugin.database.dispose_async())
        world.runner.close()

    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('fitted')}/test.db"
        yield from serve(url, url)
        return
    server = request.getfixturevalue("postgres_server")
    name = f"fitted_{os.getpid()}"
    rls = RowLevelSecurity(Base.metadata)
    with confined_database(server, name, rls) as url:
        yield from serve(url, f"{server.rpartition('/')[0]}/{name}", rls)


def rows_of(body: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = body if isinstance(body, list) else body.get("items", body.get("data"))
    return rows


@pytest.mark.parametrize("number", range(len(CELLS)), ids=["-".join(map(str, cell)) for cell in CELLS])
def test_a_list(world: World, number: int) -> None:
    paging, envelope, total, schema = CELLS[number]
    columns = {"id", "name", "score", "salary", "team_id"}
    own = schema == "own" or envelope in SHOWS_PEOPLE
    documented = world.schema(f"/{number}")
    for some, everything in PAGES[paging]:
        answer = world.get(f"/{number}?{some}&sort=name")
        body = answer.json()
        first = 0 if some == "limit=10" else 10
        assert [row["id"] for row in rows_of(body)] == list(range(100 + first, 110 + first))
        assert rows_of(body)[0].keys() == ({"id", "name", "team"} if own else columns)
        if own:
            assert {row["team"]["name"] for row in rows_of(body)} == {"team a"}
        assert answer.links["next"]
        count = 25 if some != "limit=10" and total != "none" else None
        if isinstance(body, dict) and "count" in body:
            assert body["count"] == (None if envelope == "dict" else count)
        elif envelope == "none" and "total" in body:
            assert body["total"] == count
        whole = world.get(f"/{number}?{everything}")
        assert sorted(row["id"] for row in rows_of(whole.json())) == list(range(100, 125))
        for each in (answer, whole):
            assert list(documented.iter_errors(each.json())) == []
        assert "hash" not in whole.text.replace("hashed", "")


@pytest.mark.parametrize("envelope", ["none", "class", "generic", "function", "typed function"])
@pytest.mark.parametrize("paging", ["page", "offset", "cursor"])
def test_pages_are_walked_by_their_links(world: World, paging: str, envelope: str) -> None:
    number = CELLS.index((paging, envelope, "exact", "own"))
    path, seen = f"/{number}?{'per_page' if paging == 'page' else 'limit'}=7&sort=-name", list[int]()
    answers = []
    while path:
        answers.append(world.get(path))
        seen += [row["id"] for row in rows_of(answers[-1].json())]
        path = answers[-1].links.get("next", {"url": ""})["url"]
    assert seen == list(range(124, 99, -1))
    assert rows_of(world.get(answers[-1].links["prev"]["url"]).json()) == rows_of(answers[-2].json())
    assert rows_of(world.get(answers[-1].links["first"]["url"]).json()) == rows_of(answers[0].json())
    if paging != "cursor":
        assert rows_of(world.get(answers[0].links["last"]["url"]).json()) == rows_of(answers[-1].json())


@pytest.mark.parametrize("envelope", ["none", "class", "generic", "function"])
def test_an_envelope_sends_no_other_statements(world: World, envelope: str) -> None:
    sent = []
    for each in ("none", envelope):
        number = CELLS.index(("offset", each, "exact", "own"))
        with counted(world.plugin.database.async_engine.sync_engine) as statements:
            assert len(rows_of(world.get(f"/{number}?limit=30").json())) == 25
        sent.append([each for each in statements if "FROM" in each])
    assert sent[0] == sent[1]
    assert len(sent[0]) == 2  # the people, and their teams


def test_a_tenant_without_rows(world: World) -> None:
    for number, (paging, *_) in enumerate(CELLS):
        if paging == "offset":
            answer = world.get(f"/{number}", tenant="c")
            assert rows_of(answer.json()) == []
            assert list(world.schema(f"/{number}").iter_errors(answer.json())) == []


def test_the_json_without_an_envelope_is_that_of_the_result(world: World) -> None:
    number = CELLS.index(("offset", "none", "exact", "own"))
    assert world.get(f"/{number}?skip=24&limit=10").json() == {
        "items": [{"id": 124, "name": "person 24", "team": {"name": "team a"}}],
        "total": 25,
        "skip": 24,
        "limit": 10,
        "has_next": False,
        "has_prev": True,
    }


def test_the_components_have_readable_names(world: World) -> None:
    names = {}
    for paging in PAGES:
        for schema in ("derived", "own"):
            number = CELLS.index((paging, "none", "exact", schema))
            response = world.document["paths"][f"/{number}"]["get"]["responses"]["200"]
            names[paging, schema] = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert names[None, "derived"].endswith("PersonPage__1")  # "page" has the same name, and other fields
    assert names["offset", "derived"] == "PersonOffsetPage"
    assert names["offset", "own"] == "PersonPublicOffsetPage"
    assert names["cursor", "derived"] == "PersonCursorPage"
    schemas = world.document["components"]["schemas"]
    both = schemas[names[None, "derived"]]
    assert both["required"] == ["items", "has_next", "has_prev"]
    assert {"total", "page", "per_page", "pages", "next_cursor", "prev_cursor"} < both["properties"].keys()
    assert "Only of a numbered page" in both["properties"]["total"]["description"]
    assert schemas["PersonCursorPage"]["properties"].keys() == {
        "items",
        "next_cursor",
        "prev_cursor",
        "has_next",
        "has_prev",
    }


def test_alone_each_page_has_a_short_name() -> None:
    for paging in (None, "page"):
        app = FastAPI()
        app.include_router(list_router(Person, "/people", paging=paging, totals={"exact"}))  # type: ignore[arg-type]
        schemas = app.openapi()["components"]["schemas"]
        assert {"PersonPage", "PersonRead"} <= schemas.keys()
        assert schemas["PersonPage"]["properties"]["total"]["type"] == "integer"
        assert "total_is_exact" not in schemas["PersonPage"]["properties"]


class Strict(BaseModel):
    """An envelope that needs what only a numbered page has."""

    rows: list[PersonPublic] = Field(validation_alias="items")
    pages: int


def needs_total(page: Any) -> dict[str, object]:
    return {"rest": page.total - len(page.items)}


def unknown_type(page: Any) -> Missing:  # type: ignore[name-defined]  # noqa: F821 - that is the test
    return page


async def later(page: Any) -> object:
    return page


class Two(BaseModel, Generic[T]):
    """A generic class, whose subclass has two type variables."""

    items: list[T]


U = TypeVar("U")


class Pair(Two[T], Generic[T, U]):
    other: U


class Dicts(BaseModel):
    data: list[dict[str, Any]] = Field(validation_alias="items")


class Opaque:
    """A class that Pydantic does not know."""

    def __init__(self, page: Any) -> None:
        self.page = page


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"envelope": People, "paging": "page", "total": "none"},
        r"People can't be made of a page with total='none': total",
    ),
    (
        {"envelope": People, "paging": "offset", "total": "none"},
        r"total='none': total: Input should be a valid integer",
    ),
    ({"envelope": People, "paging": "cursor"}, r"People can't be made of a cursor page: total: Field required\."),
    ({"envelope": People}, r"cursor page: total: Field required\. Without paging= a list has cursor pages too"),
    ({"envelope": Strict, "paging": "offset"}, r"Strict can't be made of a page with total='exact': pages: Field req"),
    ({"envelope": needs_total, "paging": "cursor"}, r"needs_total can't be made of a cursor page: AttributeError"),
    ({"envelope": needs_total, "paging": "page", "total": "none"}, r"total='none': TypeError"),
    ({"envelope": unknown_type, "paging": "page"}, r"annotations of unknown_type name 'Missing'"),
    ({"envelope": later, "paging": "page"}, r"later is a coroutine function"),
    ({"envelope": Pair, "paging": "page"}, r"Pair has 2 type variables"),
    ({"envelope": Dicts, "paging": "page"}, r"the rows of Dicts are dict\[str, typing\.Any\]; name their schema"),
    ({"envelope": Opaque, "paging": "page"}, r"Pydantic can't serialize what Opaque gives"),
    ({"envelope": PersonPublic, "paging": "page"}, r"PersonPublic can't be made of a page with total='exact': id"),
    ({"paging": "number"}, r"There is no paging 'number'; choose page, offset, cursor, range\."),
    ({"paging": "range", "envelope": Uncounted}, r"no envelope"),
    ({"paging": "range", "total": "none"}, r"total can't be 'none'"),
    ({"paging": "cursor", "default_sort": "salary", "read_schema": PersonPublic}, r"default_sort.*salary"),
]


@pytest.mark.parametrize("make", [list_router, crud_router])
@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_can_not_be_is_refused_when_the_router_is_made(
    make: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make(Person, "/people", **options)


@pytest.fixture
def people(world: World) -> Callable[..., Any]:
    """A function that serves one more list, and gets from it."""

    def serve(query: str = "", tenant: str = "a", *, make: Any = list_router, **options: Any) -> Any:
        app = FastAPI(lifespan=world.plugin.lifespan)
        register_exception_handlers(app)
        app.include_router(make(Person, "/people", **options))
        answer = Api(app, world.runner).get(f"/people{query}", tenant=tenant)
        answer.extensions["document"] = app.openapi()
        return answer

    return serve


def test_an_envelope_that_needs_a_total_lets_no_client_leave_it_out(people: Callable[..., Any]) -> None:
    for paging in ("page", "offset"):
        assert people("?total=bounded", paging=paging, envelope=People).json()["count"] == 25
        refused = people("?total=none", paging=paging, envelope=People)
        assert refused.status_code == 422
        parameters = refused.extensions["document"]["paths"]["/people"]["get"]["parameters"]
        assert next(each for each in parameters if each["name"] == "total")["schema"]["enum"] == ["exact", "bounded"]


def test_clients_filter_by_the_rows_of_the_envelope(people: Callable[..., Any]) -> None:
    assert people("?name=person%2001", paging="page", envelope=People).json()["count"] == 1
    assert people("?salary=1", paging="page", envelope=People).status_code == 422
    assert people("?salary=1", paging="page", envelope=People, filters=("salary",)).json()["count"] == 25


def test_the_rows_of_an_envelope_may_differ_from_the_read_schema(people: Callable[..., Any]) -> None:
    class Row(BaseModel):
        id: int

    answer = people("?limit=1", make=crud_router, paging="offset", envelope=People, read_schema=Row)
    assert answer.json()["data"] == [{"id": 100, "name": "person 00", "team": {"name": "team a"}}]
    item = answer.extensions["document"]["paths"]["/people/{id}"]["get"]["responses"]["200"]
    assert item["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Row"}


def test_rows_are_validated_once(people: Callable[..., Any]) -> None:
    validated: list[int] = []

    class Row(BaseModel):
        id: int

        def model_post_init(self, _context: Any) -> None:
            validated.append(self.id)

    class Rows(BaseModel):
        data: list[Row] = Field(validation_alias="items")

    def function(page: Any) -> Rows:
        return Rows(items=page.items)

    function.__annotations__["return"] = Rows
    for envelope in (Rows, Enveloped, function, Loose, plain):
        validated.clear()
        answer = people("?limit=30", paging="offset", envelope=envelope, read_schema=Row)
        assert len(answer.json()["data"]) == 25
        assert sorted(validated) == list(range(100, 125))


def test_a_row_that_violates_the_schema_is_no_success(people: Callable[..., Any]) -> None:
    class Row(BaseModel):
        score: str

    class Rows(BaseModel):
        data: list[Row] = Field(validation_alias="items")

    with pytest.raises(ValueError, match=r"items\.0\.score"):
        people(paging="page", envelope=Rows)


def test_an_aliased_field_is_written_by_its_alias(people: Callable[..., Any]) -> None:
    body = people("?limit=1&sort=name", paging="cursor", envelope=Uncounted).json()
    assert body.keys() == {"data", "count", "nextCursor"}
    following = people(f"?limit=1&sort=name&cursor={body['nextCursor']}", paging="cursor", envelope=Uncounted)
    assert following.json()["data"][0]["name"] == "person 01"


def test_a_repository_of_the_users_is_used(people: Callable[..., Any]) -> None:
    class Few(AsyncTenantRepository[Person]):
        def conditions(self) -> list[Any]:
            return [*super().conditions(), Person.name < "person 03"]

    class Paged(AsyncTenantRepository[Person]):
        async def page(self, options: Any = None) -> Any:
            page = await super().page(options)
            return PaginationResult([each for each in page.items if type(each) is Person][:1], 7, 1, 20)

    for paging in ("page", "offset"):
        assert people(paging=paging, envelope=People, repository=Few).json()["count"] == 3
    own = people(paging="page", repository=Paged).json()
    assert (own["total"], len(own["items"])) == (7, 1)


def test_unknown_parameters_are_those_of_other_kinds(people: Callable[..., Any]) -> None:
    wrong = {
        "page": ("limit=2", "cursor=x", "skip=1"),
        "offset": ("page=1", "per_page=2", "cursor=x"),
        "cursor": ("page=1", "per_page=2", "skip=0", "total=none"),
    }
    for paging, queries in wrong.items():
        for query in queries:
            answer = people(f"?{query}", paging=paging)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["loc"] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("skip=-1", "skip"),
        ("skip=x", "skip"),
        ("skip=10001", "skip"),
        ("skip=1&skip=2", "skip"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("total=estimate", "total"),
    ],
)
def test_a_bad_offset_is_named(people: Callable[..., Any], query: str, named: str) -> None:
    answer = people(f"?{query}", paging="offset")
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["errors"]] == [["query", named]]


def test_the_bounds_of_an_offset(people: Callable[..., Any]) -> None:
    for options, query, limit in (
        ({}, "", 100),
        ({"page_size": 7}, "", 7),
        ({"max_page_size": 30}, "", 30),
        ({"max_page_size": 500}, "?limit=500", 500),
        ({"max_offset": None}, "?skip=10001", 100),
    ):
        answer = people(query, paging="offset", **options)
        assert (answer.status_code, answer.json()["limit"]) == (200, limit)
        declared = inlined(answer.extensions["document"])["paths"]["/people"]["get"]["parameters"]
        description = next(each["description"] for each in declared if each["name"] == "limit")
        assert f"default: {min(limit, 100)}" in description.lower()
    assert people("?skip=24&limit=3", paging="offset", max_offset=20).status_code == 422
    near = people("?skip=18&limit=3", paging="offset", max_offset=20)
    assert set(near.links) == {"first", "prev"}  # further pages can't be read


@pytest.mark.parametrize(
    ("query", "links"),
    [
        ("skip=0&limit=10", {"first": 0, "next": 10, "last": 20}),
        ("skip=13&limit=10", {"first": 0, "prev": 3, "next": 23, "last": 20}),
        ("skip=5&limit=10", {"first": 0, "prev": 0, "next": 15, "last": 20}),
        ("skip=20&limit=10", {"first": 0, "prev": 10, "last": 20}),
        ("skip=900&limit=10", {"first": 0, "prev": 20, "last": 20}),
        ("skip=20&limit=10&total=none", {"first": 0, "prev": 10}),
        ("skip=900&limit=10&total=none", {"first": 0, "prev": 890}),
        ("skip=0&limit=10&name=x", {}),
    ],
)
def test_the_links_of_an_offset(people: Callable[..., Any], query: str, links: dict[str, int]) -> None:
    answer = people(f"?{query}", paging="offset")
    assert {
        rel: int(link["url"].partition("skip=")[2].partition("&")[0]) for rel, link in answer.links.items()
    } == links


def test_a_field_with_the_name_of_another_kinds_parameter_needs_no_operator() -> None:
    class Book(Base):
        __tablename__ = "fitted_books"

        id: Mapped[int] = mapped_column(primary_key=True)
        page: Mapped[int]
        skip: Mapped[int]

    app = FastAPI()
    app.include_router(list_router(Book, "/books", paging="offset"))
    names = {each["name"] for each in inlined(app.openapi())["paths"]["/books"]["get"]["parameters"]}
    assert {"page", "skip__eq"} <= names
    assert json.dumps(app.openapi())


def test_results_are_what_a_function_gets(people: Callable[..., Any]) -> None:
    pages = []

    def function(page: Any) -> Any:
        pages.append(page)
        return []

    people("?limit=2", envelope=function)
    people("?per_page=2", envelope=function, read_schema=PersonPublic)
    cursor, numbered = pages[-5], pages[-1]
    assert type(numbered) is PaginationResult
    assert [type(row) for row in numbered.items] == [PersonPublic] * 2
    assert any(type(page) is CursorPaginationResult and len(page.items) == 2 for page in pages), cursor
