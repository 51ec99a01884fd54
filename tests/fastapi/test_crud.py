"""The generated routes for one row."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from dotmac_database import AsyncTenantRepository, Database, create_repository
from tests.conftest import counted
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.shared_routers import crud_router
from tests.models import Post, Seat, Tag, User


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    for model, prefix in ((User, "/users"), (Post, "/posts"), (Seat, "/seats"), (Tag, "/tags")):
        shared_api.app.include_router(crud_router(model, prefix=prefix))
    return shared_api


@pytest.fixture
def api(served: Api, emptied: None) -> Api:
    return served


def made(api: Api, **data: Any) -> str:
    answer = api.post("/users", tenant="a", json={"name": "Ann", **data})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


class TestCreate:
    def test_a_row_is_made_and_named(self, api: Api) -> None:
        answer = api.post("/users", tenant="a", json={"name": "Ann", "balance": "1.50", "status": "active"})
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/users/{answer.json()['id']}"
        assert answer.headers["etag"] == '"1"'
        found = api.get(answer.headers["location"], tenant="a")
        assert found.json() == answer.json()
        assert found.headers["etag"] == '"1"'
        assert not found.json().keys() & {"tenant_id", "is_deleted", "deleted_at"}

    @pytest.mark.parametrize(
        "extra",
        [
            {"id": str(uuid4())},
            {"tenant_id": "b"},
            {"version": 7},
            {"is_deleted": True},
            {"deleted_at": "2024-01-01"},
            {"created_at": "2024-01-01"},
            {"updated_by": "me"},
            {"nmae": "x"},
        ],
    )
    def test_what_is_not_the_clients_is_refused_by_name(self, api: Api, extra: dict[str, Any]) -> None:
        for answer in (
            api.post("/users", tenant="a", json={"name": "Ann", **extra}),
            api.patch(f"/users/{made(api)}", tenant="a", json=extra),
        ):
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["loc"] == ["body", *extra]

    @pytest.mark.parametrize(
        "data",
        [{}, {"name": None}, {"name": "x" * 51}, {"name": "x", "status": "old"}, {"name": "x", "balance": "much"}],
    )
    def test_values_that_do_not_fit_are_refused(self, api: Api, data: dict[str, Any]) -> None:
        assert api.post("/users", tenant="a", json=data).status_code == 422

    def test_every_type_comes_back_as_it_was_sent(self, api: Api) -> None:
        sent = {
            "name": "Ann",
            "email": "ann@example.com",
            "status": "closed",
            "score": -3,
            "ratio": 0.25,
            "balance": "12.30",
            "settings": {"theme": ["dark", 1, None]},
            "seen_at": "2024-02-29T12:00:00.123456Z",
            "born": "1990-01-02",
            "wakes": "06:30:00",
            "patience": "PT1H30M",
            "avatar": "AP8B",
            "active": False,
        }
        answer = api.post("/users", tenant="a", json=sent)
        assert answer.status_code == 201, answer.text
        for told in (answer.json(), api.get(answer.headers["location"], tenant="a").json()):
            assert {key: told[key] for key in sent} == sent

    def test_a_duplicate_is_a_conflict_within_the_tenant_alone(self, api: Api) -> None:
        data = {"name": "Ann", "email": "ann@example.com"}
        assert api.post("/users", tenant="a", json=data).status_code == 201
        answer = api.post("/users", tenant="a", json=data)
        assert (answer.status_code, answer.json()["code"], answer.json()["fields"]) == (409, "duplicate", ["email"])
        assert api.post("/users", tenant="b", json=data).status_code == 201

    def test_a_natural_key_is_the_clients_and_the_tenants_part_is_not(self, api: Api) -> None:
        answer = api.post("/seats", tenant="7", json={"number": 3, "holder": "Ann"})
        assert answer.headers["location"] == "/seats/3"
        assert answer.json() == {"number": 3, "holder": "Ann", "version": 1}
        assert api.get("/seats/3", tenant="7").json()["holder"] == "Ann"
        assert api.get("/seats/3", tenant="8").status_code == 404
        assert api.delete("/seats/3", tenant="7").status_code == 204


class TestChange:
    def test_only_what_is_set_changes(self, api: Api) -> None:
        key = made(api, score=1, email="a@b")
        answer = api.patch(f"/users/{key}", tenant="a", json={"score": None})
        assert answer.status_code == 200
        assert (answer.json()["score"], answer.json()["email"], answer.json()["name"]) == (None, "a@b", "Ann")
        assert answer.headers["etag"] == '"2"'

    def test_nothing_to_change_is_the_row_as_it_is(self, api: Api) -> None:
        answer = api.patch(f"/users/{made(api)}", tenant="a", json={})
        assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')

    def test_a_required_value_can_not_be_taken_away(self, api: Api) -> None:
        assert api.patch(f"/users/{made(api)}", tenant="a", json={"name": None}).status_code == 422

    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    @pytest.mark.parametrize(
        ("condition", "status"),
        [
            ('"1"', 200),
            ("*", 200),
            ('"7", "1"', 200),
            ('"2"', 412),
            ('W/"1"', 412),
            ('"7","8"', 412),
            ("1", 412),
            ('"one"', 412),
            ('"1" "2"', 412),
        ],
    )
    def test_if_match(self, api: Api, method: str, condition: str, status: int) -> None:
        key = made(api)
        options = {"json": {"score": 9}} if method == "PATCH" else {}
        answer = api.request(method, f"/users/{key}", tenant="a", headers={"If-Match": condition}, **options)
        assert answer.status_code == (204 if (method, status) == ("DELETE", 200) else status)
        if status == 412:
            assert answer.headers["content-type"] == "application/problem+json"
            assert api.get(f"/users/{key}", tenant="a").headers["etag"] == '"1"'

    @pytest.mark.fast_way("update-statements")
    def test_a_conditional_deletion_is_one_statement(self, api: Api, shared_plugin: Any) -> None:
        key = made(api)
        with counted(shared_plugin.database.async_engine.sync_engine) as sent:
            assert api.request("DELETE", f"/users/{key}", tenant="a", headers={"If-Match": '"1"'}).status_code == 204
        assert [each.split()[0] for each in sent if each not in ("BEGIN", "COMMIT")] == ["UPDATE"]

    def test_if_match_of_a_class_without_a_version_never_matches(self, api: Api) -> None:
        tag = api.post("/tags", tenant="a", json={"name": "x"})
        assert "etag" not in tag.headers
        path = tag.headers["location"]
        assert api.patch(path, tenant="a", headers={"If-Match": '"1"'}, json={"name": "y"}).status_code == 412
        assert api.patch(path, tenant="a", headers={"If-Match": "*"}, json={"name": "y"}).status_code == 200

    def test_of_many_that_saw_the_same_version_one_wins(self, api: Api) -> None:
        key = made(api)

        async def race() -> list[int]:
            answers = await asyncio.gather(
                *(
                    api.arequest("PATCH", f"/users/{key}", tenant="a", headers={"If-Match": '"1"'}, json={"score": n})
                    for n in range(4)
                ),
                *(api.arequest("DELETE", f"/users/{key}", tenant="a", headers={"If-Match": '"1"'}) for _ in range(4)),
            )
            return sorted(answer.status_code for answer in answers)

        # Those that come after a deletion find nothing; SQLite may tell a loser to come again.
        statuses = api.run(race())
        assert sum(status < 300 for status in statuses) == 1
        assert set(statuses) <= {200, 204, 404, 412, 503}


class TestDelete:
    def test_a_deleted_row_is_gone_until_it_is_restored(self, api: Api) -> None:
        key = made(api)
        answer = api.delete(f"/users/{key}", tenant="a")
        assert (answer.status_code, answer.content) == (204, b"")
        assert api.get(f"/users/{key}", tenant="a").status_code == 404
        assert api.patch(f"/users/{key}", tenant="a", json={"score": 1}).status_code == 404
        assert api.delete(f"/users/{key}", tenant="a").status_code == 404
        assert api.get("/users", tenant="a").json()["total"] == 0
        restored = api.post(f"/users/{key}/restore", tenant="a")
        assert (restored.status_code, restored.json()["id"]) == (200, key)
        assert api.get(f"/users/{key}", tenant="a").status_code == 200

    def test_a_class_that_deletes_for_good_restores_nothing(self, api: Api) -> None:
        tag = api.post("/tags", tenant="a", json={"name": "x"}).headers["location"]
        assert api.delete(tag, tenant="a").status_code == 204
        assert api.get(tag, tenant="a").status_code == 404
        assert api.post(f"{tag}/restore", tenant="a").status_code == 404

    def test_a_malformed_key_is_refused(self, api: Api) -> None:
        assert api.get("/users/none", tenant="a").status_code == 422
        assert api.get("/tags/99999999999999999999", tenant="a").status_code == 422


class TestReferences:
    def test_unknown_and_foreign_are_the_same_conflict(self, api: Api) -> None:
        foreign = made(api)
        own = api.post("/users", tenant="b", json={"name": "Ben"}).json()["id"]
        post = api.post("/posts", tenant="b", json={"title": "x", "author_id": own}).headers["location"]
        for send in (
            lambda key: api.post("/posts", tenant="b", json={"title": "x", "author_id": key}),
            lambda key: api.patch(post, tenant="b", json={"author_id": key}),
        ):
            answers = [send(foreign), send(str(uuid4()))]
            assert [answer.status_code for answer in answers] == [409, 409]
            assert answers[0].content == answers[1].content
            assert answers[0].headers == answers[1].headers
        assert api.get(post, tenant="b").json()["author_id"] == own
        assert api.patch(post, tenant="b", json={"author_id": None}).status_code == 200

    def test_a_class_may_refer_to_itself(self, api: Api) -> None:
        first = api.post("/posts", tenant="a", json={"title": "x"}).json()["id"]
        assert api.post("/posts", tenant="a", json={"title": "y", "parent_id": first}).status_code == 201
        assert api.post("/posts", tenant="b", json={"title": "y", "parent_id": first}).status_code == 409


class TestGiven:
    def test_schemas_and_repository_are_the_users(
        self, app: FastAPI, runner: asyncio.Runner, database: Database
    ) -> None:
        class NewUser(BaseModel):
            name: str

        class Users(AsyncTenantRepository[User]):
            async def create(self, data: Any, user_id: str | None = None) -> User:
                return await super().create({**data.model_dump(), "score": 42}, user_id)

        class Seen(BaseModel):
            id: UUID
            score: int

        app.include_router(
            crud_router(User, "/people", NewUser, read_schema=Seen, repository=Users, tags=["people"], filters=["name"])
        )
        api = Api(app, runner)
        answer = api.post("/people", tenant="a", json={"name": "Ann", "score": 1})
        assert answer.json() == {"id": answer.json()["id"], "score": 42}
        with database.sessions() as session:
            assert create_repository(session, User, "a").get_by_id(answer.json()["id"]).score == 42
        assert inlined(app.openapi())["paths"]["/people"]["post"]["tags"] == ["people"]

    def test_openapi_tells_what_is_sent_and_answered(self, api: Api) -> None:
        document = inlined(api.app.openapi())
        paths = document["paths"]
        assert set(paths["/users"]) == {"get", "post"}
        assert set(paths["/users/{id}"]) == {"get", "patch", "delete"}
        assert "/users/{id}/restore" in paths
        assert "/tags/{id}/restore" not in paths
        written = document["components"]["schemas"]["UserCreate"]
        assert written["required"] == ["name"]
        assert not {"id", "tenant_id", "version", "is_deleted", "created_at"} & set(written["properties"])
        assert "required" not in document["components"]["schemas"]["UserUpdate"]
        assert "204" in paths["/users/{id}"]["delete"]["responses"]
