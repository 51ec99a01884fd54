"""What the OpenAPI document says of generated routes, and whether the answers keep to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table
from sqlalchemy.orm import registry

from dotmac_database_fastapi import DatabasePlugin, crud_router, get_repository, register_exception_handlers
from tests.fastapi.conftest import Api, MakePlugin, inlined
from tests.models import Country, Seat, Tag, User
from tests.models import Tag as TenantTag

PROBLEM = "application/problem+json"


class NamesTenant(BaseModel):
    """A body that may name a tenant."""

    tenant_id: str = "a"
    name: str = "red"


async def tenant_of_query(organisation: str, x_token: Annotated[str, Header()]) -> str:
    return organisation


async def actor_of_header(x_actor: Annotated[str, Header()]) -> str:
    return x_actor


def operation(app: FastAPI, method: str, path: str) -> dict[str, Any]:
    told: dict[str, Any] = inlined(app.openapi())["paths"][path][method]
    return told


def parameters(told: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each["in"], each["name"].lower()) for each in told.get("parameters", [])}


def test_a_schema_that_names_the_tenant_documents_its_403(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Tag, prefix="/tags", create_schema=NamesTenant))
    app.include_router(crud_router(Country, prefix="/countries"))
    assert PROBLEM in operation(app, "post", "/tags")["responses"]["403"]["content"]
    assert "403" not in operation(app, "post", "/countries")["responses"]
    assert api.post("/tags", tenant="a", json={"tenant_id": "b"}).status_code == 403


def test_parameters_of_the_apps_own_tenant_and_actor_are_shown(make_plugin: MakePlugin) -> None:
    plugin = make_plugin(tenant=tenant_of_query, actor=actor_of_header)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Tag, prefix="/tags"))
    told = operation(app, "get", "/tags")
    assert {("query", "organisation"), ("header", "x-token"), ("header", "x-actor")} <= parameters(told)
    assert PROBLEM in told["responses"]["default"]["content"]


def test_a_router_shows_the_tenant_of_its_own_plugin(make_plugin: MakePlugin) -> None:
    first = make_plugin()
    second = make_plugin(name="second", tenant=tenant_of_query)
    app = FastAPI()
    first.install(app)
    second.install(app)
    register_exception_handlers(app)
    app.include_router(crud_router(Tag, prefix="/first", plugin=first))
    app.include_router(crud_router(Tag, prefix="/second", plugin=second))
    assert ("header", "x-tenant-id") in parameters(operation(app, "get", "/first"))
    assert ("query", "organisation") not in parameters(operation(app, "get", "/first"))
    assert ("query", "organisation") in parameters(operation(app, "get", "/second"))
    assert ("header", "x-tenant-id") not in parameters(operation(app, "get", "/second"))


def test_two_models_of_one_name_do_not_clash(app: FastAPI) -> None:
    table = Table("other_tags", MetaData(), Column("id", Integer, primary_key=True), Column("colour", String(9)))
    other = type("Tag", (), {"__module__": "labels"})
    registry().map_imperatively(other, table)
    app.include_router(crud_router(TenantTag, prefix="/tags"))
    app.include_router(crud_router(other, prefix="/other"))
    schemas = app.openapi()["components"]["schemas"]
    created = {
        path: operation(app, "post", path)["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for path in ("/tags", "/other")
    }
    assert created == {
        "/tags": "#/components/schemas/tests__models__TagCreate",
        "/other": "#/components/schemas/labels__TagCreate",
    }
    assert "colour" in schemas["labels__TagCreate"]["properties"]
    ids = {operation(app, "get", path)["operationId"] for path in ("/tags", "/other")}
    assert len(ids) == 2


def add_own(app: FastAPI) -> None:
    @app.get("/own")
    async def own(number: int, users: Any = Depends(get_repository(User))) -> int:
        return number


def test_an_endpoint_of_the_apps_own_may_answer_any_problem(app: FastAPI) -> None:
    add_own(app)
    assert PROBLEM in operation(app, "get", "/own")["responses"]["default"]["content"]


@pytest.mark.parametrize(("validation", "kind"), [(True, PROBLEM), (False, "application/json")])
def test_fastapis_validation_error_is_documented_as_it_is_answered(
    plugin: DatabasePlugin, runner: Any, validation: bool, kind: str
) -> None:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app, validation=validation)
    add_own(app)
    app.include_router(crud_router(Tag, prefix="/tags"))
    api = Api(app, runner)
    own = api.get("/own?number=x", tenant="a")
    assert (own.status_code, own.headers["content-type"]) == (422, kind)
    assert isinstance(own.json()["detail"], str if validation else list)
    assert kind in operation(app, "get", "/own")["responses"]["422"]["content"]
    refused = api.post("/tags", tenant="a", json={"none": 1})
    assert (refused.status_code, refused.headers["content-type"]) == (422, PROBLEM)
    assert list(operation(app, "post", "/tags")["responses"]["422"]["content"]) == [PROBLEM]


class Problem(BaseModel):
    """A class of the app's own that has the name of the toolkit's schema."""

    question: str


NAMED: list[tuple[Callable[[Any], str] | None, str]] = [
    (None, "listTags"),
    (lambda route: f"{route.tags[0]}-{route.name}", "Tags-list_tag"),
]


@pytest.mark.parametrize(("name", "expected"), NAMED, ids=["generated", "the app's own"])
def test_operation_ids(plugin: DatabasePlugin, name: Callable[[Any], str] | None, expected: str) -> None:
    options: dict[str, Any] = {} if name is None else {"generate_unique_id_function": name}
    app = FastAPI(lifespan=plugin.lifespan, **options)
    register_exception_handlers(app)
    app.include_router(crud_router(Tag, prefix="/tags"))
    assert operation(app, "get", "/tags")["operationId"] == expected
    paths = inlined(app.openapi())["paths"].values()
    ids = [told["operationId"] for path in paths for told in path.values()]
    assert len(ids) == len(set(ids))


def test_a_class_of_the_apps_own_may_be_called_problem(app: FastAPI) -> None:
    @app.get("/problem")
    async def read() -> Problem:
        return Problem(question="why")

    app.include_router(crud_router(Tag, prefix="/tags"))
    schemas = app.openapi()["components"]["schemas"]
    assert set(schemas["Problem"]["properties"]) == {"question"}
    told = operation(app, "get", "/tags")["responses"]["422"]["content"][PROBLEM]["schema"]
    assert told == {"$ref": "#/components/schemas/DatabaseProblem"}


METHODS = {"/tags": {"GET", "HEAD", "OPTIONS", "POST"}, "/tags/1": {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH"}}


@pytest.mark.parametrize("path", METHODS)
def test_options_and_a_wrong_method_name_what_a_path_allows(app: FastAPI, api: Api, path: str) -> None:
    app.include_router(crud_router(Tag, prefix="/tags"))
    for method, status in (("OPTIONS", 204), ("PUT", 405)):
        answer = api.request(method, path)
        assert answer.status_code == status
        assert set(answer.headers["allow"].split(", ")) == METHODS[path]


def test_every_status_of_generated_routes_is_documented(app: FastAPI, api: Api) -> None:
    for model, prefix in ((User, "/users"), (Tag, "/tags"), (Seat, "/seats"), (Country, "/countries")):
        app.include_router(crud_router(model, prefix=prefix))
    made = api.post("/users", tenant="a", json={"name": "Ann", "email": "a@example.org"}).json()
    one, none = f"/users/{made['id']}", "/users/00000000-0000-0000-0000-000000000000"
    stale = {"headers": {"If-Match": '"99"'}}
    asked: list[tuple[str, str, str, int, dict[str, Any]]] = [
        ("GET", "/users", "/users", 200, {}),
        ("GET", "/users?unknown=1", "/users", 422, {}),
        ("GET", "/users?cursor=x&limit=2", "/users", 400, {}),
        ("GET", one, "/users/{id}", 200, {}),
        ("GET", none, "/users/{id}", 404, {}),
        ("GET", "/users/x", "/users/{id}", 422, {}),
        ("POST", "/users", "/users", 409, {"json": {"name": "Ann", "email": "a@example.org"}}),
        ("POST", "/users", "/users", 422, {"json": []}),
        ("PATCH", one, "/users/{id}", 412, {"json": {"name": "Eve"}, **stale}),
        ("PATCH", none, "/users/{id}", 404, {"json": {"name": "Eve"}}),
        ("DELETE", one, "/users/{id}", 412, stale),
        ("DELETE", one, "/users/{id}", 204, {}),
        ("POST", f"{none}/restore", "/users/{id}/restore", 404, {}),
        ("POST", f"{one}/restore", "/users/{id}/restore", 200, {}),
    ]
    wrong = []
    for method, path, template, status, options in asked:
        answer = api.request(method, path, tenant="a", **options)
        told = operation(app, method.lower(), template)["responses"].get(str(status))
        kind = answer.headers.get("content-type")
        if answer.status_code != status or told is None or (kind and kind not in told["content"]):
            wrong.append((method, path, status, answer.status_code, kind, told))
    assert not wrong
    without = api.get("/users")
    assert (without.status_code, without.headers["content-type"]) == (400, PROBLEM)


def test_a_time_without_a_zone_is_documented_as_it_is_answered(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(User, prefix="/users"))
    made = api.post("/users", tenant="a", json={"name": "Ann", "wakes": "07:30:00.25"}).json()
    shown = app.openapi()["components"]["schemas"]["UserRead"]["properties"]["wakes"]
    written = next(each for each in shown["anyOf"] if each["type"] == "string")
    assert "format" not in written
    assert re.search(written["pattern"], made["wakes"])


def test_a_tenants_name_is_documented_as_its_columns_take_it(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Tag, prefix="/tags"))
    app.include_router(crud_router(Seat, prefix="/seats"))

    def header(path: str) -> dict[str, Any]:
        told = operation(app, "get", path)["parameters"]
        return next(each["schema"] for each in told if each["name"] == "X-Tenant-ID")

    assert header("/tags")["type"] == "string"
    assert header("/seats") == {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1, "title": "Tenant"}
    for tenant, status in (("7", 200), ("acme", 400), ("99999999999", 400)):
        assert api.get("/seats", tenant=tenant).status_code == status
        assert tenant == "7" or str(status) in operation(app, "get", "/seats")["responses"]
