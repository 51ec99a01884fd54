"""Policies in an app: what each actor changes by each route, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from dotmac_database import idempotency_metadata
from tests.confined import ROLE
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Tables, World, world_of
from tests.fastapi.policy_models import ACTORS, GONE, MEMBERS, OWN, POLICIES, SHARED, Base, fill
from tests.fastapi.test_policies import RINGS, Client, actor_of, build


@pytest.fixture(scope="module", params=RINGS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("policies"), Tables(Base.metadata, fill)) as world:
        idempotency_metadata.create_all(world.owner.engine)
        if world.rls is not None:
            with world.owner.engine.begin() as connection:
                connection.exec_driver_sql(f"GRANT ALL ON dotmac_idempotency_keys TO {ROLE}")
        yield world


@pytest.fixture(scope="module")
def shared_api(world: World) -> Iterator[Api]:
    with world.api(actor=actor_of, policies=POLICIES) as (app, api):
        build(app)
        yield api


PROJECT = {"name": "new", "owner": "owner"}
TASK = {"title": "new", "owner": "owner"}

# The request, and the statuses for the owner, another member, the auditor and nobody.
CASES: dict[str, tuple[str, str, Any, tuple[int, int, int, int]]] = {
    "create": ("POST", "/projects", PROJECT, (201, 403, 403, 403)),
    "create for another": ("POST", "/projects", {**PROJECT, "owner": "member"}, (403, 201, 403, 403)),
    "create read-only": ("POST", "/projects", {**PROJECT, "shared": True}, (403, 403, 403, 403)),
    "bulk create": ("POST", "/projects/bulk", [PROJECT, PROJECT], (201, 403, 403, 403)),
    "bulk create, one refused": (
        "POST", "/projects/bulk", [PROJECT, {**PROJECT, "owner": "member"}], (403, 403, 403, 403)
    ),
    "update": ("PATCH", f"/projects/{OWN}", {"name": "changed"}, (200, 404, 403, 404)),
    "update shared": ("PATCH", f"/projects/{SHARED}", {"name": "changed"}, (200, 403, 403, 404)),
    "give away": ("PATCH", f"/projects/{OWN}", {"owner": "member"}, (403, 404, 403, 404)),
    "update read-only": ("PATCH", f"/projects/{SHARED}", {"shared": False}, (403, 403, 403, 403)),
    "bulk update": ("PATCH", "/projects/bulk", [{"id": OWN, "name": "changed"}], (200, 404, 403, 404)),
    "bulk update, one refused": (
        "PATCH", "/projects/bulk", [{"id": SHARED, "name": "x"}, {"id": MEMBERS, "name": "x"}], (404, 403, 403, 404)
    ),
    "delete": ("DELETE", f"/projects/{OWN}", None, (204, 404, 403, 404)),
    "delete shared": ("DELETE", f"/projects/{SHARED}", None, (204, 403, 403, 404)),
    "restore": ("POST", f"/projects/{GONE}/restore", None, (200, 404, 403, 404)),
    "link": ("PUT", f"/projects/{OWN}/labels/2", None, (204, 404, 403, 404)),
    "link shared": ("PUT", f"/projects/{SHARED}/labels/2", None, (204, 403, 403, 404)),
    "unlink": ("DELETE", f"/projects/{SHARED}/labels/1", None, (204, 403, 403, 404)),
    "nested": ("POST", "/nested", {**PROJECT, "tasks": [TASK]}, (201, 403, 403, 403)),
    "nested, a child refused": (
        "POST", "/nested", {**PROJECT, "tasks": [TASK, {**TASK, "owner": "member"}]}, (403, 403, 403, 403)
    ),
    "refer to a row": ("POST", "/tasks", {**TASK, "project_id": OWN}, (201, 409, 403, 409)),
    "refer to an unreadable row": ("POST", "/tasks", {**TASK, "project_id": MEMBERS}, (409, 403, 403, 409)),
}  # fmt: skip

ALLOWED = (200, 201, 204)


def stored(world: World) -> list[tuple[Any, ...]]:
    with world.owner.engine.connect() as connection:
        return [
            tuple(row)
            for name in ("policy_projects", "policy_tasks", "policy_project_labels")
            for row in connection.execute(sa.text(f"SELECT * FROM {name} ORDER BY 1, 2"))
        ]


@pytest.mark.parametrize("case", CASES)
def test_each_actor_changes_what_his_policy_allows(world: World, shared_api: Api, case: str) -> None:
    method, path, body, statuses = CASES[case]
    for actor, status in zip(ACTORS, statuses, strict=True):
        world.refill()
        before = stored(world)
        answer = Client(shared_api, actor)(method, path, json=body)
        assert answer.status_code == status, (actor, answer.text)
        assert (stored(world) == before) == (status not in ALLOWED), (actor, answer.text)
        if answer.status_code == 403:
            problem = answer.json()
            assert problem["code"] == "permission_denied"
            assert not any(word in problem["detail"] for word in ("alpha", "beta", "1001", "owner ="))
        if case.endswith("one refused") and actor == "owner":
            assert answer.json()["index"] == 1


def test_rows_of_another_tenant_never_change(world: World, shared_api: Api) -> None:
    world.refill()
    before = stored(world)
    for method, path, body, _ in CASES.values():
        other = path.replace("/projects/", "/projects/10") if path[-1].isdigit() else path
        if other == path or body == {"shared": False}:
            continue
        for actor in ACTORS:
            assert Client(shared_api, actor)(method, other, json=body).status_code == 404
    assert stored(world) == before
