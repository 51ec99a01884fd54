"""``PUT`` and ``DELETE /{id}/tags/{tag_id}``: the links of a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dotmac_database import ValidationError
from dotmac_database_fastapi import OPERATIONS
from tests.conftest import counted
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.item_models import Label, Order, Slot, World, order_labels, stored, world_of
from tests.fastapi.shared_routers import crud_router

EVERY = [*OPERATIONS, "link"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("links")) as world:
        yield world


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Api]:
    with world.api() as (app, api):
        app.include_router(crud_router(Order, "/orders", operations=EVERY, links=("labels", "notes")))
        yield api


@pytest.fixture
def api(world: World, served: Api) -> Api:
    world.refill()
    return served


def links(world: World) -> list[tuple[Any, ...]]:
    return stored(world.owner).tables[order_labels.name]


@pytest.mark.parametrize("times", [1, 2])
def test_a_link_is_made_and_removed_once(world: World, api: Api, times: int) -> None:
    before = links(world)
    for _ in range(times):
        answer = api.request("PUT", "/orders/1/labels/3", tenant="a")
        assert (answer.status_code, answer.content) == (204, b"")
    assert links(world) == sorted([*before, (1, 3)])
    for _ in range(times):
        answer = api.delete("/orders/1/labels/3", tenant="a")
        assert (answer.status_code, answer.content) == (204, b"")
    assert links(world) == before


def test_a_child_is_linked_and_unlinked(world: World, api: Api) -> None:
    def order_of(note: int) -> Any:
        return next(row[2] for row in stored(world.owner).tables["item_notes"] if row[0] == note)

    columns = list(stored(world.owner).tables["item_notes"][0])
    assert 1 in columns
    for order in (1, 3):
        assert api.request("PUT", f"/orders/{order}/notes/1", tenant="a").status_code == 204
        assert order_of(1) == order
    assert api.delete("/orders/1/notes/1", tenant="a").status_code == 204
    assert order_of(1) == 3, "it is a child of another row"
    assert api.delete("/orders/3/notes/1", tenant="a").status_code == 204
    assert order_of(1) is None


def test_which_row_does_not_exist(api: Api) -> None:
    assert api.request("PUT", "/orders/99/labels/1", tenant="a").json()["detail"] == "There is no such Order."
    assert api.request("PUT", "/orders/1/labels/99", tenant="a").json()["detail"] == "There is no such Label."
    assert api.request("PUT", "/orders/1/labels/x", tenant="a").status_code == 422
    assert api.request("PUT", "/orders/1/lines/1", tenant="a").status_code == 404


def test_the_methods_and_the_statements(api: Api) -> None:
    answer = api.request("OPTIONS", "/orders/1/labels/1")
    assert {"PUT", "DELETE"} <= set(answer.headers["allow"].split(", "))
    with counted(api.app.state.plugin.database.async_engine.sync_engine) as sent:
        api.request("PUT", "/orders/1/labels/3", tenant="a")
    assert sum(each.startswith(("SELECT", "INSERT", "UPDATE")) for each in sent) <= 4


def test_the_document(api: Api) -> None:
    paths = inlined(api.app.openapi())["paths"]
    link, unlink = (paths["/orders/{id}/labels/{label_id}"][method] for method in ("put", "delete"))
    assert (link["operationId"], unlink["operationId"]) == ("linkOrderLabel", "unlinkOrderLabel")
    assert {"204", "404", "409", "422", "503", "400"} == link["responses"].keys() == unlink["responses"].keys()
    assert [each["name"] for each in link["parameters"]] == ["id", "label_id", "X-Tenant-ID"]
    assert paths["/orders/{id}/notes/{note_id}"]["put"]["operationId"] == "linkOrderNote"


WRONG: dict[str, tuple[type, dict[str, Any], str]] = {
    "unknown": (Order, {"links": ("lables",)}, "lables"),
    "column": (Order, {"links": ("number",)}, "number"),
    "to one": (Order, {"links": ("customer",)}, "leads to one row"),
    "required": (Order, {"links": ("lines",)}, "can't be NULL"),
    "text": (Order, {"links": "labels"}, "sequence of names"),
    "no operation": (Order, {"links": ("labels",), "operations": OPERATIONS}, "name 'link' in operations"),
    "no links": (Label, {}, "'link' needs links"),
    "none": (Slot, {"links": ("labels",)}, "labels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_link_is_refused_when_the_router_is_made(name: str) -> None:
    model, options, message = WRONG[name]
    with pytest.raises(ValidationError, match=message):
        crud_router(model, "/rows", **{"operations": EVERY, **options})
