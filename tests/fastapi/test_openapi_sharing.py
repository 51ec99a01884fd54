"""What operations have in common is said once in the document, and the document is complete before the app runs."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Query
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dotmac_database import ValidationError
from dotmac_database_fastapi import (
    DatabasePlugin,
    filter_query,
    get_repository,
    health_router,
    register_exception_handlers,
    tenant_from_header,
)
from tests.fastapi.conftest import Api, MakePlugin, inlined
from tests.fastapi.shared_routers import crud_router, list_router
from tests.models import Country, Post, Seat, Tag, User

TENANT = tenant_from_header("X-Tenant-ID")


async def tenant_of_token(token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    return token.credentials


async def actor_of_header(x_actor: Annotated[str, Header()]) -> str:
    return x_actor


async def optional_actor(x_actor: Annotated[str | None, Header(max_length=9)] = None) -> str | None:
    return x_actor


def plugin_without_database(**options: Any) -> DatabasePlugin:
    """A plugin of an app that is never run."""
    return DatabasePlugin("sqlite+aiosqlite://", **{"tenant": TENANT, **options})


def references(document: Any) -> set[str]:
    return set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))


def resolve(document: Any, reference: str) -> Any:
    value = document
    for part in reference.removeprefix("#/").split("/"):
        value = value[part]
    return value


def served(*models: type, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=plugin_without_database().lifespan)
    register_exception_handlers(app)
    for model in models:
        app.include_router(crud_router(model, prefix=f"/{model.__name__.lower()}", **options))
    return app


# Before the app runs.


def add_routes(app: FastAPI) -> None:
    app.include_router(crud_router(Tag, prefix="/tags"))

    @app.get("/own")
    async def own(tags: Any = Depends(get_repository(Tag))) -> None: ...


def test_the_document_is_complete_before_the_app_runs(make_plugin: MakePlugin, runner: Any) -> None:
    plugin = make_plugin(tenant=tenant_of_token, actor=actor_of_header)
    app = FastAPI(lifespan=plugin.lifespan)
    add_routes(app)
    before = deepcopy(app.openapi())

    async def lifetime() -> Any:
        async with app.router.lifespan_context(app):
            return app.openapi()

    assert runner.run(lifetime()) == before
    assert before["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    for path, operations in inlined(before)["paths"].items():
        for method, operation in operations.items():
            assert operation["security"] == [{"HTTPBearer": []}], (method, path)
            assert "x-actor" in [each["name"] for each in operation["parameters"]], (method, path)
    assert before["paths"]["/tags"]["get"]["operationId"] == "listTags"


PLUGIN = plugin_without_database(tenant=tenant_of_token)


@asynccontextmanager
async def of_module(app: FastAPI) -> AsyncIterator[None]:
    async with PLUGIN.lifespan(app):
        yield


def of_function() -> Any:
    plugin = plugin_without_database(tenant=tenant_of_token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with plugin.lifespan(app):
            yield

    return lifespan


@pytest.mark.parametrize("lifespan", [of_module, of_function()])
def test_a_lifespan_of_the_apps_own_names_the_plugin(lifespan: Any, runner: Any) -> None:
    app = FastAPI(lifespan=lifespan)
    add_routes(app)
    before = deepcopy(app.openapi())
    assert before["paths"]["/tags"]["get"]["security"] == [{"HTTPBearer": []}]

    async def lifetime() -> Any:
        async with app.router.lifespan_context(app):
            return app.openapi()

    assert runner.run(lifetime()) == before


def test_a_document_that_was_read_early_is_completed_again() -> None:
    def app_of(*reads: int) -> Any:
        app = FastAPI(lifespan=plugin_without_database().lifespan)
        steps: list[Callable[[], object]] = [
            lambda: add_routes(app),
            lambda: register_exception_handlers(app),
            lambda: register_exception_handlers(app, codes=["sold_out"]),
        ]
        for number, step in enumerate(steps):
            step()
            if number in reads:
                app.openapi()
        return app.openapi()

    assert app_of(0, 1) == app_of(0) == app_of(1) == app_of()


def test_an_app_with_an_openapi_function_of_its_own() -> None:
    app = FastAPI(lifespan=plugin_without_database().lifespan)
    add_routes(app)

    def custom() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = get_openapi(title="mine", version="1", routes=app.routes)
        return app.openapi_schema

    app.openapi = custom  # type: ignore[method-assign]
    register_exception_handlers(app)
    for _ in range(2):
        document = app.openapi()
        assert (document["info"]["title"], document["paths"]["/tags"]["get"]["operationId"]) == ("mine", "listTags")


class Titled(FastAPI):
    """An app whose documents are changed copies of FastAPI's."""

    def openapi(self) -> dict[str, Any]:
        return {**deepcopy(super().openapi()), "x-own": True}


