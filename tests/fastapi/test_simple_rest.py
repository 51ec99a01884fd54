"""Lists in the convention of ``ra-data-simple-rest``: ``range``, ``sort`` and ``filter`` are JSON.

`test_react_admin.py` runs the package itself; here each filter is compared with that of an ordinary list.
"""

from __future__ import annotations

import asyncio
import enum
import json
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import jsonschema_rs
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import Database, SoftDeleteMixin, TenantMixin
from dotmac_database_fastapi import DatabasePlugin, register_exception_handlers
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.shared_routers import list_router

pytestmark = pytest.mark.shared_plugin


class Base(DeclarativeBase):
    """The tables of this module."""


class Status(enum.Enum):
    NEW = "new"
    ACTIVE = "active"


class Author(TenantMixin, Base):
    __tablename__ = "rest_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Story(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "rest_stories"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    words: Mapped[int | None]
    status: Mapped[Status]
    draft: Mapped[bool]
    token: Mapped[UUID | None]
    settings: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey(Author.id))
    author: Mapped[Author] = relationship()


FIELDS = ("id", "title", "words", "status", "draft", "token", "author_id", "author.name", "settings.theme")
TOKEN = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def stories(database: Database) -> None:
    """30 stories of tenant a and the same of b; the last five of each are deleted."""
    with database.engine.begin() as connection:
        for tenant, first in (("a", 100), ("b", 200)):
            for number, name in enumerate(("Ann", "Ben, jr")):
                author = {"id": first + number, "tenant_id": tenant, "name": name}
                connection.execute(sa.insert(Author.__table__).values(**author))  # type: ignore[arg-type]
            rows = [
                {
                    "id": first + number,
                    "tenant_id": tenant,
                    "title": "a,b" if number == 3 else f"story {number:02}",
                    "words": number % 7 or None,
                    "status": list(Status)[number % 2],
                    "draft": number % 3 == 0,
                    "token": UUID(TOKEN) if number == 1 else None,
                    "settings": {"theme": "dark" if number % 2 else "light"},
                    "author_id": first + number % 2,
                    "is_deleted": number >= 25,
                }
                for number in range(30)
            ]
            connection.execute(sa.insert(Story.__table__), rows)  # type: ignore[arg-type]


@pytest.fixture
def api(app: FastAPI, api: Api) -> Api:
    app.include_router(list_router(Story, "/stories", paging="range", filters=FIELDS, search=("title",)))
    app.include_router(list_router(Story, "/plain", filters=FIELDS, search=("title",)))
    return api


def asked(**parameters: Any) -> str:
    """A path with parameters that are JSON, unless they are a text."""
    return "/stories?" + urlencode(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    )


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"status": "active"}, "status=active"),
    ({"status": ["active"]}, "status__in=active"),
    ({"status": ["active", "new"]}, "status__in=active,new"),
    ({"id": [101, 103, 203]}, "id__in=101,103,203"),
    ({"id": 101}, "id=101"),
    ({"id": []}, "id__in="),
    ({"id__in": [101, 102]}, "id__in=101,102"),
    ({"id__not_in": [101]}, "id__not_in=101"),
    ({"words": None}, "words__is_null=true"),
    ({"words__is_null": False}, "words__is_null=false"),
    ({"words__gte": 5}, "words__gte=5"),
    ({"words__between": [2, 3]}, "words__between=2,3"),
    ({"words": 3, "draft": True}, "words=3&draft=true"),
    ({"draft": False}, "draft=false"),
    ({"title": "a,b"}, "title=a,b"),
    ({"title": ["a,b"]}, "title=a,b"),
    ({"title": ["a,b", "story 04"]}, "title__in=a,b&title__in=story 04"),
    ({"title__not_in": ["a,b"]}, "title__ne=a,b"),
    ({"title__ilike": "STORY 0"}, "title__ilike=STORY 0"),
    ({"token": TOKEN}, f"token={TOKEN}"),
    ({"author": {"name": "Ann"}}, "author.name=Ann"),
    ({"author.name": ["Ben, jr"]}, "author.name=Ben, jr"),
    ({"settings": {"theme": "dark"}}, "settings.theme=dark"),
    ({"author_id": 101, "words__lt": 3}, "author_id=101&words__lt=3"),
    ({"q": "story 11"}, "q=story 11"),
]


