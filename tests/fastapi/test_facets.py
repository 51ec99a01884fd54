"""Facets: the number of rows of each value, beside a page of a list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import ALL_TENANTS, ValidationError
from tests.conftest import counted
from tests.fastapi.conftest import inlined
from tests.fastapi.exporting import (
    PLACES,
    Account,
    AccountRead,
    Accounts,
    Grade,
    Member,
    Place,
    PlaceApi,
    place_named,
    served_on,
)
from tests.fastapi.shared_routers import crud_router, list_router

COUNTED = ("grade", "active", "code", "opened", "balance", "price", "ratio", "name", "long", "seen_at")
FACETS: dict[str, list[tuple[Any, int]]] = {
    "grade": [("low", 2), ("high", 2), (None, 1)],
    "active": [(True, 4), (False, 1)],
    "code": [(None, 3), ("00000000-0000-0000-0000-000000000001", 2)],
    "opened": [("2024-01-01", 2), ("2024-01-02", 2), ("2024-01-03", 1)],
    "balance": [("-1.50", 3), ("3.00", 1), ("4.00", 1)],
    "price": [(None, 3), ("2.5", 2)],
    "ratio": [(0.5, 4), (None, 1)],
    "long": [(None, 4), ("=long", 1)],
}
"""The facets of each tenant's rows."""


async def tenant(request: Request) -> Any:
    name = request.headers.get("X-Tenant-ID")
    return ALL_TENANTS if name == "*" else name


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_named(request, tmp_path_factory.mktemp("facets")) as place:
        yield place


@pytest.fixture
def served(place: Place, runner: asyncio.Runner) -> Iterator[PlaceApi]:
    with served_on(place, runner, tenant=tenant) as api:
        yield api


def pairs(answer: Any, name: str) -> list[tuple[Any, int]]:
    assert answer.status_code == 200, answer.text
    values = answer.json()["facets"][name]
    assert all(list(each) == ["value", "count"] for each in values)
    return [(each["value"], each["count"]) for each in values]


