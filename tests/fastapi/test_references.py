"""Foreign keys of written rows, for each way in which a table can be a tenant's and a key can name its rows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, MetaData, String, Table, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column, synonym

from dotmac_database import (
    ALL_TENANTS,
    AsyncTenantRepository,
    Database,
    SoftDeleteMixin,
    TenantMixin,
    tenant_foreign_key,
    tenant_references,
    tenant_unique,
)
from dotmac_database_fastapi import register_exception_handlers
from tests.fastapi.conftest import Api, MakePlugin
from tests.fastapi.shared_routers import crud_router

METADATA = MetaData()


class Base(DeclarativeBase):
    metadata = METADATA


class OtherBase(DeclarativeBase):
    """Another registry, on the same tables."""

    metadata = METADATA


class Plain(SoftDeleteMixin, TenantMixin, Base):
    __tablename__ = "plains"
    __table_args__ = (tenant_unique("id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("plains.id"))


class Elsewhere(TenantMixin, OtherBase):
    __tablename__ = "elsewheres"
    id: Mapped[int] = mapped_column(primary_key=True)


unmapped = Table("unmapped", METADATA, Column("id", Integer, primary_key=True), Column("tenant_id", String(50)))
by_org = Table("by_org", METADATA, Column("id", Integer, primary_key=True), Column("org", String(50)))


class Animal(SoftDeleteMixin, TenantMixin, Base):
    __tablename__ = "ref_animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="animal")
    keeper_id: Mapped[int | None] = mapped_column(ForeignKey("plains.id"))


class Dog(Animal):
    __tablename__ = "ref_dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("ref_animals.id"), primary_key=True)
    friend_id: Mapped[int | None] = mapped_column(ForeignKey("ref_dogs.id"))


class Spot(TenantMixin, Base):
    """Named by two columns, of which neither is the tenant's."""

    __tablename__ = "spots"
    __table_args__ = (UniqueConstraint("aisle", "shelf"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    aisle: Mapped[int]
    shelf: Mapped[int]


class Item(TenantMixin, Base):
    __tablename__ = "ref_items"
    __table_args__ = (
        ForeignKeyConstraint(["aisle", "shelf"], ["spots.aisle", "spots.shelf"]),
        ForeignKeyConstraint(["full_aisle", "full_shelf"], ["spots.aisle", "spots.shelf"], match="FULL"),
        tenant_foreign_key("within_id", "plains.id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    plain_id: Mapped[int | None] = mapped_column(ForeignKey("plains.id"))
    elsewhere_id: Mapped[int | None] = mapped_column(ForeignKey("elsewheres.id"))
    unmapped_id: Mapped[int | None] = mapped_column(ForeignKey("unmapped.id"))
    dog_id: Mapped[int | None] = mapped_column(ForeignKey("ref_dogs.id"))
    within_id: Mapped[int | None]
    renamed: Mapped[int | None] = mapped_column("renamed_id", ForeignKey("plains.id"))
    alias = synonym("renamed")
    aisle: Mapped[int | None]
    shelf: Mapped[int | None]
    full_aisle: Mapped[int | None]
    full_shelf: Mapped[int | None]


class LateItem(TenantMixin, Base):
    __tablename__ = "late_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    late_id: Mapped[int | None] = deferred(mapped_column(ForeignKey("plains.id")))


class OrgItem(Base):
    __tablename__ = "org_items"
    __tenant_column__ = "org"
    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[str] = mapped_column(String(50))
    by_org_id: Mapped[int | None] = mapped_column(ForeignKey("by_org.id"))


class Common(Base):
    """Of no tenant, and names a tenant's row."""

    __tablename__ = "commons"
    id: Mapped[int] = mapped_column(primary_key=True)
    plain_id: Mapped[int | None] = mapped_column(ForeignKey("plains.id"))


class DefaultItem(TenantMixin, Base):
    __tablename__ = "default_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    plain_id: Mapped[int | None] = mapped_column(ForeignKey("plains.id"), default=2)
    note: Mapped[str | None]


class HookedItem(TenantMixin, Base):
    __tablename__ = "hooked_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    plain_id: Mapped[int | None] = mapped_column(ForeignKey("plains.id"))
    note: Mapped[str | None]


class HookedRepository(AsyncTenantRepository[HookedItem]):
    def values_for_create(self, values: Any) -> Any:
        return {**values, "plain_id": 2 if values.get("note") == "foreign" else 1}

    values_for_update = values_for_create


class Seen(BaseModel):
    id: int


class AliasedItem(BaseModel):
    alias: int | None = None


A, B, UNKNOWN = 1, 2, 99
"""The rows of tenant a and of tenant b in every table, and one that is not there."""


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return METADATA


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    app = shared_api.app
    for model, prefix in (
        (Item, "/items"),
        (Plain, "/plains"),
        (Dog, "/dogs"),
        (OrgItem, "/org-items"),
        (Common, "/commons"),
        (DefaultItem, "/defaults"),
    ):
        app.include_router(crud_router(model, prefix=prefix))
    app.include_router(crud_router(HookedItem, prefix="/hooked", repository=HookedRepository))
    app.include_router(crud_router(LateItem, prefix="/late", read_schema=Seen))
    app.include_router(crud_router(Item, "/aliased", AliasedItem, AliasedItem))
    return shared_api


@pytest.fixture
def api(served: Api, database: Database, emptied: None) -> Api:
    fill(database)
    return served


def fill(database: Database) -> None:
    with database.engine.begin() as connection:
        for key, tenant in ((A, "a"), (B, "b")):
            own = {"id": key, "tenant_id": tenant}
            connection.execute(Plain.__table__.insert(), {**own, "is_deleted": False})
            connection.execute(Elsewhere.__table__.insert(), own)
            connection.execute(unmapped.insert(), own)
            connection.execute(by_org.insert(), {"id": key, "org": tenant})
            connection.execute(Animal.__table__.insert(), {**own, "kind": "dog", "is_deleted": False})
            connection.execute(Dog.__table__.insert(), {"id": key})
            connection.execute(Spot.__table__.insert(), {**own, "aisle": key, "shelf": key})
        # Two whose halves belong to different tenants.
        connection.execute(Spot.__table__.insert(), {"id": 3, "tenant_id": "b", "aisle": A, "shelf": B})
        connection.execute(Spot.__table__.insert(), {"id": 4, "tenant_id": "b", "aisle": B, "shelf": A})
        if connection.dialect.name == "postgresql":
            for name in ("plains", "ref_animals"):
                connection.exec_driver_sql(f"ALTER SEQUENCE {name}_id_seq RESTART WITH 1000")


KEYS = [
    ("/items", "plain_id"),
    ("/items", "elsewhere_id"),
    ("/items", "unmapped_id"),
    ("/items", "dog_id"),
    ("/items", "within_id"),
    ("/late", "late_id"),
    ("/items", "renamed"),
    ("/aliased", "alias"),
    ("/plains", "parent_id"),
    ("/dogs", "friend_id"),
    ("/dogs", "keeper_id"),
    ("/org-items", "by_org_id"),
    ("/commons", "plain_id"),
]


def made(api: Api, path: str, **data: Any) -> str:
    answer = api.post(path, tenant="a", json=data)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


class TestOneColumn:
    @pytest.mark.parametrize(("path", "field"), KEYS)
    def test_unknown_and_foreign_are_the_same_conflict(self, api: Api, path: str, field: str) -> None:
        row = made(api, path)
        for method, target in (("POST", path), ("PATCH", row)):
            answers = [api.request(method, target, tenant="a", json={field: key}) for key in (B, UNKNOWN)]
            assert [answer.status_code for answer in answers] == [409, 409], answers[0].text
            assert answers[0].content == answers[1].content
            assert answers[0].headers == answers[1].headers
            assert answers[0].json()["code"] == "constraint"

    @pytest.mark.parametrize(("path", "field"), KEYS)
    def test_ones_own_and_nothing_are_written(self, api: Api, path: str, field: str) -> None:
        row = made(api, path, **{field: A})
        answer = api.patch(row, tenant="a", json={field: None})
        assert answer.status_code == 200, answer.text
        assert api.patch(row, tenant="a", json={field: A}).status_code == 200

    @pytest.mark.parametrize(("path", "field"), [("/items", "plain_id"), ("/items", "dog_id")])
    def test_a_deleted_row_is_no_row(self, api: Api, database: Database, path: str, field: str) -> None:
        with database.engine.begin() as connection:
            connection.execute(Plain.__table__.update().where(Plain.id == A).values(is_deleted=True))
            connection.execute(Animal.__table__.update().where(Animal.id == A).values(is_deleted=True))
        assert api.post(path, tenant="a", json={field: A}).status_code == 409


class TestHalves:
    @pytest.mark.parametrize("half", ["aisle", "shelf"])
    def test_a_half_is_completed_from_the_row(self, api: Api, half: str) -> None:
        """(1, 2) and (2, 1) are tenant b's, (1, 99) is nobody's."""
        row = made(api, "/items", aisle=A, shelf=A)
        answers = [api.patch(row, tenant="a", json={half: value}) for value in (B, UNKNOWN)]
        assert [answer.status_code for answer in answers] == [409, 409]
        assert answers[0].content == answers[1].content
        found = api.get(row, tenant="a").json()
        assert (found["aisle"], found["shelf"]) == (A, A)
        assert api.patch(row, tenant="a", json={half: A}).status_code == 200

    @pytest.mark.parametrize(("aisle", "shelf"), [(B, B), (A, B), (UNKNOWN, UNKNOWN), (A, UNKNOWN)])
    def test_a_whole_is_checked(self, api: Api, aisle: int, shelf: int) -> None:
        assert api.post("/items", tenant="a", json={"aisle": aisle, "shelf": shelf}).status_code == 409

    def test_half_a_key_refers_to_nothing_until_the_other_half_comes(self, api: Api) -> None:
        """MATCH SIMPLE."""
        row = made(api, "/items", aisle=B)
        assert api.patch(row, tenant="a", json={"shelf": B}).status_code == 409
        assert api.patch(row, tenant="a", json={"shelf": UNKNOWN}).status_code == 409
        assert api.patch(row, tenant="a", json={"aisle": A, "shelf": A}).status_code == 200
        assert api.patch(row, tenant="a", json={"shelf": None}).status_code == 200

    def test_half_of_a_match_full_key_is_refused(self, api: Api) -> None:
        row = made(api, "/items", full_aisle=A, full_shelf=A)
        for key in (A, B, UNKNOWN):
            assert api.post("/items", tenant="a", json={"full_aisle": key}).status_code == 409
        assert api.patch(row, tenant="a", json={"full_shelf": None}).status_code == 409
        assert api.patch(row, tenant="a", json={"full_aisle": None, "full_shelf": None}).status_code == 200

    def test_two_that_change_one_half_each_make_no_whole_that_nobody_checked(self, api: Api) -> None:
        """(2, 2) is tenant b's; a's row begins as (NULL, NULL), so each half alone refers to nothing."""
        row = made(api, "/items")

        async def race() -> list[int]:
            answers = await asyncio.gather(
                api.arequest("PATCH", row, tenant="a", json={"aisle": B}),
                api.arequest("PATCH", row, tenant="a", json={"shelf": B}),
            )
            return sorted(answer.status_code for answer in answers)

        assert api.run(race())[0] == 200
        found = api.get(row, tenant="a").json()
        assert (found["aisle"], found["shelf"]) != (B, B)

    def test_a_half_of_a_row_that_is_not_there(self, api: Api) -> None:
        assert api.patch("/items/999", tenant="a", json={"shelf": B}).status_code == 404


class TestValuesOfOthers:
    """What a default or a hook writes is looked at in the row."""

    def test_a_default_that_names_a_foreign_row_is_refused(self, api: Api, database: Database) -> None:
        assert api.post("/defaults", tenant="a", json={}).status_code == 409
        assert api.get("/defaults", tenant="a").json()["total"] == 0
        assert api.post("/defaults", tenant="b", json={}).status_code == 201
        assert api.post("/defaults", tenant="a", json={"plain_id": A}).status_code == 201

    def test_a_hook_that_names_a_foreign_row_is_refused(self, api: Api) -> None:
        assert api.post("/hooked", tenant="a", json={"note": "foreign"}).status_code == 409
        row = made(api, "/hooked", note="own")
        assert api.patch(row, tenant="a", json={"note": "foreign"}).status_code == 409
        assert api.get(row, tenant="a").json()["note"] == "own"


class TestAcrossTenants:
    def test_all_tenants_must_name_the_rows_own(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database
    ) -> None:
        class NewItem(BaseModel):
            tenant_id: str
            plain_id: int | None = None

        app = FastAPI(lifespan=make_plugin(tenant=lambda: ALL_TENANTS).lifespan)
        register_exception_handlers(app)
        app.include_router(crud_router(Item, "/items", NewItem))
        fill(database)
        api = Api(app, runner)
        assert api.post("/items", json={"tenant_id": "a", "plain_id": A}).status_code == 201
        assert api.post("/items", json={"tenant_id": "a", "plain_id": B}).status_code == 409
        row = api.post("/items", json={"tenant_id": "b", "plain_id": B})
        assert row.status_code == 201
        assert api.patch(row.headers["location"], json={"plain_id": A}).status_code == 409

    def test_a_row_of_nobody_names_no_tenants_row_without_a_tenant(self, api: Api) -> None:
        assert api.post("/commons", json={"plain_id": A}).status_code == 400
        assert api.post("/commons", json={}).status_code == 201


def test_a_joined_childs_own_key_and_the_tenants_are_no_references() -> None:
    assert {each.fields for each in tenant_references(Dog)} == {("friend_id",), ("keeper_id",)}
    assert ("within_id",) in {each.fields for each in tenant_references(Item)}
