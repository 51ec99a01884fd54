"""``If-None-Match`` (RFC 9110), ``Prefer`` (RFC 7240) and JSON Merge Patch (RFC 7396) for single rows."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import Database, SoftDeleteMixin, TenantMixin, VersionMixin, idempotency_metadata
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.shared_routers import crud_router

pytestmark = pytest.mark.shared_plugin


class Base(DeclarativeBase):
    """The tables of this module."""


class Owner(TenantMixin, Base):
    __tablename__ = "preferring_owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Thing(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "preferring_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    settings: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey(Owner.id))
    owner: Mapped[Owner | None] = relationship()


class Plain(TenantMixin, Base):
    """A class without a version, and so without an ETag."""

    __tablename__ = "preferring_plains"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class OwnerRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str


class ThingWithOwner(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    owner: OwnerRead | None


class ThingComputed(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int

    @computed_field
    def age(self) -> int:
        return 1


class ThingOfColumns(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str | None


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def things(app: FastAPI) -> None:
    app.include_router(crud_router(Thing, prefix="/things"))


TAGS = {
    '"1"': True,
    'W/"1"': True,
    '"7", "1"': True,
    '"7",W/"1" ': True,
    "*": True,
    '"7", *': True,
    '"7"': False,
    '"*"': False,
    "1": False,
    '"1': False,
    "": False,
    '"1" "7"': False,
}


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("condition", TAGS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_get_with_a_tag_that_is_current(api: Api, method: str, condition: str) -> None:
    api.post("/things", tenant="a", json={"name": "one"})
    answer = api.request(method, "/things/1", tenant="a", headers={"If-None-Match": condition})
    assert answer.status_code == (304 if TAGS[condition] else 200)
    assert answer.headers["etag"] == '"1"'
    assert bool(answer.content) == (method == "GET" and not TAGS[condition])


@pytest.mark.usefixtures("things")
def test_each_change_makes_another_tag(api: Api) -> None:
    tag = api.post("/things", tenant="a", json={"name": "one"}).headers["etag"]
    for change in (
        lambda: api.patch("/things/1", tenant="a", json={"name": "two"}),
        lambda: (api.delete("/things/1", tenant="a"), api.post("/things/1/restore", tenant="a"))[1],
    ):
        assert api.get("/things/1", tenant="a", headers={"If-None-Match": tag}).status_code == 304
        new = change().headers["etag"]
        assert api.get("/things/1", tenant="a", headers={"If-None-Match": tag}).status_code == 200
        tag = new


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("condition", ["*", '"1"'])
def test_a_tag_reveals_nothing_of_another_tenants_row(api: Api, condition: str) -> None:
    api.post("/things", tenant="a", json={"name": "one"})
    answer = api.get("/things/1", tenant="b", headers={"If-None-Match": condition})
    assert (answer.status_code, answer.headers.get("etag")) == (404, None)


SCHEMAS = {ThingWithOwner: False, ThingComputed: False, ThingOfColumns: True}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_tag_says_nothing_of_what_is_not_in_the_row(app: FastAPI, api: Api, schema: type) -> None:
    """The row of a related class, or what a schema computes, may have changed."""
    app.include_router(crud_router(Thing, prefix="/things", read_schema=schema))
    tag = api.post("/things", tenant="a", json={"name": "one"}).headers["etag"]
    answer = api.get("/things/1", tenant="a", headers={"If-None-Match": tag})
    assert answer.status_code == (304 if SCHEMAS[schema] else 200)


def test_a_class_without_a_version_has_no_tag(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Plain, prefix="/plains"))
    api.post("/plains", tenant="a", json={"name": "one"})
    answer = api.get("/plains/1", tenant="a", headers={"If-None-Match": "*"})
    assert (answer.status_code, "etag" in answer.headers) == (200, False)


PREFERENCES = {
    "return=minimal": True,
    "respond-async, return=minimal": True,
    'wait=10, Return = "minimal"; foo=bar': True,
    "return=minimal, return=representation": True,
    "return=representation": False,
    "return=representation, return=minimal": False,
    "return": False,
    "minimal": False,
    "x-return=minimal": False,
    "": False,
}


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("preference", PREFERENCES)
def test_a_write_without_a_body(api: Api, preference: str) -> None:
    options: dict[str, Any] = {"tenant": "a", "headers": {"Prefer": preference}}
    minimal = PREFERENCES[preference]
    created = api.post("/things", json={"name": "one"}, **options)
    changed = api.patch("/things/1", json={"name": "two"}, **options)
    api.delete("/things/1", tenant="a")
    restored = api.post("/things/1/restore", **options)
    answers = [created, changed, restored]
    assert [each.status_code for each in answers] == ([201, 204, 204] if minimal else [201, 200, 200])
    assert [each.headers["etag"] for each in answers] == ['"1"', '"2"', '"4"']
    assert created.headers["location"] == "/things/1"
    for answer in answers:
        assert bool(answer.content) != minimal
        assert answer.headers.get("preference-applied") == ("return=minimal" if minimal else None)
    assert api.get("/things/1", tenant="a").json()["name"] == "two"


@pytest.mark.usefixtures("things")
def test_a_problem_has_a_body_in_any_case(api: Api) -> None:
    answer = api.post("/things", tenant="a", json={"name": 1}, headers={"Prefer": "return=minimal"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_repeated_post_gets_the_first_answer_without_a_body(app: FastAPI, api: Api, database: Database) -> None:
    idempotency_metadata.create_all(database.engine)
    app.include_router(crud_router(Thing, prefix="/things", idempotency=True))
    headers = {"Prefer": "return=minimal", "Idempotency-Key": "k"}
    first, again = (api.post("/things", tenant="a", json={"name": "one"}, headers=headers) for _ in range(2))
    assert [each.status_code for each in (first, again)] == [201, 201]
    assert again.content == first.content == b""
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["preference-applied"] == "return=minimal"
    assert len(api.get("/things", tenant="a").json()["items"]) == 1
    idempotency_metadata.drop_all(database.engine)


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json"])
def test_a_patch_knows_null_from_what_is_absent(api: Api, media_type: str) -> None:
    api.post("/things", tenant="a", json={"name": "one", "settings": {"a": 1}})
    headers = {"Content-Type": media_type}
    assert api.patch("/things/1", tenant="a", content="{}", headers=headers).json()["name"] == "one"
    changed = api.patch("/things/1", tenant="a", content='{"name": null}', headers=headers).json()
    assert (changed["name"], changed["settings"]) == (None, {"a": 1})
    assert api.patch("/things/1", tenant="a", content='{"settings": null}', headers=headers).json()["settings"] is None


@pytest.mark.usefixtures("things")
def test_a_patch_of_another_media_type_is_refused(api: Api) -> None:
    api.post("/things", tenant="a", json={"name": "one"})
    answer = api.patch("/things/1", tenant="a", content='{"name": "x"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert api.get("/things/1", tenant="a").json()["name"] == "one"


@pytest.mark.usefixtures("things")
def test_the_document_names_them(app: FastAPI, api: Api) -> None:
    async def document() -> Any:
        async with app.router.lifespan_context(app):
            return inlined(app.openapi())

    item = api.run(document())["paths"]["/things/{id}"]
    assert "If-None-Match" in [each["name"] for each in item["get"]["parameters"]]
    assert item["get"]["responses"]["304"]["headers"].keys() == {"ETag"}
    assert "Prefer" in [each["name"] for each in item["patch"]["parameters"]]
    assert "Preference-Applied" in item["patch"]["responses"]["204"]["headers"]
    bodies = item["patch"]["requestBody"]["content"]
    assert bodies["application/merge-patch+json"] == bodies["application/json"]
