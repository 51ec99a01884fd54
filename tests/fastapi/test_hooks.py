"""Hooks of generated endpoints: what they see, what they change, and that their failure leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict

from dotmac_database import ValidationError, idempotency_metadata
from dotmac_database_fastapi import OPERATIONS
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Customer, Order, World, stored, world_of
from tests.fastapi.shared_routers import crud_router

EVERY = [*OPERATIONS, "bulk_create", "bulk_update"]
ROOT = Path(__file__).parent.parent.parent
NAMES = ("before_create", "after_create", "before_update", "after_update", "before_delete", "after_delete")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("hooks")) as world:
        idempotency_metadata.create_all(world.owner.engine)
        yield world


@pytest.fixture
def mounted(world: World) -> Iterator[Any]:
    """A function that serves the orders with these hooks."""
    world.refill()
    with world.api() as (app, api):

        def mount(hooks: Any, **options: Any) -> Api:
            app.include_router(crud_router(Order, "/orders", operations=EVERY, hooks=hooks, **options))
            return api

        yield mount


class Recording:
    """Hooks that record what they see, some of them async."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def before_create(self, data: Any, repository: Any) -> Any:
        self.calls.append(("before_create", data.number, repository.tenant_id))
        return data

    def after_create(self, entity: Order, repository: Any) -> None:
        self.calls.append(("after_create", entity.number, entity.id is not None))

    def before_update(self, entity_id: Any, data: Any, repository: Any) -> Any:
        self.calls.append(("before_update", entity_id, data.model_fields_set - {"id"}))
        return data

    async def after_update(self, entity: Order, repository: Any) -> None:
        self.calls.append(("after_update", entity.id, entity.note))

    def before_delete(self, entity_id: Any, repository: Any) -> None:
        self.calls.append(("before_delete", entity_id))

    async def after_delete(self, entity_id: Any, repository: Any) -> None:
        self.calls.append(("after_delete", entity_id, await repository.exists(entity_id)))


REQUESTS: dict[str, tuple[str, str, Any, list[Any]]] = {
    "create": ("POST", "/orders", {"number": "x"}, [("before_create", "x", "a"), ("after_create", "x", True)]),
    "bulk create": (
        "POST", "/orders/bulk", [{"number": "x"}, {"number": "y"}],
        [("before_create", "x", "a"), ("before_create", "y", "a"), ("after_create", "x", True),
         ("after_create", "y", True)],
    ),
    "update": (
        "PATCH", "/orders/1", {"note": "n"}, [("before_update", 1, {"note"}), ("after_update", 1, "n")],
    ),
    "bulk update": (
        "PATCH", "/orders/bulk", [{"id": 3, "note": "n"}, {"id": 1}],
        [("before_update", 3, {"note"}), ("before_update", 1, set()), ("after_update", 3, "n"),
         ("after_update", 1, None)],
    ),
    "delete": ("DELETE", "/orders/1", None, [("before_delete", 1), ("after_delete", 1, False)]),
    "read": ("GET", "/orders/1", None, []),
    "restore": ("POST", "/orders/2/restore", None, []),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_each_hook_is_called_once_for_each_row(mounted: Any, name: str) -> None:
    method, path, body, calls = REQUESTS[name]
    hooks = Recording()
    assert mounted(hooks).request(method, path, tenant="a", json=body).is_success
    assert hooks.calls == calls


FAILURES: dict[str, Callable[[], Exception]] = {
    "HTTPException": lambda: HTTPException(418, "teapot"),
    "of the toolkit": lambda: ValidationError("no", field="number"),
    "other": LookupError,
}


class Failing:
    """One hook, which raises an exception of this kind."""

    kind = "other"

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._fail)

    def _fail(self, *_: Any) -> Any:
        failure = FAILURES[Failing.kind]
        raise failure()


@pytest.fixture(scope="module")
def failing(world: World) -> Iterator[Api]:
    """An app with a router for each hook, whose path is the hook's name."""
    with world.api() as (app, api):
        for hook in NAMES:
            app.include_router(crud_router(Order, f"/{hook}/orders", operations=EVERY, hooks=Failing(hook)))
            app.include_router(crud_router(Customer, f"/{hook}/customers", hooks=Failing(hook)))
        yield api


@pytest.mark.parametrize("hook", [hook for hook in NAMES if hook.startswith("after")])
def test_a_write_that_could_be_committed_at_once_waits_for_its_hook(world: World, failing: Api, hook: str) -> None:
    """Nothing refers to rows of tenants, so that without a hook the write would be a transaction by itself."""
    world.refill()
    before = stored(world.owner)
    Failing.kind = "HTTPException"
    sent = {
        "after_create": "POST /customers",
        "after_update": "PATCH /customers/1",
        "after_delete": "DELETE /customers/1",
    }
    method, _, path = sent[hook].partition(" ")
    answer = failing.request(method, f"/{hook}{path}", tenant="a", json=None if method == "DELETE" else {"name": "x"})
    assert answer.status_code == 418
    assert stored(world.owner) == before


