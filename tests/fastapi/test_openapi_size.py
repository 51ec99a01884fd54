"""A list of twelve columns has at most 60 parameters and 60 KB in OpenAPI, and what is not a parameter is in words."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI
from fastapi.dependencies.utils import get_flat_params
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry, relationship

from dotmac_database_fastapi import (
    DatabasePlugin,
    crud_router,
    filter_query,
    get_repository,
    list_router,
    options_query,
    register_exception_handlers,
    sort_query,
    tenant_from_header,
)
from dotmac_database_fastapi.query_string import FilterParams
from tests.matrices import sampled
from tests.matrices.column_types import KINDS

MOST, MOST_BYTES = 60, 60_000
OF_THE_PAGE = frozenset({"page", "per_page", "total", "limit", "cursor", "sort", "q"})


class Color(enum.Enum):
    """A few values."""

    RED = "red"
    BLUE = "blue"


Country = enum.Enum("Country", {f"COUNTRY_{number}": f"country {number:03}" for number in range(250)})  # type: ignore[misc]
CITIES = tuple(f"city {number}" for number in range(40))


def model_of(types: dict[str, tuple[Any, bool]]) -> type:
    """A class with a column of each type, which may be null where the second says so, beside its key."""
    columns = [sa.Column(name, type_, nullable=nullable) for name, (type_, nullable) in types.items()]
    table = sa.Table("rows", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *columns)
    made = type("Row", (), {})
    registry().map_imperatively(made, table)
    return made


def twelve(make: Callable[[], Any], nullable: bool, name: str = "some_column") -> type:
    """A class of a key and eleven columns of one type."""
    return model_of({f"{name}_{number}": (make(), nullable) for number in range(11)})


def texts_of(model: Any) -> tuple[str, ...]:
    columns = sa.inspect(model).columns
    return tuple(key for key, column in columns.items() if isinstance(column.type, sa.Text))


def with_list(app: FastAPI, model: type, fields: tuple[str, ...]) -> None:
    app.include_router(list_router(model, prefix="/rows", search=texts_of(model), filters=fields))


def with_crud(app: FastAPI, model: type, fields: tuple[str, ...]) -> None:
    app.include_router(crud_router(model, prefix="/rows", search=texts_of(model), filters=fields))


def with_options(app: FastAPI, model: type, fields: tuple[str, ...]) -> None:
    @app.get("/rows")
    async def rows(
        options: Any = Depends(options_query(model, *fields, search=texts_of(model))),
        repository: Any = Depends(get_repository(model)),
    ) -> None: ...


def with_filters(app: FastAPI, model: type, fields: tuple[str, ...]) -> None:
    @app.get("/rows")
    async def rows(
        filters: Any = Depends(filter_query(model, *fields)),
        sorts: Any = Depends(sort_query(model)),
        repository: Any = Depends(get_repository(model)),
    ) -> None: ...


LISTS: dict[str, Callable[[FastAPI, type, tuple[str, ...]], None]] = {
    "list_router": with_list,
    "crud_router": with_crud,
    "options_query": with_options,
    "filter_query": with_filters,
}


def app_of(way: str, model: type, fields: tuple[str, ...] = ()) -> FastAPI:
    """An app that lists a class's rows in one of the four ways; nothing connects to its database."""
    app = FastAPI()
    DatabasePlugin("sqlite+aiosqlite://", tenant=tenant_from_header("X-Tenant-ID")).install(app)
    register_exception_handlers(app)
    LISTS[way](app, model, fields)
    return app


def parameters_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["paths"]["/rows"]["get"]["parameters"]
    return found


