"""Operators that OpenAPI has in words alone are accepted, and the parts of an endpoint accept each other's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from inspect import Signature
from typing import Annotated, Any
from unittest.mock import MagicMock

import httpx
import pytest
import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, Query
from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.requests import HTTPConnection, Request

from dotmac_database_fastapi import DatabasePlugin, PageQuery, filter_query, options_query, sort_query
from dotmac_database_fastapi.fields import fields_of
from dotmac_database_fastapi.query_string import FilterParams, ListParams
from tests.fastapi.conftest import Api, MakePlugin
from tests.fastapi.shared_routers import crud_router, list_router


class Base(DeclarativeBase):
    """The tables of these tests."""


class Cat(Base):
    __tablename__ = "cats"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    lives: Mapped[int]
    born: Mapped[datetime | None]


class Dog(Base):
    __tablename__ = "dogs"

    id: Mapped[int] = mapped_column(primary_key=True)
    breed: Mapped[str | None]
    tags: Mapped[Any] = mapped_column(sa.ARRAY(sa.Integer).with_variant(sa.JSON, "sqlite"))


@pytest.fixture(scope="module")
def tables() -> Any:
    return Base.metadata


CATS, DOGS, SORTS = filter_query(Cat), filter_query(Dog, "breed"), sort_query(Cat)
BOTH = "name__not_ilike=x&breed__not_ilike=y&lives__lte=9&breed__search=z"
"""Operators of two classes, none of which is a parameter of its own in OpenAPI."""

Add = Callable[[FastAPI], None]


@pytest.fixture
def local(runner: asyncio.Runner) -> Api:
    """An app without a database."""
    return Api(FastAPI(), runner)


# -- every operator --------------------------------------------------------------------------------------------------

VALUES = {"id": "1", "lives": "1", "tags": "1", "born": "2024-01-01", "name": "a", "breed": "a"}


def values(params: FilterParams) -> Iterator[str]:
    for name, (field, operator) in params.accepted.items():
        given = "true" if "null" in operator.value else VALUES[field.name]
        yield f"{name}={given},{given}" if operator.value == "between" else f"{name}={given}"


@pytest.mark.parametrize("model", [Cat, Dog])
def test_every_operator_of_a_type_is_accepted(local: Api, model: type) -> None:
    @local.app.get("/filters")
    async def filters(given: Any = Depends(filter_query(model))) -> list[Any]:
        return [[each.field, each.operator.value] for each in given]

    @local.app.get("/options")
    async def options(given: Any = Depends(options_query(model))) -> list[Any]:
        return [[each.field, each.operator.value] for each in given.filters]

    params = FilterParams(model)
    expected = {
        f"{name}{operator}"
        for name, field in fields_of(model, ()).items()
        for each in field.operators
        for operator in ((f"__{each.value}", "") if each.value == "eq" else (f"__{each.value}",))
    }
    assert params.known == expected
    for query in values(params):
        field, operator = params.accepted[query.partition("=")[0]]
        for path in ("/filters", "/options"):
            answer = local.get(f"{path}?{query}")
            assert (answer.status_code, answer.json()) == (200, [[field.name, operator.value]]), query
        scope = {"type": "http", "query_string": query.encode(), "headers": [], "path": "/", "method": "GET"}
        assert len(ListParams(model).read(Request(scope)).filters) == 1


# -- two that read one query string ----------------------------------------------------------------------------------


def beside(app: FastAPI) -> None:
    @app.get("/it")
    async def it(
        page: PageQuery, cats: Any = Depends(CATS), dogs: Any = Depends(DOGS), sorts: Any = Depends(SORTS)
    ) -> int:
        return len(cats) + len(dogs)


async def of_cats(cats: Any = Depends(CATS), mine: int = 0) -> int:
    return len(cats)


class OfDogs:
    """A dependency that is an object, and asks for another one."""

    async def __call__(self, dogs: Any = Depends(DOGS)) -> int:
        return len(dogs)


def nested(app: FastAPI) -> None:
    @app.get("/it")
    async def it(cats: Any = Depends(of_cats), dogs: Any = Depends(OfDogs()), sorts: Any = Depends(SORTS)) -> int:
        return int(cats + dogs)


def of_the_router(app: FastAPI) -> None:
    router = APIRouter(dependencies=[Depends(DOGS)])

    @router.get("/it")
    async def it(cats: Any = Depends(CATS)) -> int:
        return len(cats) + 2

    app.include_router(router, dependencies=[Depends(SORTS)])


def of_the_decorator(app: FastAPI) -> None:
    @app.get("/it", dependencies=[Depends(DOGS)])
    async def it(options: Any = Depends(options_query(Cat))) -> int:
        return len(options.filters) + 2


def wrapped(app: FastAPI) -> None:
    @wraps(DOGS)
    async def dogs_of(connection: HTTPConnection, **given: Any) -> Any:
        return await DOGS(connection, **given)

    @app.get("/it")
    async def it(cats: Any = Depends(CATS), dogs: Any = Depends(dogs_of)) -> int:
        return len(cats) + len(dogs)


class Mine(BaseModel):
    """Query parameters that FastAPI reads into an object."""

    mine: int = 0


def of_an_object(app: FastAPI) -> None:
    @app.get("/it")
    async def it(
        mine: Annotated[Mine, Query()],
        cats: Any = Depends(CATS),
        dogs: Any = Depends(DOGS),
        sorts: Any = Depends(SORTS),
    ) -> int:
        return len(cats) + len(dogs)


def replaced(app: FastAPI) -> None:
    async def both(cats: Any = Depends(of_cats), dogs: Any = Depends(DOGS)) -> int:
        return int(cats) + len(dogs)

    @app.get("/it")
    async def it(sorts: Any = Depends(SORTS), found: Any = Depends(filter_query(Cat, "id"))) -> int:
        return int(found)

    app.dependency_overrides[filter_query(Cat, "id")] = both


def replaced_inside(app: FastAPI) -> None:
    """What is replaced is a dependency of what replaces another one."""

    async def original() -> int:
        raise AssertionError

    async def between(cats: Any = Depends(CATS), rest: Any = Depends(original)) -> int:
        return len(cats) + int(rest)

    async def dogs_of(dogs: Any = Depends(DOGS)) -> int:
        return len(dogs)

    async def first() -> int:
        raise AssertionError

    async def holder(found: Any = Depends(first)) -> Any:
        return found

    @app.get("/it")
    async def it(sorts: Any = Depends(SORTS), found: Any = Depends(holder)) -> int:
        return int(found)

    app.dependency_overrides = {first: between, original: dogs_of}


WAYS: dict[str, Add] = {
    each.__name__: each
    for each in (
        beside,
        nested,
        of_the_router,
        of_the_decorator,
        wrapped,
        of_an_object,
        replaced,
        replaced_inside,
    )
}


@pytest.mark.parametrize("way", WAYS)
def test_the_parts_of_an_endpoint_accept_each_others_operators(local: Api, way: str) -> None:
    WAYS[way](local.app)
    for _ in range(2):  # what is accepted is remembered
        answer = local.get(f"/it?{BOTH}")
        assert (answer.status_code, answer.json()) == (200, 4)
    for name, meant in (("breed__not_ilik", "breed__not_ilike"), ("name__start_with", "name__starts_with")):
        fault = faults(local.get(f"/it?{BOTH}&{name}=x"))[0]
        assert fault["loc"] == ["query", name]
        assert fault["msg"].endswith(f"did you mean {meant!r}?")
    assert faults(local.get("/it?name__none=1"))[0]["loc"] == ["query", "name__none"]


def faults(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 422, answer.text
    found: list[Any] = answer.json().get("errors") or answer.json()["detail"]
    return found


def test_overrides_that_come_and_go(local: Api) -> None:
    beside(local.app)
    for _ in range(2):
        assert local.get("/it?tags__overlaps=1").status_code == 422
        local.app.dependency_overrides[DOGS] = filter_query(Dog, "tags")
        assert local.get(f"/it?{BOTH}&tags__overlaps=1").json() == 3
        local.app.dependency_overrides.clear()


def test_an_object_of_a_mocking_library_may_replace_a_dependency(local: Api) -> None:
    beside(local.app)
    local.app.dependency_overrides[DOGS] = MagicMock(return_value=[], __signature__=Signature())
    assert local.get("/it?lives__lte=1&breed__search=x").json() == 1


# -- generated routes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [list_router, crud_router])
def test_a_generated_list_and_a_dependency_of_its_router(app: FastAPI, api: Api, make: Any) -> None:
    app.include_router(make(Cat, prefix="/cats", filters=("name", "lives"), dependencies=[Depends(DOGS)]))
    query = "name__starts_with=x&breed__not_ilike=y&lives__lte=9&breed__contains=z&per_page=5"
    answer = api.get(f"/cats?{query}", tenant="a")
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    assert "did you mean 'breed__contains'?" in faults(api.get("/cats?breed__contain=1", tenant="a"))[0]["msg"]


async def tenant_of_query(organisation: str) -> str:
    return organisation


async def tenant_of_filters(cats: Any = Depends(CATS)) -> str:
    return "a" if cats else "b"


def test_the_plugins_tenant_is_replaced_by_one_that_reads_the_query_string(
    make_plugin: MakePlugin, runner: asyncio.Runner
) -> None:
    plugin: DatabasePlugin = make_plugin()
    app = FastAPI(lifespan=plugin.lifespan)
    app.include_router(list_router(Dog, prefix="/dogs", filters=("breed",)))
    api = Api(app, runner)
    assert faults(api.get("/dogs?organisation=a", tenant="a"))
    assert plugin.tenant is not None
    for replacement, query in ((tenant_of_query, "organisation=a"), (tenant_of_filters, "lives__lte=1")):
        app.dependency_overrides[plugin.tenant] = replacement
        answer = api.get(f"/dogs?{query}&breed__starts_with=x")
        assert (answer.status_code, answer.json()["items"]) == (200, [])
