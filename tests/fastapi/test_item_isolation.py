"""The endpoints for many rows, links and children: no row of another tenant is read, changed, linked or found out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from dotmac_database_fastapi import OPERATIONS
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import RINGS, TENANTS, Order, Slot, World, key_of, stored, world_of
from tests.fastapi.shared_routers import crud_router

KINDS = ("deleted", "foreign", "unknown", "own")
"""The tenant's own row comes last: what is written for it must not be why another one is refused."""


@pytest.fixture(scope="module", params=RINGS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("items")) as world:
        yield world


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Api]:
    with world.api() as (app, api):
        every = [*OPERATIONS, "bulk_create", "bulk_update", "link"]
        app.include_router(crud_router(Order, "/orders", operations=every, links=("labels", "notes")))
        app.include_router(crud_router(Order, "/nested", nested=("lines", "notes")))
        app.include_router(crud_router(Slot, "/slots", operations=every[:-1]))
        yield api


@pytest.fixture
def api(world: World, served: Api) -> Api:
    world.refill()
    return served


def body_of_create(key: int) -> list[dict[str, Any]]:
    return [{"number": "new 1"}, {"number": "new 2", "customer_id": key}]


ROUTES: dict[str, Any] = {
    "bulk create": lambda own, key: ("POST", "/orders/bulk", body_of_create(key), 201, 409),
    "bulk update": lambda own, key: (
        "PATCH", "/orders/bulk", [{"id": own, "note": "x"}, {"id": key, "note": "y"}], 200, 404,
    ),
    "bulk reference": lambda own, key: ("PATCH", "/orders/bulk", [{"id": own, "customer_id": key}], 200, 409),
    "link": lambda own, key: ("PUT", f"/orders/{key}/labels/{own}", None, 204, 404),
    "link to": lambda own, key: ("PUT", f"/orders/{own}/labels/{key}", None, 204, 404),
    "link child of": lambda own, key: ("PUT", f"/orders/{key}/notes/{own}", None, 204, 404),
    "link child": lambda own, key: ("PUT", f"/orders/{own}/notes/{key}", None, 204, 404),
    "unlink": lambda own, key: ("DELETE", f"/orders/{key}/labels/{own}", None, 204, 404),
    "unlink from": lambda own, key: ("DELETE", f"/orders/{own}/labels/{key}", None, 204, 404),
    "unlink child of": lambda own, key: ("DELETE", f"/orders/{key}/notes/{own}", None, 204, 404),
    "unlink child": lambda own, key: ("DELETE", f"/orders/{own}/notes/{key}", None, 204, 404),
    "nested": lambda own, key: (
        "POST", "/nested", {"number": "n", "lines": [{"sku": "x"}, {"sku": "y", "customer_id": key}]}, 201, 409,
    ),
    "nested parent": lambda own, key: (
        "POST", "/nested", {"number": "n", "customer_id": key, "lines": [{"sku": "x"}]}, 201, 409,
    ),
}  # fmt: skip
"""For the key of another row of the tenant, and the key in question: the request, and the statuses if it may and may
not be used."""


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("route", ROUTES)
def test_only_rows_of_the_tenant_are_used(world: World, api: Api, tenant: str, route: str) -> None:
    [other] = set(TENANTS) - {tenant}
    answers = {}
    for kind in KINDS:
        before = stored(world.owner)
        method, path, body, allowed, refused = ROUTES[route](key_of(tenant, "other"), key_of(tenant, kind))
        answer = api.request(method, path, tenant=tenant, json=body)
        assert answer.status_code == (allowed if kind == "own" else refused), (kind, answer.text)
        after = stored(world.owner)
        assert after.of(other) == before.of(other)
        assert (after.of(tenant) == before.of(tenant)) is (kind != "own" or route.startswith("unlink"))
        assert kind == "own" or answer.json()["code"] == ("constraint" if refused == 409 else "not_found")
        answers[kind] = answer
    assert answers["foreign"].content == answers["unknown"].content == answers["deleted"].content
    assert {*answers["foreign"].headers} == {*answers["unknown"].headers}


