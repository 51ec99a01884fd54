"""Selections of unusual classes and schemas, refused ones, and what the document says of them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, TypedDict

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field, model_serializer
from pydantic.alias_generators import to_camel
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, DynamicMapped, Mapped, attribute_keyed_dict, mapped_column, relationship
from sqlalchemy.orm.attributes import set_committed_value

from dotmac_database import AsyncTenantRepository, Database, TenantMixin, ValidationError, VersionMixin
from dotmac_database_fastapi.options import ListOptions
from dotmac_database_fastapi.query_string import ListParams
from dotmac_database_fastapi.selected_rows import MAX_VARIANTS, SelectionRenderers
from dotmac_database_fastapi.selection import Selection
from tests.conftest import counted
from tests.fastapi.conftest import Api
from tests.fastapi.shared_routers import crud_router, list_router


class Base(DeclarativeBase):
    """The tables of this module."""


class Room(VersionMixin, Base):
    """A class whose key contains its tenant."""

    __tablename__ = "edge_rooms"
    __tenant_column__ = "org"

    org: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    desks: Mapped[dict[str, Desk]] = relationship(collection_class=attribute_keyed_dict("label"), back_populates="room")


class Desk(Base):
    __tablename__ = "edge_desks"
    __tenant_column__ = "org"
    __table_args__ = (sa.ForeignKeyConstraint(["org", "room_number"], ["edge_rooms.org", "edge_rooms.number"]),)

    org: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    room_number: Mapped[int]
    fields: Mapped[str | None]
    """A column with the name of a parameter."""
    room: Mapped[Room] = relationship(back_populates="desks")


class Owner(TenantMixin, Base):
    __tablename__ = "edge_owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    pets: Mapped[list[Animal]] = relationship(back_populates="owner", order_by="Animal.id")
    loved_pets: Mapped[list[Animal]] = relationship(viewonly=True, order_by="Animal.id")
    watched: DynamicMapped[Animal] = relationship(viewonly=True)
    hidden: Mapped[list[Animal]] = relationship(info={"private": True}, viewonly=True)
    _inner: Mapped[list[Animal]] = relationship(viewonly=True)


class Animal(TenantMixin, Base):
    __tablename__ = "edge_animals"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(9))
    name: Mapped[str] = mapped_column(sa.String(9))
    secret: Mapped[str | None] = mapped_column(info={"private": True})
    owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey("edge_owners.id"))
    owner: Mapped[Owner | None] = relationship(back_populates="pets")

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - as SQLAlchemy documents it


class Dog(Animal):
    __tablename__ = "edge_dogs"

    id: Mapped[int] = mapped_column(sa.ForeignKey("edge_animals.id"), primary_key=True)
    tricks: Mapped[int | None]

    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - as SQLAlchemy documents it


class Camel(BaseModel):
    model_config = ConfigDict(from_attributes=True, alias_generator=to_camel, populate_by_name=True)

    id: int
    owner_id: int | None
    called: str = Field(validation_alias="name")


class CamelOwner(BaseModel):
    """A schema whose fields are read by their aliases alone, which are names of no attributes."""

    model_config = ConfigDict(from_attributes=True, alias_generator=to_camel)

    name: str


class AnimalOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str


class OwnerOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    pets: list[AnimalOut]

    @computed_field(alias="LOUD")  # type: ignore[prop-decorator]  # as Pydantic documents it
    @property
    def loud(self) -> str:
        return self.name.upper()


class Serialized(OwnerOut):
    @model_serializer
    def all(self) -> dict[str, Any]:
        return {"id": self.id}


class ComputedPets(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int

    @computed_field  # type: ignore[prop-decorator]  # as Pydantic documents it
    @property
    def pets(self) -> int:
        return 1


class Loose(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    pets: Any


class Names(RootModel[list[str]]):
    """A schema without fields."""


@dataclasses.dataclass
class Plain:
    id: int


class Typed(TypedDict):
    id: int


class Rooms(AsyncTenantRepository[Room]):
    """A repository of the user's, whose methods change the entities that they return."""

    async def get_by_id(self, *args: Any, **options: Any) -> Any:
        room: Any = await super().get_by_id(*args, **options)
        return self.changed(room)

    async def list_paginated(self, options: Any = None) -> Any:
        page = await super().list_paginated(options)
        for room in page.items:
            self.changed(room)
        return page

    def changed(self, room: Room) -> Room:
        set_committed_value(room, "name", f"the {room.name}")
        return room


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def rows(database: Database) -> None:
    """Rooms, desks, owners and animals of two tenants."""
    tables = Base.metadata.tables
    with database.engine.begin() as connection:
        for org, first in (("a", 0), ("b", 100)):
            rooms = [{"org": org, "number": n, "name": f"room {n}", "version": 3} for n in (1, 2)]
            connection.execute(sa.insert(tables["edge_rooms"]), rooms)
            desks = [{"org": org, "label": each, "room_number": 1, "fields": f"{org}{each}"} for each in ("x", "y")]
            connection.execute(sa.insert(tables["edge_desks"]), desks)
            owner = {"id": first + 1, "tenant_id": org, "name": "Ann"}
            connection.execute(sa.insert(tables["edge_owners"]), [owner])
            common = {"tenant_id": org, "owner_id": first + 1}
            pets = [{**common, "id": first + n, "kind": kind, "name": kind} for n, kind in ((1, "animal"), (2, "dog"))]
            connection.execute(sa.insert(tables["edge_animals"]), pets)
            connection.execute(sa.insert(tables["edge_dogs"]), [{"id": first + 2, "tricks": 5}])


