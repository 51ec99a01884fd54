"""Generated routes for the classes of an inheritance: what the ORM fills is asked of nobody, and set by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import ForeignKey, Identity, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import Database, TenantMixin
from tests.fastapi.conftest import Api
from tests.fastapi.shared_routers import crud_router


class Base(DeclarativeBase):
    """The tables of this module."""


class Vehicle(TenantMixin, Base):
    __tablename__ = "inherited_vehicles"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column("type", String(20))
    name: Mapped[str]


class Car(Vehicle):
    """Of its parent's table."""

    __mapper_args__ = {"polymorphic_identity": "car"}  # noqa: RUF012

    doors: Mapped[int | None]


class Truck(Vehicle):
    """Of a table of its own, whose key has the parent's name."""

    __tablename__ = "inherited_trucks"
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("inherited_vehicles.id"), primary_key=True)
    load: Mapped[int]


class Crane(Truck):
    """Two levels, and a key of another name."""

    __tablename__ = "inherited_cranes"
    __mapper_args__ = {"polymorphic_identity": "crane"}  # noqa: RUF012

    crane_id: Mapped[int] = mapped_column(ForeignKey("inherited_trucks.id"), primary_key=True)
    height: Mapped[int]


class Paper(TenantMixin, Base):
    __tablename__ = "inherited_papers"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "paper"}  # noqa: RUF012

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))


class Bill(Paper):
    __tablename__ = "inherited_bills"
    __mapper_args__ = {"polymorphic_identity": "bill"}  # noqa: RUF012

    id: Mapped[UUID] = mapped_column(ForeignKey("inherited_papers.id"), primary_key=True)
    total: Mapped[int]


class Licence(TenantMixin, Base):
    """Not of an inheritance: its key is a car's, which the client alone knows."""

    __tablename__ = "inherited_licences"

    vehicle_id: Mapped[int] = mapped_column(ForeignKey("inherited_vehicles.id"), primary_key=True)
    text: Mapped[str]


GIVEN: dict[type[Any], dict[str, Any]] = {
    Vehicle: {"name": "v"},
    Car: {"name": "c", "doors": 4},
    Truck: {"name": "t", "load": 3},
    Crane: {"name": "r", "load": 3, "height": 9},
    Bill: {"total": 7},
}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    for model in (*GIVEN, Licence):
        shared_api.app.include_router(crud_router(model, prefix=f"/{model.__name__}"))
    return shared_api


@pytest.fixture
def api(served: Api, emptied: None) -> Api:
    return served


def properties(app: FastAPI, name: str) -> tuple[set[str], set[str]]:
    schema = app.openapi()["components"]["schemas"][name]
    return set(schema["properties"]), set(schema.get("required", ()))


@pytest.mark.parametrize("model", GIVEN, ids=lambda model: model.__name__)
def test_a_client_gives_what_is_its_own(api: Api, model: type[Any]) -> None:
    given = GIVEN[model]
    for verb in ("Create", "Update"):
        assert properties(api.app, f"{model.__name__}{verb}")[0] == set(given)
    assert properties(api.app, f"{model.__name__}Create")[1] == set(given) - {"doors"}


@pytest.mark.parametrize("model", [each for each in GIVEN if each is not Bill], ids=lambda model: model.__name__)
def test_a_row_is_of_the_routes_class(api: Api, model: type[Any]) -> None:
    answer = api.post(f"/{model.__name__}", tenant="a", json=GIVEN[model])
    assert answer.status_code == 201, answer.text
    path = answer.headers["location"]
    assert answer.json()["kind"] == model.__name__.lower()
    assert api.get(path, tenant="a").json() == answer.json()
    for forged in ({"kind": "vehicle"}, {"kind": "boat"}, {"kind": None}, {"id": 77}):
        refused = api.patch(path, tenant="a", json=forged)
        assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", *forged])
        refused = api.post(f"/{model.__name__}", tenant="a", json=GIVEN[model] | forged)
        assert refused.status_code == 422
    assert api.patch(path, tenant="a", json={"name": "n"}).json() == {**answer.json(), "name": "n"}
    listed = api.get(f"/{model.__name__}?kind={model.__name__.lower()}", tenant="a").json()["items"]
    assert [row["name"] for row in listed] == ["n"]


def test_a_key_that_is_no_inheritances_is_the_clients(api: Api) -> None:
    assert properties(api.app, "LicenceCreate") == ({"vehicle_id", "text"}, {"vehicle_id", "text"})
    car = api.post("/Car", tenant="a", json=GIVEN[Car]).json()["id"]
    assert api.post("/Licence", tenant="a", json={"vehicle_id": car, "text": "x"}).status_code == 201


def test_what_the_database_alone_may_number_is_no_clients(
    app: FastAPI, runner: asyncio.Runner, database: Database
) -> None:
    with numbered(database) as model:
        app.include_router(crud_router(model, prefix="/numbered"))
        assert properties(app, "NumberedCreate")[0] == properties(app, "NumberedUpdate")[0] == {"name"}
        if database.engine.dialect.name == "postgresql":
            answer = Api(app, runner).post("/numbered", json={"name": "n"})
            assert (answer.status_code, answer.json()["number"]) == (201, 1)


@contextmanager
def numbered(database: Database) -> Iterator[type[Any]]:
    class Own(DeclarativeBase):
        """A table of its own."""

    class Numbered(Own):
        __tablename__ = "inherited_numbered"
        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(Identity(always=True))
        name: Mapped[str]

    Own.metadata.create_all(database.engine)
    yield Numbered
    Own.metadata.drop_all(database.engine)