@pytest.mark.parametrize("tenant", TENANTS)
def test_a_key_without_the_tenant_names_the_tenants_own_row(world: World, api: Api, tenant: str) -> None:
    [other] = set(TENANTS) - {tenant}
    before = stored(world.owner).of(other)
    answer = api.patch("/slots/bulk", tenant=tenant, json=[{"day": 1, "hour": 2, "holder": tenant}])
    assert (answer.status_code, answer.json()) == (200, [{"day": 1, "hour": 2, "holder": tenant}])
    answer = api.post("/slots/bulk", tenant=tenant, json=[{"day": 2, "hour": 1}, {"day": 1, "hour": 1}])
    assert (answer.status_code, answer.json()["index"]) == (409, 1)
    assert stored(world.owner).of(other) == before
    assert [row[-1] for row in stored(world.owner).of(tenant)["item_slots"]] == [None, tenant]


@pytest.mark.parametrize("field", ["tenant_id", "version", "is_deleted"])
def test_a_row_names_no_tenant(world: World, api: Api, field: str) -> None:
    before = stored(world.owner)
    answer = api.post("/orders/bulk", tenant="a", json=[{"number": "x"}, {"number": "y", field: "b"}])
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "1", field])
    answer = api.patch("/orders/bulk", tenant="a", json=[{"id": 1, field: "b"}])
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "0", field])
    answer = api.post("/nested", tenant="a", json={"number": "x", "lines": [{"sku": "x", "tenant_id": "b"}]})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "lines", "0", "tenant_id"])
    assert stored(world.owner) == before


def test_many_tenants_at_once(world: World, api: Api) -> None:
    """Two hundred requests of ten tenants, of which each sees exactly its own rows."""
    tenants = [f"t{number}" for number in range(10)]

    async def work(tenant: str, turn: int) -> None:
        rows = [{"number": f"{turn} {place}", "note": tenant} for place in range(3)]
        made = await api.arequest("POST", "/orders/bulk", tenant=tenant, json=rows)
        assert made.status_code == 201, made.text
        assert [row["note"] for row in made.json()] == [tenant] * 3
        changes = [{"id": row["id"], "note": f"{tenant} {turn}"} for row in made.json()]
        changed = await api.arequest("PATCH", "/orders/bulk", tenant=tenant, json=changes)
        assert changed.status_code == 200, changed.text
        assert [row["note"] for row in changed.json()] == [f"{tenant} {turn}"] * 3
        foreign = await api.arequest("PATCH", "/orders/bulk", tenant="a", json=changes)
        assert foreign.status_code == 404
        body = {"number": f"n {turn}", "note": tenant, "lines": [{"sku": tenant}]}
        nested = await api.arequest("POST", "/nested", tenant=tenant, json=body)
        assert nested.status_code == 201, nested.text
        assert [line["sku"] for line in nested.json()["lines"]] == [tenant]
        link = await api.arequest("PUT", f"/orders/{nested.json()['id']}/labels/1", tenant=tenant)
        assert link.status_code == 404

    async def all_at_once() -> None:
        # SQLite has one writer at a time, and each of the others waits for at most five seconds.
        gate = asyncio.Semaphore(4 if world.owner.engine.dialect.name == "sqlite" else 20)

        async def one(tenant: str, turn: int) -> None:
            async with gate:
                await work(tenant, turn)

        await asyncio.gather(*(one(tenant, turn) for turn in range(4) for tenant in tenants))

    before = stored(world.owner)
    api.run(all_at_once())
    after = stored(world.owner)
    for tenant in TENANTS:
        assert after.of(tenant) == before.of(tenant)
    for tenant in tenants:
        own = after.of(tenant)
        assert len(own["item_orders"]) == 16
        assert len(own["item_lines"]) == 4