ROOM, DESKS = {"number": 1, "name": "room 1", "version": 3}, [{"label": "x"}, {"label": "y"}]
ANIMAL = {"id": 1, "kind": "animal", "name": "animal", "owner_id": 1}
DOG = {"id": 2, "kind": "dog", "name": "dog", "owner_id": 1}
ANN = {"id": 1, "name": "Ann"}

CASES: dict[str, tuple[Any, str, Any]] = {
    "a composite key": (lambda: crud_router(Room, "/rows", fields=["name"]), "rows/1?fields=name", {"name": "room 1"}),
    "a keyed collection": (
        lambda: crud_router(Room, "/rows", include=["desks"]),
        "rows/1?include=desks",
        {**ROOM, "desks": [{"label": each, "room_number": 1, "fields": f"a{each}"} for each in "xy"]},
    ),
    "a way back": (
        lambda: list_router(Desk, "/rows", fields=["label"], include=["room.desks"]),
        "rows?fields=label&include=room.desks&fields__eq=ax",
        [
            {
                "label": "x",
                "room": {**ROOM, "desks": [{"label": each, "room_number": 1, "fields": f"a{each}"} for each in "xy"]},
            }
        ],
    ),
    "a composite way": (
        lambda: list_router(Desk, "/rows", include=["room"]),
        "rows?include=room&sort=-label",
        [{"label": each, "room_number": 1, "fields": f"a{each}", "room": ROOM} for each in "yx"],
    ),
    "a repository of the user's": (
        lambda: crud_router(Room, "/rows", repository=Rooms, fields=["name", "version"]),
        "rows/1?fields=name",
        {"name": "the room 1"},
    ),
    "its list": (
        lambda: crud_router(Room, "/rows", repository=Rooms, fields=["name", "version"]),
        "rows?fields=name",
        [{"name": "the room 1"}, {"name": "the room 2"}],
    ),
    "a subclass": (
        lambda: crud_router(Dog, "/rows", fields=["tricks", "name"], include=["owner"]),
        "rows/2?fields=tricks&include=owner",
        {"tricks": 5, "owner": ANN},
    ),
    "its own columns": (
        lambda: list_router(Dog, "/rows", fields=["tricks", "name"], include=["owner"]),
        "rows?fields=tricks,name",
        [{"tricks": 5, "name": "dog"}],
    ),
    "rows of subclasses": (
        lambda: list_router(Owner, "/rows", include=["pets.owner"]),
        "rows?include=pets.owner",
        [{**ANN, "pets": [{**ANIMAL, "owner": ANN}, {**DOG, "owner": ANN}]}],
    ),
    "aliases": (
        lambda: list_router(Animal, "/rows", read_schema=Camel, fields=["ownerId", "name"], include=["owner"]),
        "rows?fields=ownerId,name",
        [{"ownerId": 1, "called": "animal"}, {"ownerId": 1, "called": "dog"}],
    ),
    "aliases and a relationship": (
        lambda: crud_router(Animal, "/rows", read_schema=Camel, fields=["ownerId", "called"], include=["owner"]),
        "rows/1?fields=ownerId&include=owner",
        {"ownerId": 1, "owner": ANN},
    ),
    "a generated alias": (
        lambda: list_router(Owner, "/rows", read_schema=CamelOwner, include=["loved_pets"]),
        "rows?include=loved_pets",
        [{"name": "Ann", "lovedPets": [ANIMAL, DOG]}],
    ),
    "a computed field": (
        lambda: list_router(Owner, "/rows", read_schema=OwnerOut, fields=["LOUD", "id"], include=["pets.owner"]),
        "rows?fields=LOUD",
        [{"LOUD": "ANN"}],
    ),
    "a schema below": (
        lambda: list_router(Owner, "/rows", read_schema=OwnerOut, fields=["loud", "id"], include=["pets.owner"]),
        "rows?fields=id&include=pets.owner",
        [{"id": 1, "pets": [{"name": "animal", "owner": ANN}, {"name": "dog", "owner": ANN}]}],
    ),
    "a schema below, without what is below it": (
        lambda: list_router(Owner, "/rows", read_schema=OwnerOut, include=["pets.owner"]),
        "rows?include=pets&limit=5",
        [{**ANN, "LOUD": "ANN", "pets": [{"name": "animal"}, {"name": "dog"}]}],
    ),
    "a relationship among the fields": (
        lambda: list_router(Owner, "/rows", read_schema=OwnerOut, fields=["id", "pets"]),
        "rows?fields=pets",
        [{"pets": [{"name": "animal"}, {"name": "dog"}]}],
    ),
    "nothing selected": (
        lambda: list_router(Owner, "/rows", fields=["id"], include=["pets"]),
        "rows?fields=&include=",
        [ANN],
    ),
}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("case", CASES)
def test_an_unusual_class_or_schema(app: FastAPI, api: Api, case: str) -> None:
    router, path, expected = CASES[case]
    app.include_router(router())
    answer = api.get(f"/{path}", tenant="a")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["items"] if isinstance(expected, list) else answer.json()) == expected


