"""The document of a list stays readable, however many columns and operators it has; nothing less is accepted."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase

from dotmac_database import Database, ValidationError
from dotmac_database_fastapi import DatabasePlugin, crud_router, filter_query, list_router, options_query, sort_query
from tests.fastapi.conftest import Api, MakePlugin, inlined
from tests.models import Post, Tag, User

KINDS: dict[str, Any] = {
    "text": sa.String(50),
    "number": sa.Integer,
    "exact": sa.Numeric(10, 2),
    "moment": sa.DateTime(timezone=True),
    "enum": sa.Enum("on", "off", name="switch"),
    "country": sa.Enum(*(f"country {number:03}" for number in range(250)), name="country"),
    "flag": sa.Boolean,
    "uuid": sa.Uuid,
    "array": sa.ARRAY(sa.String),
    "address": pg.INET,
    "mixed": None,
}
MOST_PARAMETERS, MOST_OCTETS, COLUMNS = 60, 60_000, 12


def mapped(kind: str, nullable: bool, columns: int = COLUMNS) -> type[Any]:
    base = type("Base", (DeclarativeBase,), {})
    given = [type_ for type_ in KINDS.values() if type_ is not None] if kind == "mixed" else [KINDS[kind]]
    made = {f"column_{n}": sa.Column(given[n % len(given)], nullable=nullable) for n in range(columns - 1)}
    key = sa.Column(sa.Integer, primary_key=True)
    return type("Wide", (base,), {"__tablename__": "wide", "id": key, **made})


def documented(app: FastAPI, path: str) -> list[str]:
    return [each["name"] for each in inlined(app.openapi())["paths"][path]["get"]["parameters"]]


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_twelve_columns(make_plugin: MakePlugin, kind: str, nullable: bool) -> None:
    plugin = make_plugin()
    model = mapped(kind, nullable)
    search = {"search": ("column_0",)} if kind == "text" else {}
    for router in (list_router(model, prefix="/wide", **search), crud_router(model, prefix="/wide")):
        app = FastAPI(lifespan=plugin.lifespan)
        plugin.install(app)
        app.include_router(router)
        assert len(documented(app, "/wide")) <= MOST_PARAMETERS
        assert len(json.dumps(app.openapi(), separators=(",", ":"))) <= MOST_OCTETS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", [options_query, filter_query])
def test_a_dependency_of_twelve_columns(make_plugin: MakePlugin, kind: str, query: Any) -> None:
    app = FastAPI()
    make_plugin().install(app)

    @app.get("/wide")
    def endpoint(asked: Any = Depends(query(mapped(kind, True)))) -> None: ...

    assert len(documented(app, "/wide")) <= MOST_PARAMETERS
    assert len(json.dumps(app.openapi(), separators=(",", ":"))) <= MOST_OCTETS


def test_each_column_more_is_four_parameters_more() -> None:
    def count(columns: int) -> int:
        app = FastAPI()
        app.include_router(list_router(mapped("mixed", True, columns), prefix="/wide"))
        return len(documented(app, "/wide"))

    assert count(40) - count(20) <= 4 * 20


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name", {"name", "name__ilike", "name__in"}),
        ("email", {"email", "email__ilike", "email__in", "email__is_null"}),
        ("score", {"score", "score__gte", "score__lt", "score__is_null"}),
        ("balance", {"balance", "balance__gte", "balance__lt", "balance__in"}),
        ("seen_at", {"seen_at", "seen_at__gte", "seen_at__lt", "seen_at__is_null"}),
        ("status", {"status", "status__in", "status__ne"}),
    ],
)
def test_the_most_used_operators_are_documented_and_the_others_named(
    app: FastAPI, name: str, expected: set[str]
) -> None:
    app.include_router(list_router(User, prefix="/users"))
    parameters = inlined(app.openapi())["paths"]["/users"]["get"]["parameters"]
    own = {each["name"]: each for each in parameters if each["name"].split("__")[0] == name}
    assert set(own) == expected
    assert "__not_in" in own[name]["description"]


def test_what_is_not_documented_is_accepted(app: FastAPI, api: Api, database: Database) -> None:
    app.include_router(list_router(User, prefix="/users"))
    accepted = "name__not_like=x&name__search=y&score__between=1,2&score__gt=1&status__not_in=new&email__ends_with=z"
    assert api.get(f"/users?{accepted}", tenant="a").status_code == 200
    refused = api.get("/users?score__gtt=1", tenant="a")
    assert refused.status_code == 422
    assert "score__gt" in refused.json()["errors"][0]["msg"]


def test_two_dependencies_accept_each_others_parameters(app: FastAPI, api: Api) -> None:
    async def nested(tags: Any = Depends(filter_query(Tag, "id"))) -> Any:
        return tags

    @app.get("/")
    async def endpoint(
        posts: Any = Depends(filter_query(Post, "title", "words")),
        sorts: Any = Depends(sort_query(Post, "title")),
        tags: Any = Depends(nested),
    ) -> list[int]:
        return [len(posts), len(sorts), len(tags)]

    asked = "title__not_like=x&words__between=1,2&sort=-title&id__not_in=1,2&id__gt=3"
    assert api.get(f"/?{asked}").json() == [2, 1, 2]
    assert api.get("/?words__beetween=1,2").status_code == 422


def test_a_dependency_in_anothers_stead_is_accepted_by_all(app: FastAPI, api: Api) -> None:
    original = filter_query(Post, "title")

    @app.get("/")
    async def endpoint(posts: Any = Depends(original), tags: Any = Depends(filter_query(Tag, "id"))) -> list[str]:
        return [each.field for each in (*posts, *tags)]

    app.dependency_overrides[original] = filter_query(Post, "words")
    assert api.get("/?words__between=1,2&id__not_in=3").json() == ["words", "id"]
    assert api.get("/?words__not=1").status_code == 422


def with_references(app: FastAPI) -> dict[str, Any]:
    """The app's document, all of whose references lead to something."""
    document: dict[str, Any] = app.openapi()
    for name in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    return document


