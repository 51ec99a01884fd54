"""What a client may ask for: refused by name, in a short answer, before anything is done for it.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import JSON, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, synonym
from typing_extensions import TypedDict

from dotmac_database import (
    Database,
    QueryFilter,
    QueryOptions,
    SoftDeleteMixin,
    SortField,
    TenantMixin,
    ValidationError,
    create_repository,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    bounds,
    filter_query,
    get_repository,
    options_query,
    register_exception_handlers,
    sort_query,
    tenant_from_header,
)
from dotmac_database_fastapi.readable import shown_by, shows
from tests.conftest import counted
from tests.fastapi.conftest import Api, checked_out, inlined
from tests.fastapi.shared_routers import crud_router, list_router

pytestmark = pytest.mark.shared_plugin


class Base(DeclarativeBase):
    """The tables of these tests."""


class Team(TenantMixin, Base):
    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    budget: Mapped[int] = mapped_column(default=1, info={"private": True})
    _code: Mapped[str | None]


class Person(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    salary: Mapped[int | None]
    ratio: Mapped[float | None]
    password: Mapped[str] = mapped_column(default="hunter2", info={"private": True})
    _pin: Mapped[str | None]
    _nick: Mapped[str | None]
    settings: Mapped[Any] = mapped_column(JSON, nullable=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))

    nick = synonym("_nick")
    team: Mapped[Team | None] = relationship()
    _own: Mapped[Team | None] = relationship(viewonly=True)


class TeamRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str


class Short(BaseModel):
    """Shows neither the salary nor the key."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    settings: Any = None
    team: TeamRead | None = None


class Aliased(BaseModel):
    """Shows the name by another name, and reads the salary without showing it."""

    model_config = ConfigDict(from_attributes=True)

    label: str = Field(validation_alias="name")
    salary: int | None = Field(default=None, exclude=True)


class Plain(BaseModel):
    """Shows the name alone."""

    model_config = ConfigDict(from_attributes=True)

    name: str


@dataclass
class Record:
    """Shows the name alone."""

    name: str


class Typed(TypedDict):
    """Shows the name alone."""

    name: str


@pytest.fixture(scope="module")
def tables() -> Any:
    return Base.metadata


@pytest.fixture
def people(database: Database) -> None:
    with database.sessions() as session:
        create_repository(session, Team, "a").bulk_create([{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}])
        rows = [
            {"id": number, "name": f"n{number % 5}", "salary": 1000 + number, "team_id": 1 + number % 2}
            for number in range(30)
        ]
        create_repository(session, Person, "a").bulk_create(rows)


@pytest.fixture
def api(app: FastAPI, api: Api) -> Api:
    add_paths(app)
    return api


@pytest.fixture
def shared(_shared: Api, database: Database) -> Api:
    """As `api`, for all tests that add nothing to the app: to make an app takes longer than to call it."""
    return _shared


@pytest.fixture(scope="module")
def _shared(_database: Database) -> Iterator[Api]:
    plugin = DatabasePlugin(_database.url, tenant=tenant_from_header("X-Tenant-ID"))
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    add_paths(app)
    with asyncio.Runner() as runner:
        yield Api(app, runner)
        held = checked_out(plugin)
        runner.run(plugin.database.dispose_async())
    assert not held, "a connection was left checked out"


def add_paths(app: FastAPI) -> None:
    """Each thing that reads a query string, on a path of its own."""
    app.include_router(list_router(Person, prefix="/list", search=("name",)))
    app.include_router(crud_router(Person, prefix="/crud", search=("name",)))

    @app.get("/filters")
    async def filters(given: list[QueryFilter] = Depends(filter_query(Person))) -> int:
        return len(given)

    @app.get("/sorts")
    async def sorts(given: list[SortField] = Depends(sort_query(Person))) -> int:
        return len(given)

    @app.get("/options")
    async def options(given: QueryOptions = Depends(options_query(Person, search=("name",)))) -> int:
        return len(given.filters)