def test_the_values_of_each_type_of_column(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", facets=COUNTED))
    for name in ("a", "b"):
        answer = served.get(f"/accounts?facets={','.join(COUNTED)}", tenant=name)
        assert list(answer.json()["facets"]) == list(COUNTED)
        for field, expected in FACETS.items():
            assert pairs(answer, field) == expected, field
        # Each value is written as in the rows.
        items = answer.json()["items"]
        for field in set(COUNTED) - {"long"}:
            shown = [json.dumps(item[field]) for item in items]
            for value, count in pairs(answer, field):
                assert shown.count(json.dumps(value)) == count


@pytest.mark.parametrize("page", ["", "&per_page=1", "&page=2&per_page=2", "&limit=2", "&total=none", "&sort=-name"])
def test_the_page_has_no_effect(served: PlaceApi, page: str) -> None:
    served.app.include_router(crud_router(Account, prefix="/accounts", facets=["grade"]))
    answer = served.get(f"/accounts?facets=grade{page}", tenant="a")
    assert pairs(answer, "grade") == FACETS["grade"]
    without = served.get(f"/accounts?{page}", tenant="a").json()
    assert {key: value for key, value in answer.json().items() if key != "facets"} == without
    if "limit" in page:
        following = served.get(f"/accounts?facets=grade&limit=2&cursor={without['next_cursor']}", tenant="a")
        assert pairs(following, "grade") == FACETS["grade"]


def test_filters_and_the_search_hold(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", facets=["grade"], search=["name"]))
    expected = {
        "grade=low": [("low", 2)],
        "balance__lt=0&name__ne=Bob": [("high", 2)],
        "q=bob": [("low", 1)],
        "q=bob&grade=high": [],
        "name=gone": [],
    }
    for query, values in expected.items():
        assert pairs(served.get(f"/accounts?{query}&facets=grade", tenant="b"), "grade") == values


def test_the_conditions_of_a_repository_class_hold(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", facets=["grade"], repository=Accounts))
    assert pairs(served.get("/accounts?facets=grade", tenant="a"), "grade") == [("high", 2), ("low", 1), (None, 1)]


def test_a_schema_of_the_user_s_shows_the_values(served: PlaceApi) -> None:
    facets = ["grade", "balance", "opened"]
    served.app.include_router(list_router(Account, "/accounts", facets=facets, read_schema=AccountRead))
    answer = served.get(f"/accounts?facets={','.join(facets)}", tenant="a")
    assert pairs(answer, "grade") == [("LOW", 2), ("HIGH", 2), (None, 1)]
    assert pairs(answer, "balance") == FACETS["balance"]
    assert pairs(answer, "opened") == FACETS["opened"]  # which the schema does not show


def test_sqlmodel(served: PlaceApi) -> None:
    served.app.include_router(list_router(Member, "/members", facets=["grade", "balance"]))
    answer = served.get("/members?facets=grade,balance", tenant="b")
    assert pairs(answer, "grade") == FACETS["grade"]
    assert pairs(answer, "balance") == FACETS["balance"]


def test_across_all_tenants(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", facets=["grade", "tenant_id"]))
    answer = served.get("/accounts?facets=grade,tenant_id", tenant="*")
    assert pairs(answer, "tenant_id") == [("a", 5), ("b", 5)]
    assert pairs(answer, "grade") == [("low", 4), ("high", 4), (None, 2)]


def test_the_statements(served: PlaceApi) -> None:
    """One for each facet, and none without the parameter."""
    served.app.include_router(list_router(Account, "/accounts", facets=COUNTED))
    engine = served.plugin.database.async_engine.sync_engine
    sent: dict[str, int] = {}
    for query in ("", "facets=", "facets=grade", "facets=grade,grade", "facets=grade&facets=active", "f%61cets=name"):
        with counted(engine) as statements:
            answer = served.get(f"/accounts?{query}", tenant="a")
        sent[query] = sum("exported_accounts" in each for each in statements)
        assert ("facets" in answer.json()) is (sent[query] > 1)
    assert list(sent.values()) == [1, 1, 2, 2, 3, 2]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("facets=grad", "no facet 'grad'; did you mean 'grade'"),
        ("facets=zzz", "no facet 'zzz'; choose grade, active"),
        ("facets=secret", "no facet 'secret'; choose grade, active"),
        ("facets=name", "no facet 'name'; choose grade, active"),
        ("facets=grade,,active", "no facet ''"),
    ],
)
def test_other_names_are_refused(served: PlaceApi, query: str, said: str) -> None:
    served.app.include_router(list_router(Account, "/accounts", facets=["grade", "active"]))
    answer = served.get(f"/accounts?{query}", tenant="a")
    assert (answer.status_code, [each["loc"] for each in answer.json()["errors"]]) == (422, [["query", "facets"]])
    assert said in answer.json()["detail"]


def test_all_errors_are_reported_together(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", facets=["grade"]))
    answer = served.get("/accounts?facets=grad&page=0&sort=x", tenant="a")
    assert {each["loc"][1] for each in answer.json()["errors"]} == {"facets", "page", "sort"}


def test_a_list_without_facets_has_no_such_parameter(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts"))
    assert served.get("/accounts?facets=grade", tenant="a").status_code == 422


class Base(DeclarativeBase):
    """Classes that need no tables."""


class Thing(Base):
    __tablename__ = "faceted_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    facets: Mapped[int]
    count: Mapped[int]
    document: Mapped[Any] = mapped_column(sa.JSON)
    words: Mapped[list[str]] = mapped_column(ARRAY(sa.String))
    picture: Mapped[bytes]
    pickle: Mapped[Any] = mapped_column(sa.PickleType)
    secret: Mapped[str] = mapped_column(info={"private": True})
    _hidden: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("faceted_things.id"))

    parent: Mapped[Thing | None] = relationship(remote_side=[id])

    @hybrid_property
    def size(self) -> int:
        return self.count * 2


@pytest.mark.parametrize(
    "name", ["document", "document.a", "words", "picture", "pickle", "secret", "_hidden", "parent", "parent.count", "x"]
)
@pytest.mark.parametrize("router", [list_router, crud_router])
def test_fields_that_can_be_no_facets(router: Any, name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        router(Thing, prefix="/things", facets=["count", name])


def test_fields_with_the_names_of_parameters_and_members(app: FastAPI, api: Any, database: Any) -> None:
    plain = sa.Table(
        "faceted_things",
        sa.MetaData(),
        *(sa.Column(name, sa.Integer) for name in ("id", "facets", "count", "parent_id")),
        *(sa.Column(name, sa.String) for name in ("document", "words", "picture", "pickle", "secret", "_hidden")),
    )
    router = list_router(Thing, "/things", read_schema=Counted, facets=["facets", "count", "size"], filters=["facets"])
    app.include_router(router)
    plain.create(database.engine)
    try:
        with database.engine.begin() as connection:
            connection.execute(sa.insert(plain), [{"id": n, "facets": n // 2, "count": n % 2} for n in range(4)])
        answer = api.get("/things?facets=count,size&facets__eq=0")
        assert pairs(answer, "count") == [(0, 1), (1, 1)]
        assert pairs(answer, "size") == [(0, 1), (2, 1)]
        assert pairs(api.get("/things?facets=facets"), "facets") == [(0, 2), (1, 2)]
        with database.engine.begin() as connection:
            connection.execute(sa.insert(plain), [{"id": n, "facets": n, "count": 0} for n in range(10, 130)])
        answer = pairs(api.get("/things?facets=facets"), "facets")
        assert answer == [(0, 2), (1, 2), *((n, 1) for n in range(10, 108))]
    finally:
        plain.drop(database.engine)


class Counted(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    facets: int


class Strict(BaseModel):
    """A schema whose validators need whole rows, and whose names differ."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    level: Grade | None = Field(validation_alias="grade", serialization_alias="LEVEL")

    @model_validator(mode="after")
    def whole(self) -> Strict:
        assert self.id
        return self


def test_a_schema_that_validates_whole_rows(served: PlaceApi) -> None:
    served.app.include_router(
        list_router(Account, "/accounts", facets=["grade"], read_schema=Strict, filters=["grade"])
    )
    answer = served.get("/accounts?facets=grade", tenant="a")
    assert answer.json()["items"][0] == {"id": 1, "LEVEL": "high"}
    assert pairs(answer, "grade") == FACETS["grade"]


def test_openapi(app: FastAPI) -> None:
    app.include_router(list_router(Account, "/accounts", facets=["grade", "price"]))
    app.include_router(list_router(Account, "/plain"))
    document: Any = inlined(app.openapi())
    [parameter] = [each for each in document["paths"]["/accounts"]["get"]["parameters"] if each["name"] == "facets"]
    assert (parameter["style"], parameter["explode"]) == ("form", False)
    assert parameter["schema"] == {"type": "array", "items": {"type": "string", "enum": ["grade", "price"]}}
    schemas = app.openapi()["components"]["schemas"]
    for path, has in (("/accounts", True), ("/plain", False)):
        content = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        assert ("facets" in schema["properties"]) is has
        assert "facets" not in schema["required"]
    facets = schemas["AccountFacets"]
    assert list(facets["properties"]) == ["grade", "price"]
    assert "required" not in facets
    value = schemas["AccountGradeFacet"]
    assert value["required"] == ["value", "count"]
    assert value["properties"]["value"]["anyOf"] == [{"$ref": "#/components/schemas/Grade"}, {"type": "null"}]
    assert TypeAdapter(int).json_schema().items() <= value["properties"]["count"].items()
