"""``POST`` and ``PATCH /bulk``: many rows in one transaction, in order, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import Depends, HTTPException
from pydantic import BaseModel

from dotmac_database import AsyncTenantRepository, DatabaseUnavailableError, idempotency_metadata
from dotmac_database_fastapi import OPERATIONS
from tests.conftest import counted
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Customer, Order, Slot, Word, World, stored, world_of
from tests.fastapi.shared_routers import crud_router

EVERY = [*OPERATIONS, "bulk_create", "bulk_update"]
CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


class NewOrder(BaseModel):
    """A schema of the user's that leaves some checks to the repository and to the database."""

    number: Any = None
    total: int = 0
    tenant_id: str | None = None
    customer_id: int | None = None


class ReadOrder(BaseModel, from_attributes=True):
    """A schema with related rows."""

    number: str
    customer: Named | None
    lines: list[Named]


class Named(BaseModel, from_attributes=True):
    name: str


ReadOrder.model_rebuild()


class OwnRepository(AsyncTenantRepository[Order]):
    """A repository whose methods must not be called twice."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("bulk")) as world:
        idempotency_metadata.create_all(world.owner.engine)
        yield world


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Api]:
    with world.api() as (app, api):
        app.include_router(crud_router(Order, "/orders", operations=EVERY, idempotency=True))
        app.include_router(crud_router(Order, "/loose", NewOrder, NewOrder, operations=EVERY))
        app.include_router(crud_router(Order, "/mine", operations=EVERY, repository=OwnRepository))
        app.include_router(crud_router(Order, "/related", read_schema=ReadOrder, operations=EVERY))
        app.include_router(crud_router(Slot, "/slots", operations=EVERY))
        app.include_router(crud_router(Word, "/words", operations=EVERY))
        app.include_router(crud_router(Customer, "/customers", operations=["bulk_create"]))
        app.include_router(crud_router(Customer, "", operations=["bulk_create"]))
        yield api


@pytest.fixture
def api(world: World, served: Api) -> Api:
    world.refill()
    with world.owner.engine.begin() as connection:
        connection.execute(sa.delete(idempotency_metadata.tables["dotmac_idempotency_keys"]))
    return served


def post(api: Api, rows: Any, path: str = "/orders/bulk", **options: Any) -> Any:
    return api.post(path, tenant="a", json=rows, **options)


def patch(api: Api, rows: Any, path: str = "/orders/bulk", **options: Any) -> Any:
    return api.patch(path, tenant="a", json=rows, **options)


def numbers(many: int) -> list[dict[str, Any]]:
    return [{"number": f"n{place}"} for place in range(many)]


class TestRows:
    def test_rows_are_created_in_order(self, api: Api) -> None:
        rows = [{"number": "z"}, {"number": "a", "note": "n"}, {"number": "m", "total": 5, "customer_id": 1}]
        answer = post(api, rows)
        assert answer.status_code == 201
        assert "etag" not in answer.headers
        made = answer.json()
        assert [{key: row[key] for key in sent} for row, sent in zip(made, rows, strict=True)] == rows
        assert [row["version"] for row in made] == [1, 1, 1]
        assert [api.get(f"/orders/{row['id']}", tenant="a").json() for row in made] == made

    def test_rows_change_only_what_is_set(self, api: Api) -> None:
        made = post(api, [{"number": "x", "note": "1", "total": 1}, {"number": "y", "note": "2", "total": 2}]).json()
        changes = [{"id": made[1]["id"], "note": None}, {"id": made[0]["id"], "total": 9, "number": "w"}]
        answer = patch(api, changes)
        assert answer.status_code == 200
        assert "etag" not in answer.headers
        assert answer.json() == [
            {**made[1], "note": None, "version": 2},
            {**made[0], "total": 9, "number": "w", "version": 2},
        ]
        assert [api.get(f"/orders/{row['id']}", tenant="a").json() for row in answer.json()] == answer.json()

    def test_a_row_with_its_key_alone_is_not_changed(self, api: Api) -> None:
        answer = patch(api, [{"id": 1}, {"id": 3, "note": "x"}])
        assert [(row["id"], row["note"], row["version"]) for row in answer.json()] == [(1, None, 1), (3, "x", 2)]

    @pytest.mark.parametrize("many", [0, 1001])
    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    def test_too_few_and_too_many_rows(self, world: World, api: Api, method: str, many: int) -> None:
        before = stored(world.owner)
        answer = api.request(method, "/orders/bulk", tenant="a", json=[{"id": 1, "number": "x"}] * many)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body"]
        assert stored(world.owner) == before

    @pytest.mark.parametrize("body", [{"number": "x"}, "x", None, [[]], [None]])
    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    def test_what_is_no_list_of_rows(self, api: Api, method: str, body: Any) -> None:
        assert api.request(method, "/orders/bulk", tenant="a", json=body).status_code == 422

    @pytest.mark.parametrize(("method", "status"), [("POST", 201), ("PATCH", 204)])
    def test_the_client_may_prefer_no_body(self, api: Api, method: str, status: int) -> None:
        rows = [{"number": "x"}] if method == "POST" else [{"id": 1, "note": "x"}]
        answer = api.request(method, "/orders/bulk", tenant="a", json=rows, headers={"Prefer": "return=minimal"})
        assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["preference-applied"] == "return=minimal"

    def test_a_schema_with_related_rows(self, api: Api) -> None:
        made = post(api, [{"number": "x", "customer_id": 1}, {"number": "y"}], "/related/bulk")
        related = [
            {"number": "x", "customer": {"name": "own"}, "lines": []},
            {"number": "y", "customer": None, "lines": []},
        ]
        assert (made.status_code, made.json()) == (201, related)
        changed = patch(api, [{"id": 3, "customer_id": 3}], "/related/bulk")
        assert changed.json() == [{"number": "other", "customer": {"name": "other"}, "lines": []}]

    def test_a_prefix_is_not_needed(self, api: Api) -> None:
        assert post(api, [{"name": "x"}], "/bulk").status_code == 201
        assert post(api, [{"name": "x"}], "/customers/bulk").status_code == 201

    def test_the_methods_of_the_path(self, api: Api) -> None:
        for path, allowed in (("/orders/bulk", "OPTIONS, PATCH, POST"), ("/customers/bulk", "OPTIONS, POST")):
            for method in ("OPTIONS", "GET", "HEAD", "PUT", "DELETE"):
                answer = api.request(method, path, tenant="a")
                assert answer.status_code == (204 if method == "OPTIONS" else 405)
                assert answer.headers["allow"] == allowed

    def test_no_row_has_the_path_as_its_key(self, api: Api) -> None:
        for path, body in (("/words", {"word": "bulk"}), ("/words/bulk", [{"word": "x"}, {"word": "bulk"}])):
            answer = api.post(path, tenant="a", json=body)
            assert (answer.status_code, answer.json()["fields"]) == (422, ["word"])
        assert answer.json()["index"] == 1
        assert api.delete("/words/bulk", tenant="a").status_code == 405


REFUSED: dict[str, tuple[str, int, int | None, str, list[dict[str, Any]]]] = {
    "as a stored row": ("POST /orders", 409, 4, "number", [*numbers(4), {"number": "other"}, {"number": "n5"}]),
    "as a deleted row": ("POST /orders", 409, 0, "number", [{"number": "deleted"}, {"number": "x"}]),
    "as a row before": ("POST /orders", 409, 5, "number", [*numbers(5), {"number": "n3"}, {"number": "x"}]),
    "as a row with other fields": (
        "POST /orders", 409, 2, "number", [{"number": "x", "note": "n"}, {"number": "y"}, {"number": "x"}]
    ),
    "check": ("POST /orders", 409, 3, "", [*numbers(3), {"number": "x", "total": -1}, {"number": "y", "total": -1}]),
    "reference": ("POST /orders", 409, 1, "customer_id", [{"number": "x"}, {"number": "y", "customer_id": 2}]),
    "key": ("POST /slots", 409, 1, "day hour", [{"day": 2, "hour": 1}, {"day": 1, "hour": 1}]),
    "key twice": ("POST /slots", 409, 1, "day hour", [{"day": 2, "hour": 1}] * 2),
    "foreign tenant": ("POST /loose", 403, 1, "", [{"number": "x"}, {"number": "y", "tenant_id": "b"}]),
    "null": ("POST /loose", 422, 1, "number", [{"number": "x"}, {"number": None}]),
    "NUL": ("POST /loose", 422, 1, "number", [{"number": "x"}, {"number": "x\0"}]),
    "no reference": ("POST /loose", 409, 1, "customer_id", [{"number": "x"}, {"number": "y", "customer_id": 99}]),
    "own repository": ("POST /mine", 409, None, "number", [{"number": "x"}, {"number": "other"}]),
    "one row": ("POST /orders", 409, 0, "number", [{"number": "other"}]),
    "unknown": ("PATCH /orders", 404, 1, "", [{"id": 1, "note": "x"}, {"id": 99, "note": "x"}]),
    "deleted": ("PATCH /orders", 404, 1, "", [{"id": 1, "note": "x"}, {"id": 2, "note": "x"}]),
    "twice": ("PATCH /orders", 422, 2, "id", [{"id": 1, "note": "x"}, {"id": 3}, {"id": 1, "total": 2}]),
    "changed as a row": ("PATCH /orders", 409, 1, "number", [{"id": 1}, {"id": 3, "number": "deleted"}]),
    "changed alike": ("PATCH /orders", 409, 1, "number", [{"id": 1, "number": "x"}, {"id": 3, "number": "x"}]),
    "changed check": ("PATCH /orders", 409, 1, "", [{"id": 1, "total": 5}, {"id": 3, "total": -5}]),
    "changed reference": ("PATCH /orders", 409, 1, "customer_id", [{"id": 1}, {"id": 3, "customer_id": 2}]),
    "changed to null": ("PATCH /loose", 422, 1, "number", [{"id": 1, "total": 5}, {"id": 3, "number": None}]),
}  # fmt: skip
"""The request, the status, the index and the fields of the problem, and the rows."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_row_is_named_and_nothing_is_written(world: World, api: Api, name: str) -> None:
    request, status, index, fields, rows = REFUSED[name]
    before = stored(world.owner)
    answer = api.request(*f"{request}/bulk".split(), tenant="a", json=rows)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    assert answer.json().get("index") == index
    assert answer.json().get("fields", []) == fields.split()
    assert stored(world.owner) == before
    assert api.get("/orders/1", tenant="a").status_code == 200