def test_a_completed_document_is_not_completed_twice() -> None:
    documents = []
    for kind in (FastAPI, Titled):
        app = kind(lifespan=plugin_without_database(actor=actor_of_header).lifespan)
        register_exception_handlers(app)
        add_routes(app)
        app.openapi()
        documents.append(app.openapi())
    assert documents[1].pop("x-own")
    assert documents[0] == documents[1]


def test_an_app_that_does_not_use_the_toolkit_keeps_its_document() -> None:
    app = FastAPI()

    @app.get("/{number}")
    async def read(number: int, page: int = 1) -> None: ...

    original = get_openapi(title=app.title, version=app.version, routes=app.routes)
    assert app.openapi() == original


# What is shared.


def test_every_reference_leads_to_a_component_and_every_component_is_used() -> None:
    app = served(User, Tag, Seat, Country, Post)
    app.include_router(health_router())
    document = app.openapi()
    used = references(document)
    for reference in used:
        resolve(document, reference)
    for kind in ("parameters", "headers", "responses"):
        for name in document["components"][kind]:
            assert f"#/components/{kind}/{name}" in used


def test_what_two_lists_have_in_common_is_a_component_each() -> None:
    document = served(Tag, Post, idempotency=True).openapi()
    shared = document["components"]["parameters"]
    assert {"page", "per_page", "limit", "cursor", "X-Tenant-ID", "Prefer", "Idempotency-Key"} <= set(shared)
    for path in ("/tag", "/post"):
        parameters = document["paths"][path]["get"]["parameters"]
        assert {"$ref": "#/components/parameters/per_page"} in parameters
    own = [each["name"] for each in document["paths"]["/post"]["get"]["parameters"] if "name" in each]
    assert "sort" in own  # each list has its own fields
    assert set(document["components"]["responses"]) == {
        "BadRequest",
        "Conflict",
        "NotFound",
        "ServiceUnavailable",
        "UnprocessableContent",
    }
    assert document["paths"]["/tag/{id}"]["get"]["responses"]["404"] == {"$ref": "#/components/responses/NotFound"}


def test_unequal_parameters_of_one_name_have_a_place_or_a_number() -> None:
    app = FastAPI()
    plugin = plugin_without_database()
    for number, size in enumerate((20, 30, 20, 30, 20)):
        app.include_router(list_router(Tag, prefix=f"/{number}", page_size=size, plugin=plugin))
    app.include_router(crud_router(Tag, prefix="/tags", operations=["read", "delete"], plugin=plugin))
    shared = app.openapi()["components"]["parameters"]
    assert "Default: 20." in shared["per_page"]["description"]
    assert "Default: 30." in shared["per_page_2"]["description"]
    assert (shared["id"]["in"], shared["id_in_path"]["in"]) == ("query", "path")


def test_what_the_user_has_documented_stays_where_it_is() -> None:
    app = FastAPI(lifespan=plugin_without_database().lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Tag, prefix="/tags"))
    mine = {"description": "Gone for good.", "content": {"application/problem+json": {"schema": {"type": "object"}}}}
    for path in ("/a", "/b"):

        @app.get(path, responses={404: mine})
        async def own(
            page: Annotated[int, Query(description="Mine.")] = 1, tags: Any = Depends(get_repository(Tag))
        ) -> None: ...

    for path in ("/a", "/b"):
        operation = app.openapi()["paths"][path]["get"]
        page = operation["parameters"][0]
        assert (page["name"], page["description"], page["schema"]["default"]) == ("page", "Mine.", 1)
        assert operation["responses"]["404"] == mine
        assert operation["parameters"][1] == {"$ref": "#/components/parameters/X-Tenant-ID"}
        assert operation["responses"]["503"] == {"$ref": "#/components/responses/ServiceUnavailable"}