@pytest.mark.usefixtures("rows")
def test_a_class_whose_loading_is_listened_to(app: FastAPI, api: Api) -> None:
    seen: list[object] = []

    def listener(target: object, _context: object) -> None:
        seen.append(target)

    app.include_router(crud_router(Owner, "/rows", fields=["name"]))
    event.listen(Owner, "load", listener)
    try:
        assert api.get("/rows?fields=name", tenant="a").json()["items"] == [{"name": "Ann"}]
        assert api.get("/rows/1?fields=name", tenant="a").json() == {"name": "Ann"}
    finally:
        event.remove(Owner, "load", listener)
    assert len(seen) == 2


REFUSED: dict[str, tuple[str, str, str]] = {
    "an unknown field": ("fields=nmae", "fields", "no field 'nmae' that can be selected; did you mean 'name'?"),
    "a field that is not allowed": ("fields=owner_id", "fields", "no field 'owner_id' that can be selected; choose"),
    "a private one": ("fields=secret", "fields", "no field 'secret' that can be selected; choose id, name."),
    "the tenant": ("fields=name,tenant_id", "fields", "no field 'tenant_id'"),
    "a relationship": (
        "include=onwer",
        "include",
        "no relationship 'onwer' that can be included; did you mean",
    ),
    "one below": ("include=owner.pets", "include", "no relationship 'owner.pets' that can be included"),
    "the parameter": ("field=name", "field", "no query parameter 'field'; did you mean 'fields'?"),
}