def test_if_the_refused_row_cant_be_looked_for_the_first_error_is_the_answer(world: World, api: Api) -> None:
    """The connection is lost after the statement that was refused."""
    engine = api.app.state.plugin.database.async_engine.sync_engine

    def lost(*_: Any) -> None:
        raise DatabaseUnavailableError("The connection is lost.")

    before = stored(world.owner)
    sa.event.listen(engine, "savepoint", lost)
    try:
        answer = post(api, [*numbers(4), {"number": "other"}, {"number": "n5"}])
    finally:
        sa.event.remove(engine, "savepoint", lost)
    assert (answer.status_code, answer.json()["fields"], answer.json().get("index")) == (409, ["number"], None)
    assert stored(world.owner) == before
    assert post(api, numbers(2)).status_code == 201


class TestStatements:
    """A thousand rows take as many statements as two, on both databases."""

    def sent(self, api: Api, method: str, rows: Any, path: str = "/orders/bulk") -> list[str]:
        with counted(api.app.state.plugin.database.async_engine.sync_engine) as sent:
            answer = api.request(method, path, tenant="a", json=rows)
        assert answer.status_code in (200, 201), answer.text
        assert len(answer.json()) == len(rows)
        return [each for each in sent if not each.startswith(CONTROL)]

    def test_of_a_post(self, world: World, api: Api) -> None:
        few = self.sent(api, "POST", [{"number": f"x{place}", "customer_id": 1 + 2 * place} for place in range(2)])
        many = self.sent(
            api, "POST", [{"number": f"y{place}", "customer_id": 1 + place % 2 * 2} for place in range(1000)]
        )
        assert [each.split()[0] for each in few] == ["SELECT", "INSERT"], "the references, and the rows"
        # SQLite takes no arrays: its INSERT has a limited number of values.
        assert [each.split()[0] for each in many] == ["SELECT", "INSERT"], many

    @pytest.mark.fast_way("update-statements")
    def test_of_a_patch(self, world: World, api: Api) -> None:
        ids = [row["id"] for row in post(api, numbers(1000)).json()]
        few = self.sent(api, "PATCH", [{"id": each, "note": "x", "customer_id": 1} for each in ids[:2]])
        many = self.sent(api, "PATCH", [{"id": each, "note": "y", "customer_id": 1} for each in ids])
        locks = 2 if world.owner.engine.dialect.name == "sqlite" else 1
        assert len(few) == 2 * locks + 2, "locks, the references, the changes, and the rows as they are then"
        assert len(many) <= len(few) + 1

    def test_of_a_refusal(self, api: Api) -> None:
        with counted(api.app.state.plugin.database.async_engine.sync_engine) as sent:
            answer = post(api, [*numbers(999), {"number": "n7"}])
        assert answer.json()["index"] == 999
        assert len([each for each in sent if not each.startswith(CONTROL)]) < 60


