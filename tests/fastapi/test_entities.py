"""`get_entity`: the row that the path names, on the request's session."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import (
    ALL_TENANTS,
    AsyncTenantRepository,
    Database,
    SoftDeleteMixin,
    TenantMixin,
    ValidationError,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    get_entity,
    get_repository,
    get_session,
    register_exception_handlers,
)
from tests.conftest import counted
from tests.fastapi.conftest import Api, inlined


class Base(DeclarativeBase):
    """The tables of this module."""


class Owner(TenantMixin, Base):
    __tablename__ = "entity_owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Thing(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "entity_things"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey(Owner.id))
    owner: Mapped[Owner | None] = relationship()


class Seat(TenantMixin, Base):
    """The tenant is part of the key."""

    __tablename__ = "entity_seats"

    tenant_id: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    row: Mapped[str] = mapped_column(sa.String(2), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


class Country(Base):
    """A class without a tenant."""

    __tablename__ = "entity_countries"

    code: Mapped[str] = mapped_column(sa.String(2), primary_key=True)


class Things(AsyncTenantRepository[Thing]):
    def conditions(self) -> list[Any]:
        return [Thing.name != "hidden"]


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def keys(database: Database) -> dict[str, UUID]:
    """The keys of things of two tenants: one, deleted and hidden of "a", other of "b"."""
    keys = {name: uuid4() for name in ("one", "deleted", "hidden", "other")}
    with database.sessions.begin() as session:
        session.add_all([Owner(id=1, tenant_id="a", name="owner"), Country(code="is")])
        session.add_all([Seat(tenant_id=tenant, row="A", number=number) for tenant, number in (("a", 1), ("b", 2))])
        session.flush()
        for name, key in keys.items():
            tenant = "b" if name == "other" else "a"
            owner = 1 if tenant == "a" else None
            session.add(Thing(id=key, tenant_id=tenant, name=name, is_deleted=name == "deleted", owner_id=owner))
    return keys


@pytest.mark.parametrize(("target", "hidden"), [(Thing, 200), (Things, 404)])
@pytest.mark.parametrize("lock", [False, True])
def test_only_a_row_of_the_tenant(
    app: FastAPI, api: Api, keys: dict[str, UUID], target: Any, hidden: int, lock: bool
) -> None:
    @app.get("/things/{thing_id}")
    async def read(thing: Thing = Depends(get_entity(target, "thing_id", lock=lock))) -> str:
        return thing.name

    expected = {
        keys["one"]: 200,
        keys["deleted"]: 404,
        keys["hidden"]: hidden,
        keys["other"]: 404,
        uuid4(): 404,
        "x": 422,
    }
    statuses = {key: api.get(f"/things/{key}", tenant="a").status_code for key in expected}
    assert statuses == expected
    assert api.get(f"/things/{keys['other']}", tenant="b").json() == "other"
    assert api.get(f"/things/{keys['one']}").status_code == 400  # no tenant


@pytest.mark.parametrize("target", [Thing, Things])
@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize("loaded", [(), ("owner",)])
@pytest.mark.parametrize("guarded", [True, False])
def test_forbidden_is_told_from_missing(
    app: FastAPI,
    api: Api,
    keys: dict[str, UUID],
    plugin: DatabasePlugin,
    database: Database,
    target: Any,
    lock: bool,
    loaded: tuple[str, ...],
    guarded: bool,
) -> None:
    get = get_entity(target, "thing_id", lock=lock, relationships=loaded, forbidden=403)

    @app.get("/things/{thing_id}")
    async def read(thing: Thing = Depends(get), session: Any = Depends(get_session)) -> list[str]:
        return sorted(each.tenant_id for each in session.identity_map.values())

    if not guarded:
        app.dependency_overrides[get_session] = lambda: plugin_session

    expected = {"one": 200, "deleted": 404, "hidden": 404 if target is Things else 200, "other": 403, "none": 404}
    for name, status in expected.items():
        with counted(plugin.database.async_engine.sync_engine) as sent:
            plugin_session = async_sessionmaker(plugin.database.async_engine)()
            answer = api.get(f"/things/{keys.get(name, uuid4())}", tenant="a")
            api.run(plugin_session.close())
        assert answer.status_code == status, name
        if status == 200:
            assert set(answer.json()) == {"a"}
            assert len([each for each in sent if "SELECT" in each]) <= 1 + len(loaded)
        else:
            assert answer.json()["code"] == {403: "tenant_isolation", 404: "not_found"}[status]


def test_forbidden_for_all_tenants_and_where_it_has_no_meaning(
    app: FastAPI, make_plugin: Any, runner: asyncio.Runner, keys: dict[str, UUID]
) -> None:
    for target in (Seat, Country):
        with pytest.raises(ValidationError, match="forbidden"):
            get_entity(target, "code" if target is Country else ("row", "number"), forbidden=403)
    plugin = make_plugin(tenant=lambda: ALL_TENANTS, name="all")
    all_tenants = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(all_tenants)

    @all_tenants.get("/things/{id}")
    async def read(thing: Thing = Depends(get_entity(Thing, forbidden=403))) -> str:
        return thing.tenant_id

    api = Api(all_tenants, runner)
    assert [api.get(f"/things/{keys[name]}").json() for name in ("one", "other")] == ["a", "b"]
    assert api.get(f"/things/{uuid4()}").status_code == 404


def test_a_composite_key_and_a_class_without_a_tenant(app: FastAPI, api: Api, keys: dict[str, UUID]) -> None:
    @app.get("/seats/{line}/{number}")
    async def seat(seat: Seat = Depends(get_entity(Seat, ("line", "number")))) -> str:
        return seat.tenant_id

    @app.get("/countries/{id}")
    async def country(country: Country = Depends(get_entity(Country))) -> str:
        return country.code

    assert api.get("/seats/A/1", tenant="a").json() == "a"
    assert api.get("/seats/A/2", tenant="a").status_code == 404
    assert api.get("/seats/A/2", tenant="b").json() == "b"
    assert api.get("/countries/is").json() == "is"
    parameters = inlined(app.openapi())["paths"]["/seats/{line}/{number}"]["get"]["parameters"]
    assert [(each["name"], each["schema"]["type"]) for each in parameters if each["in"] == "path"] == [
        ("line", "string"),
        ("number", "integer"),
    ]


@pytest.mark.parametrize("param", ["id", ("a", "b", "c"), ()])
def test_another_number_of_parameters_is_refused(param: Any) -> None:
    with pytest.raises(ValidationError, match="row, number"):
        get_entity(Seat, param)


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize("flush", [False, True])
def test_a_change_of_the_row_is_committed_with_the_request(
    app: FastAPI, api: Api, keys: dict[str, UUID], database: Database, flush: bool, lock: bool
) -> None:
    @app.post("/things/{id}/name")
    async def rename(
        name: str, thing: Thing = Depends(get_entity(Thing, lock=lock)), session: Any = Depends(get_session)
    ) -> None:
        thing.name = name
        if flush:
            await session.flush()

    assert api.post(f"/things/{keys['one']}/name?name=new", tenant="a").status_code == 200
    with database.sessions() as session:
        assert session.get_one(Thing, keys["one"]).name == "new"


def test_relationships_come_with_the_row(app: FastAPI, api: Api, plugin: DatabasePlugin, keys: dict[str, UUID]) -> None:
    @app.get("/things/{id}")
    async def read(thing: Thing = Depends(get_entity(Thing, relationships=["owner"]))) -> str | None:
        return thing.owner and thing.owner.name

    with counted(plugin.database.async_engine.sync_engine) as sent:
        assert api.get(f"/things/{keys['one']}", tenant="a").json() == "owner"
    assert len([each for each in sent if each.startswith("SELECT")]) == 2


def test_a_locked_row_waits_for_the_request_before(
    app: FastAPI, api: Api, keys: dict[str, UUID], database: Database
) -> None:
    """Each request reads the number that the one before has written."""
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite locks the whole database")

    @app.post("/things/{id}/count")
    async def count(
        thing: Thing = Depends(get_entity(Thing, lock=True)), things: Any = Depends(get_repository(Thing))
    ) -> None:
        number = 0 if thing.name == "one" else int(thing.name)
        await asyncio.sleep(0.01)
        await things.update(thing.id, {"name": str(number + 1)})

    async def all_at_once() -> list[int]:
        path = f"/things/{keys['one']}/count"
        answers = await asyncio.gather(*(api.arequest("POST", path, tenant="a") for _ in range(8)))
        return [each.status_code for each in answers]

    assert api.run(all_at_once()) == [200] * 8
    with database.sessions() as session:
        assert session.get_one(Thing, keys["one"]).name == "8"


def test_the_same_arguments_are_the_same_dependency(app: FastAPI, api: Api, plugin: DatabasePlugin) -> None:
    assert get_entity(Thing) is get_entity(Thing, "id")
    assert get_entity(Thing) is not get_entity(Thing, lock=True)
    assert plugin.get_entity(Thing) is plugin.get_entity(Thing)

    @app.get("/things/{id}")
    async def read(thing: Thing = Depends(plugin.get_entity(Thing))) -> str:
        return thing.name

    app.dependency_overrides[plugin.get_entity(Thing)] = lambda: Thing(name="another")
    assert api.get("/things/1").json() == "another"