def test_lists_of_values_of_one_name_are_components_each() -> None:
    towns = [f"town {number}" for number in range(40)]
    app = FastAPI()
    plugin = DatabasePlugin("sqlite+aiosqlite://", tenant=None)
    plugin.install(app)
    for number, values in enumerate((towns, towns[1:], towns[:10])):
        base = type("Base", (DeclarativeBase,), {})
        columns = {"id": sa.Column(sa.Integer, primary_key=True), "town": sa.Column(sa.Enum(*values, name="town"))}
        model = type(f"House{number}", (base,), {"__tablename__": "houses", **columns})
        app.include_router(list_router(model, prefix=f"/{number}", plugin=plugin))
    document = with_references(app)
    schemas = document["components"]["schemas"]
    names = "TownValue", "TownValue2", "TownValue3"
    assert [schemas[name]["enum"] for name in names] == [towns, towns[1:], towns[:10]]
    # A row repeats a few values, and refers to many.
    rows = [schemas[f"House{number}Read"]["properties"]["town"]["anyOf"][0] for number in range(3)]
    assert rows[:2] == [{"$ref": f"#/components/schemas/{name}"} for name in names[:2]]
    assert rows[2]["enum"] == towns[:10]


def test_a_router_with_a_long_list_of_values_serves_two_apps(make_plugin: MakePlugin) -> None:
    router = list_router(mapped("country", True), prefix="/wide")
    documents = []
    for _ in range(2):
        app = FastAPI()
        make_plugin().install(app)
        app.include_router(router)
        documents.append(with_references(app))
    assert documents[0] == documents[1]
    assert json.dumps(documents[0]).count('"country 249"') == 1


TAGGED = mapped("array", nullable=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sort_query(TAGGED, "id", "column_0"),
        lambda: options_query(TAGGED, sorts=("column_0",)),
        lambda: list_router(TAGGED, prefix="/x", sorts=("column_0",)),
        lambda: crud_router(TAGGED, prefix="/x", sorts=("column_0",)),
        lambda: list_router(TAGGED, prefix="/x", default_sort="-column_0"),
        lambda: crud_router(TAGGED, prefix="/x", default_sort="column_0"),
    ],
)
def test_an_array_can_not_be_named_to_sort_by(make: Any) -> None:
    with pytest.raises(ValidationError, match=r"sorted by Wide\.column_0"):
        make()


def test_an_unknown_field_is_no_default_sort() -> None:
    with pytest.raises(ValidationError, match="has no field 'column_99'"):
        list_router(TAGGED, prefix="/x", default_sort="-column_99")


@pytest.mark.parametrize(
    ("fields", "sorts"), [((), {"id", "-id"}), (("column_0", "id"), {"id", "-id"}), (("column_0",), set())]
)
def test_arrays_that_are_filtered_by_are_left_out_of_sorts(
    make_plugin: MakePlugin, fields: tuple[str, ...], sorts: set[str]
) -> None:
    plugin = make_plugin()
    app = FastAPI(lifespan=plugin.lifespan)
    plugin.install(app)

    @app.get("/wide")
    async def wide(options: Any = Depends(options_query(TAGGED, *fields))) -> None: ...

    parameters = {
        each["name"]: each["schema"] for each in inlined(app.openapi())["paths"]["/wide"]["get"]["parameters"]
    }
    assert {each for each in parameters if each.startswith("column_0")}
    assert set(parameters["sort"]["items"]["enum"] if sorts else parameters.get("sort", ())) == sorts
