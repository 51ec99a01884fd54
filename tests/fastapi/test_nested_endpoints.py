"""Children in the body of a POST."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from dotmac_database import ALL_TENANTS, ValidationError, idempotency_metadata
from tests.conftest import counted
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Label, Line, Order, World, stored, world_of
from tests.fastapi.shared_routers import crud_router
from tests.models import Post


class ReadLine(BaseModel, from_attributes=True):
    sku: str


class ReadOrder(BaseModel, from_attributes=True):
    number: str
    lines: list[ReadLine]


class ReadNumber(BaseModel, from_attributes=True):
    number: str


class NewOrder(BaseModel):
    """A schema of the user's with lines of its own."""

    number: str
    lines: list[ReadLine] | None = None


class TenantOrder(BaseModel):
    number: str
    tenant_id: str


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("nested")) as world:
        idempotency_metadata.create_all(world.owner.engine)
        yield world


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Api]:
    with world.api() as (app, api):
        nested: Any = {"nested": ("lines", "notes")}
        app.include_router(crud_router(Order, "/orders", idempotency=True, **nested))
        app.include_router(crud_router(Order, "/read", read_schema=ReadOrder, **nested))
        app.include_router(crud_router(Order, "/number", read_schema=ReadNumber, **nested))
        app.include_router(crud_router(Order, "/own", NewOrder, nested=("lines",)))
        app.include_router(crud_router(Line, "/lines"))
        yield api


@pytest.fixture
def api(world: World, served: Api) -> Api:
    world.refill()
    return served


LINES = [{"sku": "z"}, {"sku": "a", "quantity": 3}, {"sku": "m", "customer_id": 1}]


def post(api: Api, path: str = "/orders", **data: Any) -> Any:
    return api.post(path, tenant="a", json={"number": "x", **data})


def test_children_are_created_with_their_parent(world: World, api: Api) -> None:
    answer = post(api, lines=LINES, notes=[{"text": "n"}])
    assert answer.status_code == 201
    made = answer.json()
    assert [{key: line[key] for key in sent} for line, sent in zip(made["lines"], LINES, strict=True)] == LINES
    assert {line["order_id"] for line in made["lines"]} == {made["id"]}
    assert [note["text"] for note in made["notes"]] == ["n"]
    assert [api.get(f"/lines/{line['id']}", tenant="a").json() for line in made["lines"]] == made["lines"]
    assert api.get(answer.headers["location"], tenant="a").json() == {
        key: value for key, value in made.items() if key not in ("lines", "notes")
    }


@pytest.mark.parametrize("data", [{}, {"lines": []}])
def test_children_may_be_missing(api: Api, data: Any) -> None:
    answer = post(api, **data)
    assert (answer.status_code, answer.json()["lines"], answer.json()["notes"]) == (201, [], [])


def test_a_schema_of_the_users_is_the_response(api: Api) -> None:
    assert post(api, "/read", lines=LINES).json() == {
        "number": "x",
        "lines": [{"sku": "z"}, {"sku": "a"}, {"sku": "m"}],
    }
    assert post(api, "/number", number="y", lines=LINES).json() == {"number": "y"}


def test_a_schema_of_the_users_may_name_the_children(world: World, api: Api) -> None:
    assert [line["sku"] for line in post(api, "/own", lines=[{"sku": "q"}]).json()["lines"]] == ["q"]
    assert post(api, "/own", number="y", lines=None).json()["lines"] == []
    many = post(api, "/own", number="z", lines=[{"sku": "q"}] * 1001)
    assert (many.status_code, many.json()["fields"]) == (422, ["lines"])


def test_a_client_may_prefer_no_body(world: World, api: Api) -> None:
    body = {"number": "x", "lines": LINES}
    answer = api.post("/orders", tenant="a", json=body, headers={"Prefer": "return=minimal"})
    assert (answer.status_code, answer.content) == (201, b"")
    assert len(stored(world.owner).tables["item_lines"]) == 3


def test_a_child_that_the_repository_refuses_is_named(world: World, api: Api) -> None:
    """A schema of the user's leaves the check of a text to the repository."""
    before = stored(world.owner)
    answer = post(api, "/own", lines=[{"sku": "x"}, {"sku": "a\0b"}])
    assert (answer.status_code, answer.json()["fields"], answer.json()["index"]) == (422, ["lines.sku"], 1)
    assert stored(world.owner) == before


