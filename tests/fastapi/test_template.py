"""An API that exists keeps its answers: FastAPI's full-stack template, with its routes on the generated routers."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import MetaData
from sqlmodel import Session

from dotmac_database import Database
from dotmac_database_fastapi import DatabasePlugin

from .conftest import Api, MakePlugin
from .template_app import Item, User, app_of, byhand, current_user, hashed, outbox, owner

ROUTES = {
    "/login/access-token": {"post"},
    "/login/test-token": {"post"},
    "/password-recovery/{email}": {"post"},
    "/reset-password/": {"post"},
    "/password-recovery-html-content/{email}": {"post"},
    "/users/": {"get", "post"},
    "/users/me": {"get", "patch", "delete"},
    "/users/me/password": {"patch"},
    "/users/signup": {"post"},
    "/users/{id}": {"get", "patch", "delete"},
    "/utils/test-email/": {"post"},
    "/utils/health-check/": {"get"},
    "/items/": {"get", "post"},
    "/items/{id}": {"get", "put", "delete"},
    "/private/users/": {"post"},
}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    metadata = MetaData()
    for model in (User, Item):
        model.metadata.tables[model.__tablename__].to_metadata(metadata)
    return metadata


@pytest.fixture
def plugin(make_plugin: MakePlugin) -> DatabasePlugin:
    return make_plugin(tenant=owner, actor=current_user, pool_size=2, max_overflow=0, pool_timeout=60)


@pytest.fixture
def app(plugin: DatabasePlugin) -> FastAPI:
    outbox.clear()
    return app_of(plugin)


@pytest.fixture(autouse=True)
def root(database: Database) -> None:
    with Session(database.engine) as session:
        session.add(User(email="root@x.y", hashed_password=hashed("changethis"), is_superuser=True))
        session.commit()


class Visitor:
    """A client of the API who is logged in, or not."""

    def __init__(self, api: Api, email: str | None = None, password: str = "changethis") -> None:
        self.api = api
        self.headers: dict[str, str] = {}
        if email is not None:
            form = {"username": email, "password": password}
            answer = api.post("/api/v1/login/access-token", data=form)
            assert answer.status_code == 200, answer.text
            self.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def __call__(self, method: str, path: str, status: int, **options: Any) -> Any:
        answer = self.api.request(method, f"/api/v1{path}", headers=self.headers, **options)
        assert answer.status_code == status, (method, path, answer.text)
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text


def signed_up(api: Api, name: str) -> Visitor:
    body = {"email": f"{name}@x.y", "password": "changethis", "full_name": name}
    user = Visitor(api)("POST", "/users/signup", 200, json=body)
    assert user["email"] == body["email"]
    assert "hashed_password" not in user
    return Visitor(api, body["email"])


def test_the_routes_are_the_templates(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    served = {path.removeprefix("/api/v1"): set(methods) for path, methods in paths.items()}
    assert served == ROUTES
    assert sum(map(len, served.values())) == 23
    assert len({route.endpoint for route in byhand.routes if isinstance(route, APIRoute)}) == 10


def test_items_of_their_owners(api: Api) -> None:
    ada, bob, root = signed_up(api, "ada"), signed_up(api, "bob"), Visitor(api, "root@x.y")
    nobody = Visitor(api)
    for number in range(3):
        item = ada("POST", "/items/", 200, json={"title": f"item {number}"})
        assert item["title"] == f"item {number}"
        assert item["owner_id"] == ada("GET", "/users/me", 200)["id"]
    bobs = bob("POST", "/items/", 200, json={"title": "bob's", "description": "x"})
    roots = root("POST", "/items/", 200, json={"title": "root's"})
    assert roots["owner_id"] == root("GET", "/users/me", 200)["id"]
    page = ada("GET", "/items/", 200, params={"skip": 1, "limit": 1})
    assert set(page) == {"data", "count"}
    assert ([each["title"] for each in page["data"]], page["count"]) == (["item 1"], 3)
    assert [each["title"] for each in ada("GET", "/items/", 200)["data"]] == ["item 2", "item 1", "item 0"]
    assert root("GET", "/items/", 200)["count"] == 5
    path = f"/items/{bobs['id']}"
    assert bob("GET", path, 200) == bobs
    assert root("GET", path, 200) == bobs
    unknown = "/items/00000000-0000-0000-0000-000000000000"
    for method, options in (("GET", {}), ("PUT", {"json": {"title": "ada's"}}), ("DELETE", {})):
        ada(method, path, 403, **options)
        ada(method, unknown, 404, **options)
        root(method, unknown, 404, **options)
        nobody(method, path, 401, **options)
    assert bob("PUT", path, 200, json={"title": "new"}) == {**bobs, "title": "new"}
    assert root("PUT", path, 200, json={"title": "newer"}) == {**bobs, "title": "newer"}
    assert bob("DELETE", path, 200) == {"message": "Item deleted successfully"}
    bob("GET", path, 404)
    ada("POST", "/items/", 422, json={"title": ""})
    nobody("GET", "/items/", 401)


def test_users_by_a_superuser(api: Api) -> None:
    ada, root = signed_up(api, "ada"), Visitor(api, "root@x.y")
    body = {"email": "bob@x.y", "password": "changethis", "full_name": "Bob"}
    bob = root("POST", "/users/", 200, json=body)
    assert set(bob) == {"email", "is_active", "is_superuser", "full_name", "id", "created_at"}
    root("POST", "/users/", 400, json=body)
    assert root("GET", "/users/", 200)["count"] == 3
    assert len(root("GET", "/users/", 200, params={"skip": 1, "limit": 1})["data"]) == 1
    path = f"/users/{bob['id']}"
    assert root("GET", path, 200) == bob
    root("GET", "/users/00000000-0000-0000-0000-000000000000", 404)
    assert root("PATCH", path, 200, json={"full_name": "Robert", "password": "otherwise"})["full_name"] == "Robert"
    as_bob = Visitor(api, "bob@x.y", "otherwise")
    assert as_bob("GET", path, 200)["full_name"] == "Robert"
    root("PATCH", path, 409, json={"email": "ada@x.y"})
    for visitor in (ada, as_bob):
        visitor("GET", "/users/", 403)
        visitor("POST", "/users/", 403, json={**body, "email": "eve@x.y"})
    ada("GET", path, 403)
    ada("PATCH", path, 403, json={"full_name": "x"})
    ada("DELETE", path, 403)
    assert root("DELETE", path, 200) == {"message": "User deleted successfully"}
    root("DELETE", f"/users/{root('GET', '/users/me', 200)['id']}", 403)
    as_bob("GET", "/users/me", 404)
    assert root("GET", "/users/", 200)["count"] == 2
    Visitor(api)("GET", "/users/", 401)
    Visitor(api)("POST", "/private/users/", 200, json={**body, "email": "dan@x.y"})
    Visitor(api, "dan@x.y")


def test_what_is_written_by_hand(api: Api) -> None:
    ada, root, nobody = signed_up(api, "ada"), Visitor(api, "root@x.y"), Visitor(api)
    assert nobody("GET", "/utils/health-check/", 200) is True
    assert ada("POST", "/login/test-token", 200)["email"] == "ada@x.y"
    nobody("POST", "/users/signup", 400, json={"email": "ada@x.y", "password": "changethis"})
    assert ada("PATCH", "/users/me", 200, json={"full_name": "Ada"})["full_name"] == "Ada"
    ada("PATCH", "/users/me", 409, json={"email": "root@x.y"})
    ada("PATCH", "/users/me/password", 400, json={"current_password": "wrong pass", "new_password": "otherwise"})
    passwords = {"current_password": "changethis", "new_password": "otherwise"}
    assert ada("PATCH", "/users/me/password", 200, json=passwords)["message"] == "Password updated successfully"
    nobody("POST", "/login/access-token", 400, data={"username": "ada@x.y", "password": "changethis"})
    nobody("POST", "/password-recovery/ada@x.y", 200)
    nobody("POST", "/password-recovery/eve@x.y", 200)
    [(email, token)] = outbox
    assert email == "ada@x.y"
    nobody("POST", "/reset-password/", 200, json={"token": token, "new_password": "a third one"})
    ada = Visitor(api, "ada@x.y", "a third one")
    ada("POST", "/password-recovery-html-content/ada@x.y", 403)
    assert "<p>" in root("POST", "/password-recovery-html-content/ada@x.y", 200)
    root("POST", "/utils/test-email/", 201, params={"email_to": "eve@x.y"})
    ada("POST", "/items/", 200, json={"title": "goes with its owner"})
    root("DELETE", "/users/me", 403)
    assert ada("DELETE", "/users/me", 200) == {"message": "User deleted successfully"}
    assert root("GET", "/items/", 200)["count"] == 0