@pytest.mark.usefixtures("stories")
def test_a_filter_is_that_of_an_ordinary_list(api: Api) -> None:
    wrong = []
    for filters, query in FILTERS:
        for tenant in "abc":
            answer = api.get(asked(filter=filters, sort=["id", "ASC"]), tenant=tenant)
            expected = api.get(f"/plain?per_page=100&sort=id&{query}", tenant=tenant).json()
            total = answer.headers.get("content-range", "").rpartition("/")[2]
            if (answer.status_code, answer.json(), total) != (200, expected["items"], str(expected["total"])):
                wrong.append((filters, tenant, answer.text))
    assert not wrong


RANGES: list[tuple[Any, list[int], str]] = [
    ([0, 9], list(range(124, 114, -1)), "0-9/25"),
    ([20, 29], list(range(104, 99, -1)), "20-24/25"),
    ([25, 34], [], "*/25"),
    ([7, 7], [117], "7-7/25"),
    (None, list(range(124, 99, -1)), "0-24/25"),
]


@pytest.mark.usefixtures("stories")
@pytest.mark.parametrize(("range_", "ids", "expected"), RANGES)
def test_a_range(app: FastAPI, api: Api, range_: Any, ids: list[int], expected: str) -> None:
    given = {} if range_ is None else {"range": range_}
    answer = api.get(asked(sort=["id", "DESC"], **given), tenant="a")
    assert [row["id"] for row in answer.json()] == ids
    assert answer.headers["content-range"] == f"stories {expected}"
    head = api.request("HEAD", asked(sort=["id", "DESC"], **given), tenant="a")
    assert (head.headers["content-range"], head.content) == (f"stories {expected}", b"")
    response = app.openapi()["paths"]["/stories"]["get"]["responses"]["200"]
    assert set(response["headers"]) == {"Content-Range"}
    schema = {**response["content"]["application/json"]["schema"], "components": app.openapi()["components"]}
    assert jsonschema_rs.validator_for(schema).is_valid(answer.json())


def test_no_rows_at_all(api: Api) -> None:
    answer = api.get("/stories", tenant="a")
    assert (answer.json(), answer.headers["content-range"]) == ([], "stories */0")


MANY = list(range(101))
REFUSED: list[tuple[dict[str, Any], list[str], str]] = [
    ({"filter": {"staus": "new"}}, ["filter", "staus"], "did you mean 'status'"),
    ({"filter": {"tenant_id": "b"}}, ["filter", "tenant_id"], "There is no filter"),
    ({"filter": {"is_deleted": True}}, ["filter", "is_deleted"], "There is no filter"),
    ({"filter": {"limit": 100_000}}, ["filter", "limit"], "There is no filter"),
    ({"filter": {"skip": 1}}, ["filter", "skip"], "There is no filter"),
    ({"filter": {"sort": "title"}}, ["filter", "sort"], "There is no filter"),
    ({"filter": {"mine": 1}}, ["filter", "mine"], "There is no filter"),
    ({"filter": {"author": {"tenant_id": "b"}}}, ["filter", "author.tenant_id"], "There is no filter"),
    ({"filter": {"status": "old"}}, ["filter", "status"], ""),
    ({"filter": {"status": ["new", "old"]}}, ["filter", "status__in"], ""),
    ({"filter": {"words__gte": "many"}}, ["filter", "words__gte"], "integer"),
    ({"filter": {"words__gte": [1, 2]}}, ["filter", "words__gte"], "more than once"),
    ({"filter": {"words__gte": None}}, ["filter", "words__gte"], "integer"),
    ({"filter": {"words__between": [1]}}, ["filter", "words__between"], "Two values"),
    ({"filter": {"title": None}}, ["filter", "title__is_null"], "There is no filter"),
    ({"filter": {"words": 1.5}}, ["filter", "words"], "integer"),
    ({"filter": {"words": True}}, ["filter", "words"], "integer"),
    ({"filter": {"title": "a\u0000b"}}, ["filter", "title"], "NUL"),
    ({"filter": {"id": MANY}}, ["filter"], "at most 100 values"),
    ({"filter": {f"x{n}": 1 for n in range(101)}}, ["filter"], "101 filters"),
    ({"filter": []}, ["filter"], "an object"),
    ({"filter": "{"}, ["filter"], "Input should be JSON"),
    ({"filter": '{"words": NaN}'}, ["filter"], "no NaN"),
    ({"filter": '{"words": 1, "words": 2}'}, ["filter"], "more than once"),
    ({"filter": '{"a":' * 1200 + "1" + "}" * 1200}, ["filter"], ""),
    ({"sort": ["nmae", "ASC"]}, ["sort"], "can't be sorted by 'nmae'"),
    ({"sort": ["title", "UP"]}, ["sort"], "a field and a direction"),
    ({"sort": ["-title", "ASC"]}, ["sort"], "a field and a direction"),
    ({"sort": ["title,words", "ASC"]}, ["sort"], "a field and a direction"),
    ({"sort": "title"}, ["sort"], "Input should be JSON"),
    ({"range": [0, 100]}, ["range", "limit"], "between 1 and 100"),
    ({"range": [5, 4]}, ["range", "limit"], ""),
    ({"range": [10_001, 10_002]}, ["range", "skip"], "At most 10000 rows"),
    ({"range": [-1, 4]}, ["range"], "first and the last row"),
    ({"range": [0.5, 4]}, ["range"], "first and the last row"),
    ({"range": [0]}, ["range"], "first and the last row"),
    ({"range": "0-9"}, ["range"], "Input should be JSON"),
    ({"page": 1}, ["page"], "There is no query parameter"),
    ({"limit": 1}, ["limit"], "There is no query parameter"),
    ({"status": "new"}, ["status"], "There is no query parameter"),
    ({"embed": ["author"]}, ["embed"], "There is no query parameter"),
]