REFUSED: dict[str, tuple[int, Any, int | None, list[str], Any]] = {
    "twice": (409, 2, None, ["lines.sku"], {"lines": [{"sku": "x"}, {"sku": "y"}, {"sku": "x"}]}),
    "check": (409, 1, None, ["lines"], {"lines": [{"sku": "x"}, {"sku": "y", "quantity": 0}]}),
    "reference": (409, 1, None, ["lines.customer_id"], {"lines": [{"sku": "x"}, {"sku": "y", "customer_id": 99}]}),
    "second relationship": (422, None, ["body", "notes", "1", "text"], [], {"notes": [{"text": "x"}, {}]}),
    "key": (422, None, ["body", "lines", "0", "order_id"], [], {"lines": [{"sku": "x", "order_id": 1}]}),
    "null": (422, None, ["body", "lines"], [], {"lines": None}),
    "many": (422, None, ["body", "lines"], [], {"lines": [{"sku": "x"}] * 1001}),
    "parent": (409, None, None, ["number"], {"number": "other", "lines": [{"sku": "x"}]}),
}  # fmt: skip
"""The status, the index, the place and the fields of the problem, and the body."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_child_is_named_and_nothing_is_written(world: World, api: Api, name: str) -> None:
    status, index, loc, fields, data = REFUSED[name]
    before = stored(world.owner)
    answer = post(api, **data)
    problem = answer.json()
    assert (answer.status_code, problem.get("index"), problem.get("fields", [])) == (status, index, fields)
    if loc is not None:
        assert problem["errors"][0]["loc"] == loc
    assert stored(world.owner) == before


def test_the_statements_do_not_grow_with_the_children(api: Api) -> None:
    def sent(many: int) -> int:
        lines = [{"sku": f"s{place}", "customer_id": 1} for place in range(many)]
        with counted(api.app.state.plugin.database.async_engine.sync_engine) as statements:
            answer = post(api, number=f"n{many}", lines=lines)
        assert len(answer.json()["lines"]) == many
        return sum(each.startswith(("SELECT", "INSERT")) for each in statements)

    assert sent(2) == sent(1000) == 3, "the parent, the references of its children, and the children"


def test_a_repeated_request_creates_no_child(world: World, api: Api) -> None:
    answers = [
        api.post("/orders", tenant="a", json={"number": "x", "lines": LINES}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    assert len(stored(world.owner).tables["item_lines"]) == 3


def test_across_tenants_children_have_their_parents(world: World) -> None:
    world.refill()
    with world.api(tenant=lambda: ALL_TENANTS) as (app, api):
        app.include_router(crud_router(Order, "/orders", TenantOrder, nested=("lines",)))
        answer = api.post("/orders", json={"number": "x", "tenant_id": "b", "lines": [{"sku": "x", "customer_id": 11}]})
        assert answer.status_code == 201, answer.text
        answer = api.post("/orders", json={"number": "x", "tenant_id": "b", "lines": [{"sku": "x", "customer_id": 1}]})
        assert answer.status_code == 409
    lines = stored(world.owner).of("b")["item_lines"]
    assert len(lines) == 1


def test_the_document(api: Api) -> None:
    document = api.app.openapi()
    schemas = document["components"]["schemas"]
    post = document["paths"]["/orders"]["post"]
    body = schemas[post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    lines = body["properties"]["lines"]
    assert lines["maxItems"] == 1000
    assert "order_id" not in schemas[lines["items"]["$ref"].rpartition("/")[2]]["properties"]
    assert "lines" not in body["required"]
    shown = schemas[post["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    assert {"lines", "notes"} <= set(shown["required"])


WRONG: dict[str, tuple[type, dict[str, Any], str]] = {
    "unknown": (Order, {"nested": ("line",)}, "no relationship. There are: "),
    "to one": (Order, {"nested": ("customer",)}, "one-to-many"),
    "many to many": (Order, {"nested": ("labels",)}, "one-to-many"),
    "none": (Label, {"nested": ("x",)}, "There are: none"),
    "text": (Order, {"nested": "lines"}, "sequence of names"),
    "no create": (Order, {"nested": ("lines",), "operations": ["read"]}, "'create'"),
    "bulk": (Order, {"nested": ("lines",), "operations": ["create", "bulk_create"]}, "in bulk"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_has_no_children_is_refused_when_the_router_is_made(name: str) -> None:
    model, options, message = WRONG[name]
    with pytest.raises(ValidationError, match=message):
        crud_router(model, "/rows", **options)


def test_children_of_the_same_class() -> None:
    router = crud_router(Post, "/posts", nested=("replies",))
    assert router.routes
