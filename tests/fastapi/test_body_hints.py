"""A misspelt member of a body names the field that was meant, unless policies could hide that field."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from pydantic import BaseModel, ConfigDict, Field

from dotmac_database_fastapi import crud_router, register_exception_handlers
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Order, Tables, world_of
from tests.fastapi.policy_models import ACTORS, POLICIES, Base, fill
from tests.fastapi.test_policies import actor_of, build


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Wheel(Strict):
    diameter: int = 1


class Car(Strict):
    name: str = ""
    made_in: str = Field(default="", alias="madeIn")
    wheels: list[Wheel] = []
    spare: Annotated[Wheel | None, Field()] = None
    by_side: dict[str, Wheel] = {}


class Boat(Strict):
    kind: str = "boat"
    length: int = 1


Bodies = list[tuple[str, str, Any, list[str | None]]]

GENERATED: Bodies = [
    ("POST", "/orders", {"nmuber": "x"}, [None, "number"]),  # the first error is that of the missing number
    ("PATCH", "/orders/1", {"notee": "x"}, ["note"]),
    ("POST", "/many/bulk", [{"number": "x"}, {"number": "x", "totl": 1}], ["total"]),
    ("PATCH", "/many/bulk", [{"id": 1, "totl": 1}], ["total"]),
    ("POST", "/orders", {"number": "x", "lines": [{"sku": "a", "quantty": 2}]}, ["quantity"]),
    ("POST", "/orders", {"number": "x", "zzz": 1}, [None]),
    ("PATCH", "/orders/1", {"notee": 1, "totl": 1, "numbr": 1, "nubmer": 1}, ["note", "total", "number", None]),
    ("PATCH", "/orders/1", {"note": 7}, [None]),
]
OWN: Bodies = [
    ("POST", "/car", {"madein": "x"}, ["madeIn"]),
    ("POST", "/car", {"wheels": [{"diametre": 1}]}, ["diameter"]),
    ("POST", "/car", {"spare": {"diametre": 1}}, ["diameter"]),
    ("POST", "/car", {"by_side": {"left": {"diametre": 1}}}, [None]),  # the members of a dict have no names
    ("POST", "/both", {"car": {"nmae": "x"}, "boat": {"lenght": 1}}, ["name", "length"]),
    ("POST", "/any", {"lenght": 1}, [None, "length"]),  # one error for each class that the body could be of
    ("POST", "/untyped", [], [None]),
]


@pytest.fixture(scope="module", params=["sqlite"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with world_of(request, tmp_path_factory.mktemp("hints")) as world, world.api() as (app, api):
        app.include_router(crud_router(Order, "/orders", nested=("lines",)))
        app.include_router(crud_router(Order, "/many", operations=["bulk_create", "bulk_update"]))
        yield api


@pytest.fixture(scope="module")
def own() -> Iterator[Api]:
    app = FastAPI()
    register_exception_handlers(app)

    @app.post("/car")
    async def car(_data: Car) -> None: ...

    @app.post("/both")
    async def both(car: Car, boat: Boat) -> None: ...

    @app.post("/any")
    async def either(_data: Annotated[Car | Boat, Body()]) -> None: ...

    @app.post("/untyped")
    async def untyped(_data: dict[str, int]) -> None: ...

    with asyncio.Runner() as runner:
        yield Api(app, runner)


def hints(api: Api, method: str, path: str, body: Any, **options: Any) -> list[str | None]:
    answer = api.request(method, path, json=body, **options)
    assert answer.status_code == 422
    faults = answer.json()["errors"]
    assert all(fault["msg"] in answer.json()["detail"] for fault in faults)
    return [fault["msg"].partition("; did you mean '")[2].removesuffix("'?") or None for fault in faults]


@pytest.mark.parametrize(("method", "path", "body", "meant"), GENERATED)
def test_generated_routes(api: Api, method: str, path: str, body: Any, meant: list[str | None]) -> None:
    assert hints(api, method, path, body, tenant="a") == meant


@pytest.mark.parametrize(("method", "path", "body", "meant"), OWN)
def test_routes_of_the_app(own: Api, method: str, path: str, body: Any, meant: list[str | None]) -> None:
    assert hints(own, method, path, body) == meant


@pytest.fixture(scope="module", params=["sqlite"])
def ruled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with (
        world_of(request, tmp_path_factory.mktemp("ruled_hints"), Tables(Base.metadata, fill)) as world,
        world.api(actor=actor_of, policies=POLICIES) as (app, api),
    ):
        build(app)
        yield api


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("name", ["budget", "budgett", "nmae"])
def test_no_hint_names_a_hidden_field(ruled: Api, actor: str, name: str) -> None:
    answer = ruled.request("PATCH", "/projects/1", tenant="a", json={name: "x"}, headers={"X-Actor": actor})
    assert answer.status_code == 422
    assert "did you mean" not in answer.text