@pytest.mark.parametrize("hook", NAMES)
@pytest.mark.parametrize("name", ["create", "bulk create", "update", "bulk update", "delete"])
def test_a_hook_that_fails_leaves_nothing(world: World, failing: Api, name: str, hook: str) -> None:
    method, path, body, calls = REQUESTS[name]
    world.refill()
    before = stored(world.owner)

    def answer(kind: str) -> Any:
        Failing.kind = kind
        return failing.request(method, f"/{hook}{path}", tenant="a", json=body)

    if hook not in {each[0] for each in calls}:
        assert answer("other").is_success
        return
    refused = answer("HTTPException")
    assert (refused.status_code, refused.json()["detail"]) == (418, "teapot")
    refused = answer("of the toolkit")
    assert (refused.status_code, refused.json()["fields"]) == (422, ["number"])
    assert refused.json().get("index") == (0 if name.startswith("bulk") else None)
    with pytest.raises(LookupError):
        answer("other")
    assert stored(world.owner) == before


class SignUp(BaseModel):
    """A schema with a field that is no column."""

    model_config = ConfigDict(extra="forbid")

    number: str = ""
    password: str = ""


@pytest.mark.parametrize("result", ["dict", "model"])
def test_a_field_that_is_no_column_becomes_one_that_is(mounted: Any, result: str) -> None:
    class Hashed(BaseModel):
        number: str
        note: str

    class Hooks:
        def before_create(self, data: SignUp, repository: Any) -> Any:
            values = {"number": data.number, "note": data.password[::-1]}
            return values if result == "dict" else Hashed(**values)

        async def before_update(self, entity_id: int, data: SignUp, repository: Any) -> Any:
            return {"note": data.password.upper()}

    api = mounted(Hooks(), create_schema=SignUp, update_schema=SignUp)
    answer = api.post("/orders", tenant="a", json={"number": "x", "password": "abc"})
    assert (answer.status_code, answer.json()["note"]) == (201, "cba")
    changed = api.patch(answer.headers["location"], tenant="a", json={"password": "abc"})
    assert (changed.status_code, changed.json()["note"], changed.json()["number"]) == (200, "ABC", "x")
    rows = [{"number": "y", "password": "de"}, {"number": "z", "password": "fg"}]
    made = api.post("/orders/bulk", tenant="a", json=rows)
    assert [row["note"] for row in made.json()] == ["ed", "gf"]
    changes = [{"id": row["id"], "password": "q"} for row in made.json()]
    assert [row["note"] for row in api.patch("/orders/bulk", tenant="a", json=changes).json()] == ["Q", "Q"]


def test_without_the_hook_it_is_refused(mounted: Any) -> None:
    api = mounted(None, create_schema=SignUp)
    assert api.post("/orders", tenant="a", json={"number": "x", "password": "abc"}).status_code == 422


def test_what_a_hook_writes_is_part_of_the_transaction(world: World, mounted: Any) -> None:
    class Hooks:
        async def after_create(self, entity: Order, repository: Any) -> None:
            entity.note = "set"
            if entity.number != "copy":
                await repository.create({"number": "copy"})

        async def after_update(self, entity: Order, repository: Any) -> None:
            await repository.update(entity.id, {"total": entity.total + 1})

    api = mounted(Hooks())
    answer = api.post("/orders", tenant="a", json={"number": "x"})
    assert answer.json()["note"] == "set"
    assert api.get(answer.headers["location"], tenant="a").json() == answer.json()
    before = stored(world.owner)
    assert api.post("/orders", tenant="a", json={"number": "y"}).status_code == 409
    assert stored(world.owner) == before
    changed = api.patch("/orders/1", tenant="a", json={"note": "n"})
    assert (changed.json()["total"], changed.json()["version"]) == (2, 3)
    assert changed.headers["etag"] == '"3"'
    assert api.get("/orders/1", tenant="a").json() == changed.json()
    rows = api.patch("/orders/bulk", tenant="a", json=[{"id": 1, "note": "m"}, {"id": 3, "note": "m"}]).json()
    assert rows == [api.get(f"/orders/{row['id']}", tenant="a").json() for row in rows]
    assert [row["total"] for row in rows] == [3, 2]