@pytest.mark.parametrize("world", ["postgresql"], indirect=True, scope="module")
def test_requests_for_the_same_rows_wait_for_each_other(world: World, api: Api) -> None:
    """The rows are locked in the order of their keys, whatever the order of the request is."""
    ids = [row["id"] for row in post(api, numbers(50)).json()]

    async def burst() -> list[Any]:
        orders = (ids, ids[::-1], ids[25:] + ids[:25])
        bodies = [[{"id": each, "note": str(turn)} for each in order] for turn, order in enumerate(orders * 4)]
        return await asyncio.gather(*(api.arequest("PATCH", "/orders/bulk", tenant="a", json=body) for body in bodies))

    assert [answer.status_code for answer in api.run(burst())] == [200] * 12
    rows = [api.get(f"/orders/{each}", tenant="a").json() for each in ids]
    assert len({row["note"] for row in rows}) == 1
    assert {row["version"] for row in rows} == {13}


class TestIdempotency:
    def keyed(self, rows: Any, key: str = "k") -> dict[str, Any]:
        return {"tenant": "a", "json": rows, "headers": {"Idempotency-Key": key}}

    def test_a_repeated_request_writes_nothing(self, world: World, api: Api) -> None:
        first = api.post("/orders/bulk", **self.keyed(numbers(3)))
        after = stored(world.owner)
        again = api.post("/orders/bulk", **self.keyed(numbers(3)))
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        assert stored(world.owner) == after
        other = api.post("/orders/bulk", **self.keyed(numbers(2)))
        assert (other.status_code, other.json()["fields"]) == (422, ["Idempotency-Key"])
        single = api.post("/orders", **self.keyed(numbers(1)[0]))
        assert (single.status_code, single.json()["fields"]) == (422, ["Idempotency-Key"])

    def test_a_refused_request_leaves_the_key_free(self, api: Api) -> None:
        assert api.post("/orders/bulk", **self.keyed([{"number": "x"}, {"number": "other"}])).status_code == 409
        assert api.post("/orders/bulk", **self.keyed([{"number": "x"}])).status_code == 201

    @pytest.mark.parametrize("path", ["/orders/bulk", "/orders"])
    def test_of_two_at_once_one_writes(self, world: World, api: Api, path: str) -> None:
        rows: Any = numbers(3) if path.endswith("bulk") else numbers(1)[0]
        before = len(stored(world.owner).of("a")["item_orders"])

        async def burst() -> list[Any]:
            return await asyncio.gather(*(api.arequest("POST", path, **self.keyed(rows)) for _ in range(2)))

        answers = api.run(burst())
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 1
        assert len(stored(world.owner).of("a")["item_orders"]) == before + (3 if path.endswith("bulk") else 1)