@pytest.mark.parametrize("path", ["/rows", "/rows/1"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_allowed_is_named(app: FastAPI, api: Api, path: str, case: str) -> None:
    query, name, message = REFUSED[case]
    app.include_router(crud_router(Animal, "/rows", fields=["id", "name"], include=["owner"]))
    answer = api.get(f"{path}?{query}", tenant="a")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["loc"] == ["query", name]
    assert message in error["msg"]


@pytest.mark.parametrize("path", ["/rows", "/rows/1"])
def test_all_errors_are_reported_together(app: FastAPI, api: Api, path: str) -> None:
    app.include_router(crud_router(Animal, "/rows", fields=["id", "name"], include=["owner"]))
    answer = api.get(f"{path}?fields=x,y&include=z&fields={'l' * 9000}", tenant="a")
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 4)
    assert len(answer.content) < 2000
    app.include_router(crud_router(Animal, "/others", include=["owner"]))
    answer = api.get(f"{path.replace('rows', 'others')}?fields=id", tenant="a")
    assert "no query parameter 'fields'" in answer.json()["errors"][0]["msg"]


WRONG: dict[str, tuple[type, dict[str, Any], str]] = {
    "an unknown field": (Animal, {"fields": ["id", "nmae"]}, "AnimalRead has no field 'nmae'; did you mean 'name'?"),
    "a private one": (Animal, {"fields": ["secret"]}, "Animal.secret is private: a client can't select it"),
    "the tenant": (Animal, {"fields": ["tenant_id"]}, "AnimalRead has no field 'tenant_id'"),
    "one that the schema has not": (Animal, {"fields": ["kind"], "read_schema": Camel}, "Camel has no field 'kind'"),
    "a relationship": (Animal, {"include": ["onwer"]}, "Animal has no relationship 'onwer'; did you mean 'owner'?"),
    "one below": (
        Animal,
        {"include": ["owner.name"]},
        "Owner has no relationship 'name'; it has hidden, loved_pets, pets",
    ),
    "a column": (Animal, {"include": ["name"]}, "Animal has no relationship 'name'"),
    "a private relationship": (Owner, {"include": ["hidden"]}, "Owner.hidden is private: a client can't include it"),
    "an inner one": (Owner, {"include": ["_inner"]}, "Owner._inner is private"),
    "a dynamic one": (Owner, {"include": ["watched"]}, "Owner.watched is a dynamic relationship"),
    "a dataclass": (Owner, {"fields": ["id"], "read_schema": Plain}, "Plain can't be narrowed"),
    "a dict": (Owner, {"include": ["pets"], "read_schema": Typed}, "Typed can't be narrowed"),
    "a root model": (Owner, {"fields": ["id"], "read_schema": Names}, "Names can't be narrowed"),
    "a model serializer": (Owner, {"fields": ["id"], "read_schema": Serialized}, "Serialized has a model_serializer"),
    "a name that is taken": (
        Owner,
        {"include": ["pets"], "read_schema": ComputedPets},
        "ComputedPets computes",
    ),
    "nothing to add to": (
        Owner,
        {"include": ["pets.owner"], "read_schema": Loose},
        "Loose.pets has no Pydantic class to which 'owner' could be added",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("router", [list_router, crud_router])
def test_a_wrong_option_is_refused_when_the_router_is_made(router: Any, case: str) -> None:
    model, options, message = WRONG[case]
    with pytest.raises(ValidationError, match=re.escape(message)):
        router(model, "/rows", **options)


def test_a_mapped_class_is_no_schema_that_can_be_narrowed() -> None:
    sqlmodel = pytest.importorskip("sqlmodel")

    class Mapped(sqlmodel.SQLModel, table=True):  # type: ignore[name-defined,misc]  # it may not be there
        __tablename__ = "edge_mapped"
        metadata = sa.MetaData()
        id: int | None = sqlmodel.Field(default=None, primary_key=True)

    with pytest.raises(ValidationError, match="Mapped can't be narrowed"):
        crud_router(Mapped, "/rows", read_schema=Mapped, fields=["id"])


def test_variants_are_bounded() -> None:
    """A client can ask for any combination of relationships."""
    params = ListParams(Owner, ListOptions(read_schema=OwnerOut, fields=["id"], include=["pets.owner"]))
    assert params.selection is not None
    renderers = SelectionRenderers(Owner, OwnerOut, params.selection)
    for include in ((), ("pets",), ("pets", "pets.owner")):
        for _ in range(2):
            renderers.of(Selection(("id",), include))
            renderers.of(Selection((), include))
    assert renderers.variant.cache_info().currsize == 3
    assert renderers.variant.cache_info().maxsize == MAX_VARIANTS


@pytest.mark.usefixtures("rows")
def test_equal_selections_send_equal_statements(app: FastAPI, api: Api, plugin: Any) -> None:
    """Whatever the order of the names, so that a client can't fill the caches of statements with permutations."""
    app.include_router(crud_router(Animal, "/rows", fields=["id", "name", "kind"]))
    with counted(plugin.database.async_engine.sync_engine) as sent:
        for query in ("id,name", "name,id", "name&fields=id", "id,id,name", " name , id "):
            assert api.get(f"/rows?fields={query}", tenant="a").status_code == 200
    assert len({each for each in sent if "edge_animals" in each}) == 1


@pytest.mark.parametrize("schema", [None, Camel])
def test_a_thousand_rows_send_as_many_statements_as_one(
    app: FastAPI, api: Api, plugin: Any, database: Database, schema: Any
) -> None:
    tables = Base.metadata.tables
    with database.engine.begin() as connection:
        owners = [{"id": n, "tenant_id": "a", "name": f"owner {n}"} for n in range(1, 1001)]
        connection.execute(sa.insert(tables["edge_owners"]), owners)
        connection.execute(
            sa.insert(tables["edge_animals"]),
            [{"id": n, "tenant_id": "a", "kind": "animal", "name": "x", "owner_id": n} for n in range(1, 1001)],
        )
    include = ["owner.pets"]
    app.include_router(list_router(Animal, "/rows", read_schema=schema, include=include, max_page_size=1000))
    numbers = []
    for limit in (1, 1000):
        with counted(plugin.database.async_engine.sync_engine) as sent:
            answer = api.get(f"/rows?limit={limit}&include=owner.pets", tenant="a")
        assert [row["owner"]["pets"][0]["id"] for row in answer.json()["items"]] == list(range(1, limit + 1))
        numbers.append(len([each for each in sent if each.startswith("SELECT")]))
    assert numbers[0] == numbers[1] == 3


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("query", ["", "include=pets", "fields=name&include=pets"])
def test_a_value_that_does_not_fit_its_column(app: FastAPI, api: Api, database: Database, query: str) -> None:
    """SQLite stores longer texts than a class declares. They are in the response, as in a plain list."""
    if database.engine.dialect.name != "sqlite":
        return
    with database.engine.begin() as connection:
        connection.execute(sa.update(Base.metadata.tables["edge_animals"]).values(name="longer than nine"))
    app.include_router(crud_router(Owner, "/rows", fields=["name"], include=["pets"]))
    for path in ("/rows", "/rows/1"):
        answer = api.get(f"{path}?{query}", tenant="a")
        assert answer.status_code == 200
        assert ("longer than nine" in answer.text) is ("pets" in query)