def test_a_dependency_and_a_list_share_their_filters() -> None:
    app = FastAPI(lifespan=plugin_without_database().lifespan)
    app.include_router(list_router(Post, prefix="/posts"))

    @app.get("/own")
    async def own(filters: Any = Depends(filter_query(Post))) -> None: ...

    document = app.openapi()
    of_list = document["paths"]["/posts"]["get"]["parameters"]
    of_dependency = document["paths"]["/own"]["get"]["parameters"]
    assert len(of_dependency) > 5
    assert all(each in of_list and "$ref" in each for each in of_dependency)


def test_the_values_of_a_field_are_one_component() -> None:
    document = served(User).openapi()
    parameters = {each["name"]: each["schema"] for each in inlined_parameters(document, "/user")}
    assert parameters["status"] == parameters["status__ne"] == parameters["status__in"]["items"]
    assert parameters["status"] == {"$ref": "#/components/schemas/Status"}


def inlined_parameters(document: Any, path: str) -> list[Any]:
    """The parameters of a GET, whose schemas may still refer to components."""
    parameters = document["paths"][path]["get"]["parameters"]
    return [resolve(document, each["$ref"]) if "$ref" in each else each for each in parameters]


def test_generated_clients_send_no_parameters_that_exclude_each_other(app: FastAPI, api: Api) -> None:
    """They send each parameter that has a default value."""
    app.include_router(list_router(Tag, prefix="/tags"))
    parameters = inlined(app.openapi())["paths"]["/tags"]["get"]["parameters"]
    assert [each["name"] for each in parameters if "default" in each["schema"]] == []
    assert "Default: 20." in next(each["description"] for each in parameters if each["name"] == "limit")


def test_no_parameter_is_null_since_none_can_be_sent() -> None:
    """Generated clients that take null for a header fail when they send it."""
    app = FastAPI(lifespan=plugin_without_database(actor=optional_actor).lifespan)
    app.include_router(crud_router(Tag, prefix="/tags", idempotency=True))
    parameters = inlined(app.openapi())["paths"]["/tags"]["post"]["parameters"]
    schemas = {each["name"]: each["schema"] for each in parameters}
    assert schemas["x-actor"] == {"type": "string", "maxLength": 9, "title": "X-Actor"}
    assert schemas["Idempotency-Key"]["type"] == "string"
    assert "null" not in json.dumps(parameters)


@pytest.mark.parametrize("model", [User, Post])
def test_columns_that_the_toolkit_fills_are_always_there(model: type) -> None:
    schema = served(model).openapi()["components"]["schemas"][f"{model.__name__}Read"]
    filled = {"created_at", "updated_at", "version"} & set(schema["properties"])
    assert filled <= set(schema["required"])
    assert not [name for name in filled if "anyOf" in schema["properties"][name]]
    assert not {"tenant_id", "is_deleted", "deleted_at"} & set(schema["properties"])


# The codes of problems.


def test_a_problem_has_one_of_the_codes_that_the_document_lists(app: FastAPI, api: Api) -> None:
    register_exception_handlers(app, codes=["sold_out"])
    app.include_router(crud_router(Tag, prefix="/tags"))

    @app.get("/raise/{status}")
    async def refuse(status: int) -> None:
        raise HTTPException(status, {"code": "sold_out"} if status == 409 else None)

    schemas = app.openapi()["components"]["schemas"]
    assert schemas["Problem"]["properties"]["code"] == {"$ref": "#/components/schemas/ProblemCode"}
    assert "code" in schemas["Problem"]["required"]
    codes = schemas["ProblemCode"]["enum"]
    assert len(codes) == len(set(codes))
    answered = [api.get(path, tenant="a").json()["code"] for path in ("/tags/99", "/tags?x=1", "/nowhere")]
    answered += [api.get(f"/raise/{status}").json()["code"] for status in (*range(400, 452), *range(500, 512), 599)]
    assert {"not_found", "invalid", "sold_out"} <= set(answered) <= set(codes)


@pytest.mark.parametrize(("status", "code"), [(413, "content_too_large"), (422, "unprocessable_content")])
def test_a_code_is_the_same_on_every_python(app: FastAPI, api: Api, status: int, code: str) -> None:
    @app.get("/")
    async def refuse() -> None:
        raise HTTPException(status)

    assert api.get("/").json()["code"] == code


@pytest.mark.parametrize("codes", ["sold_out", [""], [1]])
def test_codes_are_texts(codes: Any) -> None:
    with pytest.raises(ValidationError, match="a list of texts"):
        register_exception_handlers(FastAPI(), codes=codes)