class TestCommit:
    @pytest.mark.parametrize(("method", "rows"), [("POST", numbers(3)), ("PATCH", [{"id": 1, "note": "x"}])])
    def test_a_failed_commit_is_no_success(self, world: World, api: Api, method: str, rows: Any) -> None:
        def fails(_session: Any) -> None:
            raise HTTPException(418)

        sessions: Any = sa.orm.Session
        before = stored(world.owner)
        sa.event.listen(sessions, "before_commit", fails)
        try:
            answer = api.request(method, "/orders/bulk", tenant="a", json=rows)
        finally:
            sa.event.remove(sessions, "before_commit", fails)
        assert answer.status_code == 418
        assert stored(world.owner) == before


@pytest.mark.parametrize("world", ["postgresql"], indirect=True, scope="module")
def test_a_constraint_that_is_checked_at_the_commit(world: World, api: Api) -> None:
    name = "item_orders_tenant_id_number_key"
    change = f"ALTER TABLE item_orders DROP CONSTRAINT {name}, ADD CONSTRAINT {name} UNIQUE (tenant_id, number)"
    before = stored(world.owner)
    with world.owner.engine.begin() as connection:
        connection.exec_driver_sql(f"{change} DEFERRABLE INITIALLY DEFERRED")
    try:
        answer = post(api, [{"number": "x"}, {"number": "other"}])
    finally:
        with world.owner.engine.begin() as connection:
            connection.exec_driver_sql(change)
    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate")
    assert "index" not in answer.json(), "it is unknown"
    assert stored(world.owner) == before