PATHS = ["/list", "/crud", "/filters", "/sorts", "/options"]
FILTERING = ["/list", "/crud", "/filters", "/options"]
SORTING = ["/list", "/crud", "/sorts", "/options"]
SEARCHING = ["/list", "/crud", "/options"]


def refused(answer: httpx.Response, named: str | None = None) -> list[Any]:
    """The faults of a 422, which is short and a problem."""
    assert answer.status_code == 422, answer.text[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 12_000
    faults: list[Any] = answer.json()["errors"]
    assert 1 <= len(faults) <= 10
    if named is not None:
        assert named in {fault["loc"][-1] for fault in faults}
    return faults


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that were compared with the known ones, which is what takes the time."""
    names: list[str] = []
    compare: Callable[..., Any] = bounds.get_close_matches

    def seen(name: str, *args: Any, **options: Any) -> Any:
        names.append(name)
        return compare(name, *args, **options)

    monkeypatch.setattr(bounds, "get_close_matches", seen)
    yield names
    assert len(names) <= 3
    assert all(len(name) <= 80 for name in names)


SPECIMENS: dict[str, tuple[list[str], str]] = {
    "unknown names": (PATHS, "&".join(f"salarie{number}=1" for number in range(3_500))),
    "names without values": (PATHS, "&".join(f"x{number}" for number in range(5_000))),
    "one name many times": (FILTERING, "&".join(["salary=1"] * 5_000)),
    "bad sorts": (SORTING, "sort=" + ",".join(f"nam{number}" for number in range(5_000))),
    "bad sorts, repeated": (SORTING, "&".join(f"sort=nam{number}" for number in range(5_000))),
    "a hundred unknown names": (PATHS, "&".join(f"salarie{number}=1" for number in range(100))),
    "twenty bad sorts": (SORTING, "sort=" + ",".join(f"nam{number}" for number in range(20))),
    "a long name": (PATHS, "salary" * 8_000 + "=1"),
    "a long sort": (SORTING, "sort=" + "salary" * 8_000),
    "a long value": (FILTERING, "salary=" + "x" * 49_000),
    "long values": (FILTERING, "&".join(["salary=" + "x" * 490] * 100)),
    "a long total": (SEARCHING, "total=" + "x" * 49_000),
    "a long page": (SEARCHING, "page=" + "1" * 49_000),
    "many values": (FILTERING, "salary__in=" + ",".join(["1"] * 1_001)),
    "many empty values": (FILTERING, "salary__in=" + "," * 49_000),
    "a long search": (SEARCHING, "q=" + "x" * 10_001),
    "no Unicode": (PATHS, "%ff%fe=%ed%a0%80"),
    "surrogates": (PATHS, "%ed%a0%80" * 1_000),
}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        pytest.param(path, query, id=f"{path[1:]}: {name}")
        for name, (paths, query) in SPECIMENS.items()
        for path in paths
    ],
)
def test_too_much_is_refused_in_a_few_words(shared: Api, compared: list[str], path: str, query: str) -> None:
    refused(shared.get(f"{path}?{query}", tenant="a"))


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_sent_for_what_is_refused(api: Api, plugin: Any, path: str) -> None:
    with counted(plugin.database.async_engine.sync_engine) as sent:
        refused(api.get(f"{path}?{'&'.join(['x=1'] * 101)}", tenant="a"))
    assert sent == []


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("path", FILTERING)
def test_as_much_as_may_be_is_taken(shared: Api, path: str) -> None:
    hundred = "&".join(["name__in=n1"] * 100)
    thousand = "name__in=" + ",".join(["n1"] * 999) + "&salary__gte=0"
    for query in (hundred, f"&&&{hundred}&&&", thousand):
        assert shared.get(f"{path}?{query}", tenant="a").status_code == 200
    for query, named in ((f"{hundred}&name__in=n1", "query"), (f"{thousand}&salary__lte=9", "name__in")):
        refused(shared.get(f"{path}?{query}", tenant="a"), named)


def test_an_answer_says_how_many_faults_it_leaves_out(api: Api) -> None:
    faults = refused(api.get("/list?" + "&".join(f"x{number:02}=1" for number in range(40)), tenant="a"))
    assert [fault["loc"][-1] for fault in faults] == [f"x{number:02}" for number in range(10)]
    assert "30" in faults[-1]["msg"]
    few = refused(api.get("/list?" + "&".join(f"x{number}=1" for number in range(10)), tenant="a"))
    assert "not shown" not in few[-1]["msg"]


def test_the_first_three_unknown_names_have_a_suggestion(api: Api, compared: list[str]) -> None:
    faults = refused(api.get("/list?salaryy=1&nmae=1&nme=1&idd=1", tenant="a"))
    assert ["did you mean" in fault["msg"] for fault in faults] == [True, True, True, False]


def test_a_body_with_many_faults_is_answered_in_a_few_words(api: Api) -> None:
    for body in (
        {f"key{number}": 1 for number in range(5_000)},
        {"name": "x", "k" * 50_000: 1},
        {"name": "x", "salary": "9" * 50_000},
        {"name": "x", "salary": [1] * 50_000},
    ):
        refused(api.post("/crud", tenant="a", json=body))


@pytest.mark.usefixtures("people")
def test_a_header_is_only_so_long(api: Api) -> None:
    answer = api.get("/list?per_page=1&name__ne=" + "x" * 49_000, tenant="a")
    assert (answer.status_code, answer.json()["total"], answer.links) == (200, 30, {})
    assert api.get("/list?per_page=1&name__ne=" + "x" * 500, tenant="a").links
    unusual = api.get("/list?per_page=1&name__ne=" + quote("é" * 1_500), tenant="a")
    assert sum(len(value) for value in unusual.headers.values()) < 10_000


# -- how far pages lead ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("make", [list_router, crud_router])
def test_only_so_many_rows_are_skipped(app: FastAPI, api: Api, make: Any) -> None:
    app.include_router(make(Person, prefix="/near", max_offset=10))
    app.include_router(make(Person, prefix="/far", max_offset=None))
    app.include_router(make(Person, prefix="/usual"))
    for query in ("page=2&per_page=10", "page=3&per_page=5", "page=1", "limit=20"):
        assert api.get(f"/near?{query}", tenant="a").status_code == 200
    for query in ("page=3&per_page=10", "page=4&per_page=5", "page=2", f"page={10**15}"):
        faults = refused(api.get(f"/near?{query}", tenant="a"), "page")
        assert "cursor" in faults[0]["msg"]
    assert api.get(f"/far?page={10**15}&per_page=1", tenant="a").json()["items"] == []
    assert api.get("/usual?page=101&per_page=100", tenant="a").status_code == 200
    for query in ("page=102&per_page=100", "page=10002&per_page=1", f"page={10**15}"):
        refused(api.get(f"/usual?{query}", tenant="a"), "page")


@pytest.mark.usefixtures("people")
def test_a_link_leads_nowhere_that_is_refused(app: FastAPI, api: Api) -> None:
    app.include_router(list_router(Person, prefix="/near", max_offset=10))
    first, last = (api.get(f"/near?page={page}&per_page=5", tenant="a") for page in (2, 3))
    assert set(first.links) == {"first", "prev", "next"}
    assert set(last.links) == {"first", "prev"}
    assert last.json()["has_next"] is True
    for answer in (first, last):
        for link in answer.links.values():
            assert api.get(link["url"], tenant="a").status_code == 200


def test_options_query_is_held_to_it_too(app: FastAPI, api: Api) -> None:
    @app.get("/near")
    async def near(given: QueryOptions = Depends(options_query(Person, max_offset=40, totals={"none"}))) -> Any:
        assert given.pagination is not None
        return given.pagination.total

    assert api.get("/near?page=3&total=none", tenant="a").json() == "none"
    refused(api.get("/near?page=4", tenant="a"), "page")
    refused(api.get("/near?total=bounded", tenant="a"), "total")
    refused(api.get("/options?total=estimate", tenant="a"), "total")
    refused(api.get(f"/options?page={10**15}", tenant="a"), "page")


# -- what is readable ------------------------------------------------------------------------------------------------

ALL = {"id", "name", "salary", "ratio", "team_id"}
SCHEMAS: list[tuple[Any, set[str]]] = [
    (None, ALL),
    (Short, {"name"}),
    (Aliased, {"name"}),
    (Plain, {"name"}),
]


def test_any_kind_of_schema_says_what_it_shows() -> None:
    assert set(shown_by(Typed)) == set(shown_by(Record)) == set(shown_by(Plain)) == {"name"}
    assert shown_by(int) == shown_by(list[int]) == shown_by(object()) == {}
    assert set(shown_by(Aliased)) == {"name", "label"}
    assert [shows(Short, path) for path in ("team", "team.name", "team.budget", "settings.a.b")] == [
        *(True, True, False, True)
    ]


@pytest.mark.parametrize(("schema", "shown"), SCHEMAS)
@pytest.mark.parametrize("make", [list_router, crud_router])
def test_what_is_not_shown_is_neither_filtered_nor_sorted_by(
    app: FastAPI, api: Api, people: None, make: Any, schema: Any, shown: set[str]
) -> None:
    app.include_router(make(Person, prefix="/some", read_schema=schema))
    values = {"name": "n1", "password": "hunter2", "tenant_id": "a", "is_deleted": "false"}
    for field in (*ALL, "password", "tenant_id", "is_deleted", "deleted_at", "settings"):
        for query in (f"{field}={values.get(field, '1')}", f"sort={field}", f"sort=-{field}"):
            answer = api.get(f"/some?{query}&per_page=1", tenant="a")
            assert answer.status_code == (200 if field in shown else 422), query
            assert "hunter2" not in answer.text
            if field not in shown:
                assert "'password'" not in answer.text.replace(f"'{field}'", "")
    described = json.dumps(inlined(app.openapi())["paths"]["/some"]["get"]["parameters"])
    assert ("salary" in described) is ("salary" in shown)
    assert "password" not in json.dumps(app.openapi())


@pytest.mark.usefixtures("people")
def test_the_programmer_may_name_what_is_not_shown(app: FastAPI, api: Api) -> None:
    named = {"filters": ("salary", "team.name", "tenant_id"), "sorts": ("salary", "team.name")}
    app.include_router(list_router(Person, prefix="/some", read_schema=Plain, **named))
    assert api.get("/some?salary__gte=1025&sort=-salary", tenant="a").json()["total"] == 5
    assert api.get("/some?team.name=red&sort=team.name", tenant="a").json()["total"] == 15

    @app.get("/named")
    async def filters(
        given: Any = Depends(filter_query(Person, "salary")), sorts: Any = Depends(sort_query(Person, "salary"))
    ) -> int:
        return len(given) + len(sorts)

    assert api.get("/named?salary=1&sort=salary", tenant="a").json() == 2


PRIVATE = ["password", "team.budget", "_pin", "team._code", "_own.name"]


@pytest.mark.parametrize("field", PRIVATE)
@pytest.mark.parametrize(
    "make",
    [
        lambda field: filter_query(Person, field),
        lambda field: filter_query(Person, "name", field),
        lambda field: sort_query(Person, field),
        lambda field: options_query(Person, field),
        lambda field: options_query(Person, sorts=(field,)),
        lambda field: options_query(Person, search=(field,)),
        lambda field: list_router(Person, prefix="/x", filters=(field,)),
        lambda field: list_router(Person, prefix="/x", sorts=(field,)),
        lambda field: list_router(Person, prefix="/x", search=(field,)),
        lambda field: list_router(Person, prefix="/x", default_sort=f"-{field}"),
        lambda field: crud_router(Person, prefix="/x", filters=(field,)),
        lambda field: crud_router(Person, prefix="/x", default_sort=field),
    ],
)
def test_a_private_column_can_not_be_named(make: Any, field: str) -> None:
    with pytest.raises(ValidationError, match="private"):
        make(field)


def test_an_unknown_name_is_told_no_private_one() -> None:
    for name in ("pasword", "team.budgt", "pin", "team.code", "own", "xyz"):
        with pytest.raises(ValidationError, match="has no field") as caught:
            filter_query(Person, name)
        for private in ("password", "budget", "_pin", "_code", "_own"):
            assert private not in str(caught.value)


def test_a_column_with_a_public_name_can_be_named() -> None:
    list_router(Person, prefix="/x", filters=("nick", "settings._theme"), sorts=("nick",))


# -- what a cursor carries -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("schema", "query", "named"),
    [
        (None, "limit=2", None),
        (None, "limit=2&sort=salary", None),
        (None, "limit=2&sort=-name,salary", None),
        (None, "limit=2&sort=settings.theme", None),
        (None, "limit=2&sort=team.name", "sort"),
        (None, "limit=2&sort=tenant_id", "sort"),
        (Short, "limit=2", None),
        (Short, "limit=2&sort=name", None),
        (Short, "limit=2&sort=name__folded", None),
        (Short, "limit=2&sort=settings.theme", None),
        (Short, "limit=2&sort=team.name", None),
        (Short, "limit=2&sort=id", None),
        (Short, "limit=2&sort=salary", "sort"),
        (Short, "cursor=x&sort=salary", "sort"),
        (Short, "limit=2&sort=name,salary", "sort"),
        (Short, "limit=2&sort=-salary", "sort"),
        (Aliased, "limit=2&sort=name", None),
        (Aliased, "limit=2&sort=salary", "sort"),
        (Plain, "limit=2&sort=team.name", "sort"),
        (Plain, "limit=2&sort=salary", "sort"),
    ],
)
def test_a_cursor_shows_nothing_that_the_list_does_not(
    app: FastAPI, api: Api, schema: Any, query: str, named: str | None
) -> None:
    fields = ("id", "name", "salary", "settings.theme", "team.name", "tenant_id")
    if schema is None and "tenant_id" in query:
        fields = fields[:-1]
    app.include_router(list_router(Person, prefix="/some", read_schema=schema, filters=fields, sorts=fields))
    answer = api.get(f"/some?{query}", tenant="a")
    if named is not None:
        refused(answer, named)
        return
    assert answer.status_code == 200, answer.text
    following = api.get(f"/some?{query}&cursor={answer.json()['next_cursor']}", tenant="a")
    assert len(following.json()["items"]) == 2
    assert api.get(f"/some?{query.replace('limit', 'per_page')}", tenant="a").status_code == 200


@pytest.mark.usefixtures("people")
def test_nor_in_the_order_that_is_the_routers_own(app: FastAPI, api: Api) -> None:
    app.include_router(list_router(Person, prefix="/some", read_schema=Short, default_sort="-salary"))
    assert api.get("/some?page=2", tenant="a").status_code == 200
    faults = refused(api.get("/some?limit=2", tenant="a"), "limit")
    assert "'salary'" in faults[0]["msg"]
    assert api.get("/some?limit=2&sort=name", tenant="a").status_code == 200


@pytest.mark.usefixtures("people")
def test_what_options_query_reads_can_be_said(app: FastAPI, api: Api) -> None:
    @app.get("/named")
    async def named(
        given: QueryOptions = Depends(options_query(Person, "name", "salary", read_schema=Short)),
        rows: Any = Depends(get_repository(Person)),
    ) -> Any:
        return (await rows.cursor_paginate(given)).next_cursor if given.cursor_pagination else None

    assert api.get("/named?limit=2&sort=name", tenant="a").json()
    assert api.get("/named?sort=salary", tenant="a").status_code == 200
    refused(api.get("/named?limit=2&sort=salary", tenant="a"), "sort")


# -- bodies ----------------------------------------------------------------------------------------------------------


def nested(levels: int, opening: str, closing: str) -> str:
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize("brackets", [('{"a":', "}"), ("[", "]")])
@pytest.mark.parametrize("levels", [65, 255, 900, 5_000, 100_000])
def test_a_body_nests_only_so_deep(shared: Api, brackets: tuple[str, str], levels: int) -> None:
    """The repository refuses what Python's parser has read, and names the field.

    The parser reads as many levels as there are frames left on the stack, of 1,000. So whether it reads 900 levels
    depends on the frames below the app, such as those of a middleware or of a tracer. Each way, the answer is a 422.
    """
    made = shared.post("/crud", tenant="a", json={"name": "x"}).json()["id"]
    value = nested(levels, *brackets)
    headers = {"content-type": "application/json"}
    for method, path in (("POST", "/crud"), ("PATCH", f"/crud/{made}")):
        for body in (f'{{"name":"y","settings":{value}}}', f'{{"name":{value}}}', value):
            answer = shared.request(method, path, tenant="a", content=body, headers=headers)
            assert answer.status_code == 422, answer.text[:300]
            assert answer.headers["content-type"] == "application/problem+json"
            if levels < 500 and "settings" in body:
                assert answer.json()["fields"] == ["settings"]
    assert [row["settings"] for row in shared.get("/crud", tenant="a").json()["items"]] == [None]


@pytest.mark.parametrize("brackets", [('{"a":', "}"), ("[", "]")])
def test_as_deep_as_may_be_is_stored_and_listed(api: Api, brackets: tuple[str, str]) -> None:
    value = nested(64, *brackets)
    headers = {"content-type": "application/json"}
    body = f'{{"name":"y","settings":{value}}}'
    assert api.post("/crud", tenant="a", content=body, headers=headers).status_code == 201
    (row,) = api.get("/crud", tenant="a").json()["items"]
    assert row["settings"] == json.loads(value)


@pytest.mark.parametrize(
    "value",
    [
        *("NaN", "Infinity", "-Infinity", "1e400", "[NaN]", '{"a": -Infinity}'),
        *(r'"a\u0000b"', r'"\ud800"', r'{"\udfff": 1}', r'{"a\u0000": 1}'),
    ],
)
@pytest.mark.parametrize("field", ["settings", "name", "salary", "ratio"])
def test_what_no_database_takes_is_refused(shared: Api, field: str, value: str) -> None:
    made = shared.post("/crud", tenant="a", json={"name": "x"}).json()["id"]
    headers = {"content-type": "application/json"}
    for method, path in (("POST", "/crud"), ("PATCH", f"/crud/{made}")):
        rest = "" if field == "name" else ', "name": "y"'
        answer = shared.request(method, path, tenant="a", content=f'{{"{field}": {value}{rest}}}', headers=headers)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        json.loads(answer.content, parse_constant=pytest.fail)
    assert shared.get("/crud", tenant="a").json()["total"] == 1


@pytest.mark.parametrize("key", [r"\ud800", r"a\u0000b", "x" * 10_000])
def test_a_key_that_is_no_text_is_refused(shared: Api, key: str) -> None:
    headers = {"content-type": "application/json"}
    refused(shared.post("/crud", tenant="a", content=f'{{"name": "x", "{key}": 1}}', headers=headers))


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    "words",
    [
        *("-" * 33 + "n1", "-" * 33, "- n1", '"n1', '"', "or", "n1 or", "(n1", "n1:*", "&|!<->", "\\", "'", "*"),
        *("n1 " * 2_000, "x" * 5_000, " or ".join(["n1"] * 1_000), "\u2013n1", "%", "_", "\U0001f600"),
    ],
)
@pytest.mark.parametrize("path", ["/list?q=", "/list?name__search="])
def test_nothing_that_is_typed_is_an_error(shared: Api, path: str, words: str) -> None:
    answer = shared.get(path + quote(words), tenant="a")
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] in (0, 6)