def size_of(document: dict[str, Any]) -> int:
    return len(json.dumps(document, separators=(",", ":")).encode())


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """All the objects of a document."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inside(each)


def check(way: str, model: type, fields: tuple[str, ...] = (), columns: int = 12) -> None:
    """The bounds of a list, and that its document names all that it accepts and nothing else."""
    document = app_of(way, model, fields).openapi()
    parameters = parameters_of(document)
    assert len(parameters) <= MOST - 4 * (12 - columns)
    assert size_of(document) <= MOST_BYTES * columns // 12
    others = frozenset({"sort"}) if way == "filter_query" else OF_THE_PAGE
    params = FilterParams(model, fields, reserved=others)
    query = [each for each in parameters if each["in"] == "query" and each["name"] not in others]
    documented = [each["name"] for each in query]
    assert all(sum(params.declared[name][0].name == field for name in documented) <= 4 for field in params.fields), (
        documented
    )
    in_words = [name for each in query for name in re.findall(r"\S+__[a-z_]+", each["description"])]
    assert sorted([*documented, *in_words]) == sorted(params.declared)


KINDS_OF_LISTS = [(way, nullable) for way in LISTS for nullable in (False, True)]

TYPES: dict[str, Callable[[], Any]] = {
    "text": sa.Text,
    "number": sa.BigInteger,
    "enum": lambda: sa.Enum(Color),
    "array": lambda: sa.ARRAY(sa.Integer),
}


@pytest.mark.parametrize(("way", "nullable"), KINDS_OF_LISTS)
@pytest.mark.parametrize("name", TYPES)
def test_twelve_columns_of_a_type(name: str, way: str, nullable: bool) -> None:
    check(way, twelve(TYPES[name], nullable))


@pytest.mark.parametrize(
    ("kind", "way", "nullable"), sampled([(kind, *each) for kind in KINDS for each in KINDS_OF_LISTS], 97), ids=str
)
def test_twelve_columns_of_every_type(kind: Any, way: str, nullable: bool) -> None:
    check(way, twelve(kind.type, nullable))


@pytest.mark.parametrize("way", LISTS)
def test_twelve_columns_of_many_types_with_long_names(way: str) -> None:
    makes = list(TYPES.values())
    name = "a_column_of_a_rather_long_name_that_postgresql_takes"
    check(way, model_of({f"{name}_{place}": (makes[place % len(makes)](), place > 3) for place in range(11)}))
    check(way, twelve(sa.Text, nullable=True, name=name))


@pytest.mark.parametrize("way", LISTS)
def test_more_columns_are_four_parameters_each(way: str) -> None:
    for columns in (13, 30):
        made = model_of({f"column_{number}": (sa.BigInteger(), True) for number in range(columns - 1)})
        check(way, made, columns=columns)


class Base(DeclarativeBase):
    """The tables of these tests."""


class Owner(Base):
    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    since: Mapped[int]


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    page: Mapped[int | None]
    settings: Mapped[Any] = mapped_column(sa.JSON)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("owners.id"))

    owner: Mapped[Owner] = relationship()


PATHS = (*(f"settings.key_{number}" for number in range(5)), "owner.name", "owner.since", "page", "id")


@pytest.mark.parametrize("way", LISTS)
def test_paths_and_a_field_of_the_name_of_a_parameter(way: str) -> None:
    check(way, Thing, PATHS)


# -- which four ------------------------------------------------------------------------------------------------------

WHICH: dict[str, tuple[Any, list[str], list[str]]] = {
    "text": (sa.String(9), ["eq", "ilike", "in"], ["eq", "ilike", "is_null", "in"]),
    "number": (sa.Integer(), ["eq", "gte", "lt", "in"], ["eq", "gte", "lt", "is_null"]),
    "decimal": (sa.Numeric(), ["eq", "gte", "lt", "in"], ["eq", "gte", "lt", "is_null"]),
    "date": (sa.Date(), ["eq", "gte", "lt", "in"], ["eq", "gte", "lt", "is_null"]),
    "moment": (sa.DateTime(), ["eq", "gte", "lt", "in"], ["eq", "gte", "lt", "is_null"]),
    "span": (sa.Interval(), ["eq", "gte", "lt", "in"], ["eq", "gte", "lt", "is_null"]),
    "enum": (sa.Enum(Color), ["eq", "in"], ["eq", "is_null", "in"]),
    "flag": (sa.Boolean(), ["eq", "in"], ["eq", "is_null", "in"]),
    "uuid": (sa.Uuid(), ["eq", "in"], ["eq", "is_null", "in"]),
    "array": (
        sa.ARRAY(sa.String()),
        ["contains", "overlaps", "contained_by"],
        ["contains", "overlaps", "contained_by", "is_null"],
    ),
}


@pytest.mark.parametrize("nullable", [False, True], ids=["never null", "nullable"])
@pytest.mark.parametrize("name", WHICH)
def test_the_type_says_which_operators_are_parameters(name: str, nullable: bool) -> None:
    type_, *expected = WHICH[name]
    params = FilterParams(model_of({"value": (type_, nullable)}), ("value",))
    shown = [name.partition("__")[2] or "eq" for name, _, _ in params.openapi()]
    assert shown == expected[nullable]


def test_the_other_operators_are_told_of_with_the_first() -> None:
    params = FilterParams(model_of({"score": (sa.Integer(), True), "on": (sa.Boolean(), False)}), ("score", "on"))
    told = {name: description for name, _, description in params.openapi()}
    assert told["score"] == (
        "score: equal to this. Also score__ne, score__gt, score__lte, score__is_not_null; "
        "with commas between values score__in, score__not_in, score__between"
    )
    assert told["score__gte"] == "score: this or greater"
    assert told["on"] == "on: equal to this. Also on__ne; with commas between values on__not_in"


# -- what repeats ----------------------------------------------------------------------------------------------------


def references(document: dict[str, Any]) -> list[str]:
    found = [each["$ref"] for each in inside(document) if isinstance(each.get("$ref"), str)]
    for each in found:
        held: Any = document
        for part in each.removeprefix("#/").split("/"):
            held = held[part]
    return found


@pytest.mark.parametrize("way", LISTS)
def test_many_allowed_values_stand_in_the_document_once(way: str) -> None:
    app = app_of(way, twelve(lambda: sa.Enum(Country), nullable=True))
    document = app.openapi()
    assert size_of(document) <= MOST_BYTES
    assert sum(len(each.get("enum", ())) == 250 for each in inside(document)) == 1
    assert references(document)
    schemas = {each["name"]: each["schema"] for each in parameters_of(document)}
    assert schemas["some_column_0"]["$ref"] == schemas["some_column_1__in"]["items"]["$ref"]
    assert app.openapi() == document


@pytest.mark.parametrize("way", LISTS)
def test_values_of_names_alone_and_of_two_fields_of_one_name(way: str) -> None:
    made = model_of({"town": (sa.Enum(*CITIES, name="city"), False)})
    app = app_of(way, made, ("town", "id"))

    @app.get("/other")
    async def other(
        mine: Any = Depends(filter_query(model_of({"town": (sa.Enum(*CITIES[1:], name="town"), False)}), "town")),
        theirs: Any = Depends(filter_query(model_of({"home": (sa.Enum(*CITIES[:10], name="town"), False)}), "home")),
    ) -> None: ...

    document = app.openapi()
    references(document)
    schemas = document["components"]["schemas"]
    assert schemas["TownValue"]["enum"] == list(CITIES)
    assert schemas["TownValue2"]["enum"] == list(CITIES[1:])
    few = {each["name"]: each["schema"] for each in document["paths"]["/other"]["get"]["parameters"]}
    assert few["home"]["enum"] == list(CITIES[:10])


def test_a_router_serves_two_apps() -> None:
    router = list_router(twelve(lambda: sa.Enum(Country), nullable=False), prefix="/rows")
    documents = []
    for _ in range(2):
        app = FastAPI()
        DatabasePlugin("sqlite+aiosqlite://", tenant=tenant_from_header("X-Tenant-ID")).install(app)
        app.include_router(router)
        documents.append(app.openapi())
        references(documents[-1])
    assert documents[0] == documents[1]


@pytest.mark.parametrize("way", ["options_query", "filter_query"])
def test_a_description_stands_in_the_document_once(way: str) -> None:
    parameters = parameters_of(app_of(way, twelve(sa.Text, nullable=True)).openapi())
    assert not [each["name"] for each in parameters if "description" in each["schema"]]
    assert [each for each in parameters if each["in"] == "query" and "description" in each]


# -- what it costs ---------------------------------------------------------------------------------------------------


def test_fastapi_has_as_many_parameters_to_read_as_are_documented() -> None:
    """It makes a validator of each when it is imported, and looks each up in every request."""
    app = app_of("options_query", twelve(sa.Text, nullable=True))
    route = next(each for each in app.routes if getattr(each, "path", "") == "/rows")
    fields = get_flat_params(route.dependant)  # type: ignore[attr-defined]
    assert 40 < len(fields) <= MOST