def refused() -> None:
    raise HTTPException(403)


def allowed() -> None:
    """Nothing is refused."""


PERMISSIONS: list[tuple[Any, set[str]]] = [
    ({"create": Depends(refused)}, {"POST /orders", "POST /orders/bulk"}),
    ({"update": Depends(refused)}, {"PATCH /orders/1", "PATCH /orders/bulk", "PUT /orders/1/labels/3"}),
    ({"bulk_create": Depends(refused)}, {"POST /orders/bulk"}),
    ({"bulk_update": Depends(refused)}, {"PATCH /orders/bulk"}),
    ({"link": Depends(refused)}, {"PUT /orders/1/labels/3"}),
    ({"update": Depends(refused), "link": Depends(allowed)}, {"PATCH /orders/1", "PATCH /orders/bulk"}),
    ({"create": Depends(refused), "bulk_create": Depends(allowed)}, {"POST /orders"}),
    ({"update": Depends(refused), "bulk_update": Depends(allowed)}, {"PATCH /orders/1", "PUT /orders/1/labels/3"}),
]
REQUESTS: dict[str, Any] = {
    "POST /orders": {"number": "1"},
    "POST /orders/bulk": [{"number": "2"}],
    "PATCH /orders/1": {"note": "x"},
    "PATCH /orders/bulk": [{"id": 1, "note": "x"}],
    "PUT /orders/1/labels/3": None,
}


@pytest.mark.parametrize(("permissions", "forbidden"), PERMISSIONS)
def test_which_permission_is_needed(world: World, permissions: Any, forbidden: set[str]) -> None:
    world.refill()
    with world.api() as (app, api):
        app.include_router(
            crud_router(Order, "/orders", operations=[*EVERY, "link"], links=("labels",), permissions=permissions)
        )
        for request, body in REQUESTS.items():
            answer = api.request(*request.split(), tenant="a", json=body)  # type: ignore[arg-type]
            assert (answer.status_code == 403) is (request in forbidden), request