def test_a_hook_can_not_lead_to_another_tenants_row(world: World, mounted: Any) -> None:
    class Hooks:
        def before_create(self, data: Any, repository: Any) -> Any:
            return {"number": data.number, "customer_id": 11}

        def before_update(self, entity_id: int, data: Any, repository: Any) -> Any:
            return {"customer_id": 11}

    api = mounted(Hooks())
    before = stored(world.owner)
    for name in ("create", "bulk create", "update", "bulk update"):
        method, path, body, _ = REQUESTS[name]
        answer = api.request(method, path, tenant="a", json=body)
        assert (answer.status_code, answer.json()["fields"]) == (409, ["customer_id"])
    assert stored(world.owner) == before


def test_a_before_hook_may_run_for_a_row_that_is_missing_and_an_after_hook_not(mounted: Any) -> None:
    hooks = Recording()
    api = mounted(hooks)
    assert api.delete("/orders/99", tenant="a").status_code == 404
    assert api.patch("/orders/99", tenant="a", json={"note": "n"}).status_code == 404
    assert not [call for call in hooks.calls if call[0].startswith("after")]


def test_hooks_are_not_called_for_a_repeated_request(mounted: Any) -> None:
    hooks = Recording()
    api = mounted(hooks, idempotency=True)
    for _ in range(2):
        for path, body in (("/orders", {"number": "x"}), ("/orders/bulk", [{"number": "y"}])):
            headers = {"Idempotency-Key": path}
            assert api.post(path, tenant="a", json=body, headers=headers).status_code == 201
    assert len(hooks.calls) == 4


def test_children_and_hooks(mounted: Any) -> None:
    seen: list[Any] = []

    class Hooks:
        def before_create(self, data: Any, repository: Any) -> Any:
            seen.append(len(data.lines))
            return {"number": data.number, "lines": [{"sku": line.sku.upper()} for line in data.lines]}

        async def after_create(self, entity: Order, repository: Any) -> None:
            await repository.db.refresh(entity, ["lines"])
            seen.append([line.sku for line in entity.lines])

    api = mounted(None)
    api.app.include_router(crud_router(Order, "/nested", nested=("lines",), hooks=Hooks()))
    answer = api.post("/nested", tenant="a", json={"number": "n", "lines": [{"sku": "a"}, {"sku": "b"}]})
    assert answer.status_code == 201, answer.text
    assert [line["sku"] for line in answer.json()["lines"]] == ["A", "B"]
    assert seen == [2, ["A", "B"]]


@pytest.mark.parametrize("name", ["create", "bulk create", "update", "bulk update"])
def test_a_hook_that_returns_nothing_is_an_error_of_the_server(world: World, mounted: Any, name: str) -> None:
    method, path, body, _ = REQUESTS[name]
    before = stored(world.owner)
    hook = f"before_{name.rpartition(' ')[2]}"
    answer = mounted(SimpleNamespace(**{hook: lambda *_: None})).request(method, path, tenant="a", json=body)
    assert answer.status_code == 500
    assert stored(world.owner) == before


WRONG: dict[str, tuple[Any, str]] = {
    "misspelt": (SimpleNamespace(before_creat=print), "no hook 'before_creat'. There are: before_create, "),
    "class": (Recording, "not the class Recording"),
    "no function": (SimpleNamespace(after_create=1), "after_create is not a function"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_hook_is_refused_when_the_router_is_made(name: str) -> None:
    hooks, message = WRONG[name]
    with pytest.raises(ValidationError, match=message):
        crud_router(Order, "/orders", hooks=hooks)


def test_the_example_of_the_documents_runs(world: World) -> None:
    section = (ROOT / "docs/fastapi.md").read_text().partition("### Many rows, links, children and hooks")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    world.refill()
    with world.api() as (app, api):
        exec(example, {"app": app, "crud_router": crud_router, "Order": Order, "HTTPException": HTTPException})
        answer = api.post("/orders", tenant="a", json={"number": "x"})
        assert (answer.status_code, answer.json()["note"]) == (201, "new")
        before = stored(world.owner)
        rows = [{"number": "y"}, {"number": "z", "total": 2000}]
        assert api.post("/orders/bulk", tenant="a", json=rows).status_code == 403
        assert stored(world.owner) == before
        assert api.request("PUT", f"/orders/{answer.json()['id']}/labels/1", tenant="a").status_code == 204
        made = api.post("/carts", tenant="a", json={"number": "c", "lines": [{"sku": "s"}]})
        assert [line["sku"] for line in made.json()["lines"]] == ["s"]


def test_other_attributes_of_the_object_are_its_own() -> None:
    assert crud_router(Order, "/orders", hooks=SimpleNamespace(_before_x=1, helper=print, before=2)).routes