def test_what_is_refused_is_named(api: Api) -> None:
    wrong = []
    for parameters, place, words in REFUSED:
        answer = api.get(asked(**parameters), tenant="a")
        assert answer.status_code == 422, parameters
        assert answer.headers["content-type"] == "application/problem+json"
        messages = [fault["msg"] for fault in answer.json()["errors"] if fault["loc"] == ["query", *place]]
        if not messages or words not in messages[0]:
            wrong.append((parameters, answer.json()))
    assert not wrong


def test_a_parameter_that_is_repeated(api: Api) -> None:
    answer = api.get('/stories?range=[0,1]&range=[0,2]&filter={"id":1}&filter={"id":2}', tenant="a")
    assert [fault["loc"] for fault in answer.json()["errors"]] == [["query", "range"], ["query", "filter"]]


@pytest.mark.usefixtures("stories")
def test_parameters_of_the_app_are_no_filters(app: FastAPI, api: Api) -> None:
    def mine(mine: int = 0) -> int:
        return mine

    app.include_router(list_router(Story, "/mine", paging="range"), dependencies=[Depends(mine)])
    assert len(api.get("/mine?mine=1", tenant="a").json()) == 25
    assert api.get('/mine?mine=1&filter={"mine":1}', tenant="a").status_code == 422


def test_a_parameter_of_one_app_is_unknown_in_another(
    plugin: DatabasePlugin, runner: asyncio.Runner, database: Database
) -> None:
    def mine(mine: int = 0) -> int:
        return mine

    router = list_router(Story, "/stories", paging="range")
    statuses = []
    for dependencies in ([Depends(mine)], []):
        app = FastAPI(lifespan=plugin.lifespan)
        register_exception_handlers(app)
        app.include_router(router, dependencies=dependencies)
        statuses.append(Api(app, runner).get('/stories?sort=["id","ASC"]&mine=1', tenant="a").status_code)
    assert statuses == [200, 422]


@pytest.mark.usefixtures("stories")
def test_the_bounds_are_the_routers(app: FastAPI, api: Api) -> None:
    app.include_router(
        list_router(Story, "/few", paging="range", max_page_size=3, max_offset=6, filters=("id",), sorts=("title",))
    )
    assert [row["id"] for row in api.get("/few", tenant="a").json()] == [100, 101, 102]
    for query, status in (
        ("range=[0,2]", 200),
        ("range=[0,3]", 422),
        ("range=[6,6]", 200),
        ("range=[7,7]", 422),
        ('filter={"title":"x"}', 422),
        ('sort=["id","ASC"]', 422),
        ('sort=["title","asc"]', 200),
    ):
        assert api.get(f"/few?{query}", tenant="a").status_code == status, query


def test_the_document_describes_the_json(app: FastAPI, api: Api) -> None:
    operation = inlined(app.openapi())["paths"]["/stories"]["get"]
    parameters = {each["name"]: each["schema"] for each in operation["parameters"]}
    assert {"range", "sort", "filter"} <= parameters.keys()
    assert not {"limit", "skip", "total", "status"} & parameters.keys()
    assert parameters["filter"]["contentMediaType"] == "application/json"
    assert {"status", "author.name", "q"} <= parameters["filter"]["contentSchema"]["properties"].keys()
    assert "title" in parameters["sort"]["contentSchema"]["prefixItems"][0]["enum"]
