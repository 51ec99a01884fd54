"""Writes in the form of an API that exists: their statuses, the body of a DELETE, and the path of the collection."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import Database, SoftDeleteMixin, TenantMixin, ValidationError, VersionMixin, idempotency_metadata
from dotmac_database_fastapi import REACT_ADMIN, CrudOptions, DeleteBody
from tests.conftest import counted
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.shared_routers import crud_router

pytestmark = pytest.mark.shared_plugin


class Base(DeclarativeBase):
    """The tables of this module."""


class Thing(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "fitted_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))
    hashed: Mapped[str | None] = mapped_column(info={"private": True})


class Message(BaseModel):
    message: str = Field(serialization_alias="text")


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def things(database: Database) -> None:
    """A thing of each tenant, which look alike, and a deleted one."""
    with database.engine.begin() as connection:
        for number, tenant, deleted in ((1, "a", False), (2, "b", False), (3, "a", True), (10, "a", True)):
            values = {"id": number, "tenant_id": tenant, "name": "one", "is_deleted": deleted, "version": 1}
            connection.execute(sa.insert(Thing.__table__).values(**values))  # type: ignore[arg-type]
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT setval('fitted_things_id_seq', 10)"))


WRITES: dict[str, tuple[str, str, Any, int]] = {
    "create": ("POST", "/things", {"name": "new"}, 201),
    "update": ("PATCH", "/things/1", {"name": "new"}, 200),
    "delete": ("DELETE", "/things/1", None, 204),
    "restore": ("POST", "/things/3/restore", None, 200),
}


STATUSES = [(None, False), (None, True), (200, False), (200, True), (202, False), (202, True), (204, False)]


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize(("status", "minimal"), STATUSES)
@pytest.mark.parametrize("operation", WRITES)
def test_the_status_of_a_write(app: FastAPI, api: Api, operation: str, status: int | None, minimal: bool) -> None:
    method, path, body, usual = WRITES[operation]
    options: dict[str, Any] = {} if status is None else {"status_codes": {operation: status}}
    if operation == "delete" and status not in (None, 204):
        options["delete_body"] = {"deleted": True}
    app.include_router(crud_router(Thing, "/things", **options))
    headers = {"Prefer": "return=minimal"} if minimal else {}
    answer = api.request(method, path, tenant="a", json=body, headers=headers)
    expected = status or usual
    if minimal and operation != "delete" and expected == 200:
        expected = 204
    assert answer.status_code == expected
    has_body = expected != 204 and (operation == "delete" or not minimal)
    assert bool(answer.content) == has_body
    if operation == "create":
        assert answer.headers["location"] == "/things/11"
    template = path.replace("/1", "/{id}").replace("/3", "/{id}")
    responses = inlined(app.openapi())["paths"][template][method.lower()]["responses"]
    documented = responses[str(expected)]
    assert ("content" in documented) == (has_body or (minimal and expected not in (200, 204)))
    if has_body:
        schema = {**documented["content"]["application/json"]["schema"], "components": app.openapi()["components"]}
        assert jsonschema_rs.validator_for(schema).is_valid(answer.json())
    successes = {each for each in responses if each.startswith("2")}
    assert successes == {str(status or usual), *(["204"] if (status or usual) == 200 and operation != "delete" else [])}


BODIES: list[tuple[Any, Any]] = [
    (Message(message="Item deleted"), {"text": "Item deleted"}),
    ({"ok": True, "code": 7}, {"ok": True, "code": 7}),
    ("deleted", "deleted"),
    (True, True),
    ([], []),
    (DeleteBody.ROW, {"id": 1, "name": "one", "version": 1}),
]


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize(("body", "expected"), BODIES, ids=lambda value: repr(value)[:20])
def test_the_body_of_a_delete(app: FastAPI, api: Api, body: Any, expected: Any) -> None:
    app.include_router(crud_router(Thing, "/things", delete_body=body))
    document = app.openapi()
    documented = document["paths"]["/things/{id}"]["delete"]["responses"]["200"]["content"]["application/json"]
    validator = jsonschema_rs.validator_for({**documented["schema"], "components": document["components"]})
    for path in ("/things/2", "/things/3", "/things/4"):
        assert api.delete(path, tenant="a").status_code == 404  # another tenant's, deleted, none
    answer = api.delete("/things/1", tenant="a")
    assert (answer.status_code, answer.json()) == (200, expected)
    assert answer.headers["content-type"] == "application/json"
    assert validator.is_valid(answer.json())
    assert api.delete("/things/1", tenant="a").status_code == 404
    assert api.get("/things/2", tenant="b").json()["name"] == "one"


@pytest.mark.usefixtures("things")
def test_a_delete_with_a_condition(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Thing, "/things", delete_body=DeleteBody.ROW))
    assert api.delete("/things/1", tenant="a", headers={"If-Match": '"7"'}).status_code == 412
    assert api.delete("/things/1", tenant="a", headers={"If-Match": '"1"'}).json()["id"] == 1


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize(("body", "selects"), [(None, 0), ("gone", 0), (DeleteBody.ROW, 1)])
def test_only_a_row_in_the_body_is_read_first(app: FastAPI, api: Api, plugin: Any, body: Any, selects: int) -> None:
    app.include_router(crud_router(Thing, "/things", delete_body=body))
    with counted(plugin.database.async_engine.sync_engine) as without:
        app.include_router(crud_router(Thing, "/plain"))
        assert api.delete("/plain/1", tenant="a").status_code == 204
    assert api.post("/plain/1/restore", tenant="a").status_code == 200
    with counted(plugin.database.async_engine.sync_engine) as sent:
        assert api.delete("/things/1", tenant="a").is_success
    reads = [len([each for each in some if each.startswith("SELECT")]) for some in (without, sent)]
    assert reads[1] - reads[0] == selects


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"status_codes": {"list": 200}}, r"'list' is no operation whose status can be chosen\. There are: create, update"),
    ({"status_codes": {"deleet": 200}}, r"'deleet' is no operation"),
    ({"status_codes": {"create": 302}}, r"create needs a status of success, from 200 to 299, and not 302"),
    ({"status_codes": {"create": "201"}}, r"and not '201'"),
    ({"status_codes": {"create": True}}, r"and not True"),
    ({"status_codes": {"delete": 200}}, r"status 200 needs a body; give one as delete_body, or choose 204"),
    ({"status_codes": {"delete": 204}, "delete_body": "gone"}, r"status 204 has no body"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_can_not_be_is_refused_when_the_router_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as raised:
        crud_router(Thing, "/things", **options)
    assert raised.value.field == "status_codes"


def test_options_that_routers_share_may_leave_the_body_to_each() -> None:
    shared = CrudOptions(status_codes={"create": 200, "delete": 200})
    crud_router(Thing, "/things", options=shared, delete_body="gone")
    crud_router(Thing, "/things", options=shared, operations=("create",))


@pytest.mark.usefixtures("things")
def test_a_replay_has_the_chosen_status(app: FastAPI, api: Api, database: Database) -> None:
    idempotency_metadata.create_all(database.engine)
    app.include_router(crud_router(Thing, "/things", idempotency=True, status_codes={"create": 200}))
    answers = [
        api.post("/things", tenant="a", json={"name": "new"}, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("paging", [None, "offset", "range"])
def test_a_trailing_slash(app: FastAPI, api: Api, paging: Any) -> None:
    app.include_router(crud_router(Thing, "/things", trailing_slash=True, paging=paging))
    assert set(app.openapi()["paths"]) == {"/things/", "/things/{id}", "/things/{id}/restore"}
    created = api.post("/things/", tenant="a", json={"name": "new"})
    assert (created.status_code, created.headers["location"]) == (201, "/things/11")
    assert api.get(created.headers["location"], tenant="a").json()["id"] == 11
    listed = api.get("/things/", tenant="a")
    assert all(link["url"].startswith("/things/?") for link in listed.links.values())
    assert bool(listed.links) == (paging != "range")
    assert api.request("HEAD", "/things/", tenant="a").status_code == 200
    assert "POST" in api.request("OPTIONS", "/things/").headers["allow"]
    other = api.get("/things", tenant="a")
    assert (other.status_code, other.headers["location"]) == (307, "http://test/things/")


@pytest.mark.usefixtures("things")
def test_without_a_trailing_slash(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Thing, "/things"))
    assert api.get("/things", tenant="a").status_code == 200
    assert api.get("/things/", tenant="a").headers["location"] == "http://test/things"


def test_without_a_prefix_the_path_is_a_slash(app: FastAPI) -> None:
    for slash in (False, True):
        router = crud_router(Thing, trailing_slash=slash)
        assert {each.path for each in router.routes} >= {"/", "/{id}"}  # type: ignore[attr-defined]


ROW = {"id": 1, "name": "new", "version": 1}


@pytest.mark.usefixtures("things")
class TestReadOnlyFields:
    def test_they_are_refused_unless_the_router_says_otherwise(self, app: FastAPI, api: Api) -> None:
        app.include_router(crud_router(Thing, "/things", update_method="PUT"))
        answer = api.request("PUT", "/things/1", tenant="a", json=ROW)
        assert answer.status_code == 422
        assert [fault["loc"] for fault in answer.json()["errors"]] == [["body", "id"], ["body", "version"]]

    def test_they_are_ignored(self, app: FastAPI, api: Api) -> None:
        app.include_router(crud_router(Thing, "/things", options=REACT_ADMIN))
        answer = api.request("PUT", "/things/1", tenant="a", json={**ROW, "id": 2})
        assert (answer.status_code, answer.json()) == (200, {"id": 1, "name": "new", "version": 2})
        assert api.get("/things/2", tenant="b").json()["name"] == "one"

    @pytest.mark.parametrize("name", ["tenant_id", "is_deleted", "hashed", "nmae"])
    def test_what_nobody_is_shown_is_still_refused(self, app: FastAPI, api: Api, name: str) -> None:
        app.include_router(crud_router(Thing, "/things", options=REACT_ADMIN))
        answer = api.request("PUT", "/things/1", tenant="a", json={**ROW, name: "b"})
        assert answer.status_code == 422
        assert [fault["loc"] for fault in answer.json()["errors"]] == [["body", name]]

    def test_the_document_shows_them(self, app: FastAPI) -> None:
        app.include_router(crud_router(Thing, "/things", options=REACT_ADMIN))
        document = app.openapi()
        schema = document["paths"]["/things/{id}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ThingUpdate"}
        update = document["components"]["schemas"]["ThingUpdate"]
        assert update["title"] == "ThingUpdate"
        assert update["additionalProperties"] is False
        read_only = {name for name, each in update["properties"].items() if each.get("readOnly")}
        assert read_only == {"id", "version"}

    def test_an_update_schema_of_the_users(self, app: FastAPI, api: Api) -> None:
        class Change(BaseModel, extra="forbid"):
            label: str | None = Field(default=None, alias="name")

        class Row(BaseModel):
            id: int
            name: str = Field(serialization_alias="label")

        app.include_router(
            crud_router(Thing, "/things", update_schema=Change, read_schema=Row, read_only_fields="ignore")
        )
        answer = api.patch("/things/1", tenant="a", json={"id": 1, "label": "x"})
        assert (answer.status_code, answer.json()) == (200, {"id": 1, "label": "one"})
        assert api.patch("/things/1", tenant="a", json={"id": 1, "other": "x"}).status_code == 422
