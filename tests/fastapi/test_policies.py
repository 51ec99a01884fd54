"""Policies in an app: what each actor reads by each way.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import (
    AsyncRepository,
    MisuseError,
    Policy,
    create_async_repository,
    create_repository,
    idempotency_metadata,
)
from dotmac_database_fastapi import OPERATIONS, DatabasePlugin, get_entity, get_repository, get_session
from tests.confined import ROLE
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Tables, World, world_of
from tests.fastapi.policy_models import (
    ACTORS,
    GONE,
    MEMBERS,
    POLICIES,
    PROJECTS,
    READABLE,
    SECRET,
    SHARED,
    TASKS_OF,
    Actor,
    Base,
    Label,
    Project,
    Task,
    fill,
)
from tests.fastapi.shared_routers import crud_router, list_router


def actor_of(x_actor: Annotated[str, Header()]) -> Actor:
    return ACTORS[x_actor]


class ProjectOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    budget: int | None


class Envelope(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    items: list[ProjectOut]


SELECTS: dict[str, Any] = {
    "fields": ("id", "name", "budget"), "include": ("tasks.project", "labels"), "facets": ("budget", "owner"),
    "filters": ("id", "name", "owner", "budget", "tasks.cost", "tasks.title"), "search": ("name",),
    "sorts": ("id", "name", "budget"), "totals": ("exact", "bounded", "none", "estimate"), "list_etag": True,
}  # fmt: skip


def build(app: FastAPI) -> None:
    """The routes of the app under test."""
    every = (*OPERATIONS, "bulk_create", "bulk_update", "link")
    app.include_router(
        crud_router(Project, "/projects", operations=every, links=("labels",), idempotency=True, **SELECTS)
    )
    app.include_router(crud_router(Task, "/tasks", idempotency=True))
    app.include_router(crud_router(Project, "/nested", nested=("tasks",)))
    app.include_router(list_router(Project, "/ranges", paging="range"))
    app.include_router(list_router(Project, "/own", read_schema=ProjectOut, include=("tasks",)))
    app.include_router(list_router(Project, "/enveloped", envelope=Envelope, paging="page"))
    app.include_router(list_router(Project, "/skipped", paging="offset", default_sort="-budget"))
    app.include_router(list_router(Project, "/all", policy=Policy(Project, read=True)))

    without = {
        name: [each for each in value if not each.endswith(("budget", "cost"))]
        for name, value in SELECTS.items()
        if isinstance(value, tuple)
    }
    app.include_router(crud_router(Project, "/twin/projects", **{**SELECTS, **without}))
    plain = ("id", "name", "owner", "shared", "version")
    app.include_router(list_router(Project, "/twin/ranges", paging="range", filters=plain, sorts=plain))
    plain = ("id", "title", "owner", "project_id")
    app.include_router(crud_router(Task, "/twin/tasks", filters=plain, sorts=plain))

    @app.get("/by-hand")
    async def by_hand(session: AsyncSession = Depends(get_session)) -> list[int]:
        rows = create_async_repository(session, Project, "a")
        return [row.id for row in await rows.list()]

    @app.get("/entity/{id}")
    async def entity(row: Project = Depends(get_entity(Project))) -> str:
        return row.name

    @app.get("/repository")
    async def with_own(
        rows: AsyncRepository[Project] = Depends(get_repository(Project, policy=Policy(Project, read=True))),
    ) -> int:
        return await rows.count()


RINGS = ("sqlite", *(pytest.param(ring, marks=pytest.mark.matrix) for ring in ("postgresql", "rls")))


@pytest.fixture(scope="module", params=RINGS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("policies"), Tables(Base.metadata, fill)) as world:
        idempotency_metadata.create_all(world.owner.engine)
        if world.rls is not None:
            with world.owner.engine.begin() as connection:
                connection.exec_driver_sql(f"GRANT ALL ON dotmac_idempotency_keys TO {ROLE}")
        world.refill()
        yield world


@pytest.fixture(scope="module")
def shared_api(world: World) -> Iterator[Api]:
    with world.api(actor=actor_of, policies=POLICIES) as (app, api):
        build(app)
        yield api


class Client:
    """A client of one actor in tenant a."""

    def __init__(self, api: Api, actor: str, tenant: str = "a") -> None:
        self._api, self._actor, self._tenant = api, actor, tenant

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        options["headers"] = {"X-Actor": self._actor, **options.get("headers", {})}
        answer = self._api.request(method, path, tenant=self._tenant, **options)
        assert answer.status_code != 500, (method, path, answer.text)
        return answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        answer = self("GET", path, **options)
        assert answer.status_code == 200, (path, answer.text)
        return answer


def ids(answer: httpx.Response) -> set[int]:
    return {row["id"] for row in answer.json()["items"]}


def ndjson(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def pages(client: Client) -> set[int]:
    found, path = set[int](), "/projects?limit=1&sort=name"
    while path:
        page = client.get(path).json()
        found |= {row["id"] for row in page["items"]}
        path = page["next_cursor"] and f"/projects?limit=1&sort=name&cursor={page['next_cursor']}"
    return found


NAMES = ("alpha", "beta", "gamma", "delta", "gone")
CSV, NDJSON = {"Accept": "text/csv"}, {"Accept": "application/x-ndjson"}
WAYS: dict[str, Callable[[Client], set[int]]] = {
    "page": lambda client: ids(client.get("/projects")),
    "cursor": pages,
    "offset": lambda client: ids(client.get("/skipped?skip=0")),
    "range": lambda client: {row["id"] for row in client.get("/ranges").json()},
    "schema": lambda client: ids(client.get("/own")),
    "envelope": lambda client: ids(client.get("/enveloped")),
    "fields": lambda client: ids(client.get("/projects?fields=id")),
    "search": lambda client: {i for name in NAMES for i in ids(client.get(f"/projects?q={name}"))},
    "filter": lambda client: ids(client.get("/projects?id__in=1,2,3,4,5,101,102,103,104")),
    "ids": lambda client: {
        i for i in (1, 2, 3, 4, 5, 101, 102, 999) if client("GET", f"/projects/{i}").status_code == 200
    },
    "head": lambda client: {i for i in range(1, 6) if client("HEAD", f"/projects/{i}").status_code == 200},
    "entity": lambda client: {i for i in range(1, 6) if client("GET", f"/entity/{i}").status_code == 200},
    "csv": lambda client: {
        int(row["id"]) for row in csv.DictReader(io.StringIO(client.get("/projects", headers=CSV).text))
    },
    "ndjson": lambda client: {row["id"] for row in ndjson(client.get("/projects", headers=NDJSON))},
    "by hand": lambda client: set(client.get("/by-hand").json()),
}


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_reading_gives_the_rows_that_the_actor_may_read(shared_api: Api, actor: str, way: str) -> None:
    assert WAYS[way](Client(shared_api, actor)) == READABLE[actor]


@pytest.mark.parametrize("world", ["rls"], indirect=True)
def test_each_way_under_row_level_security(shared_api: Api) -> None:
    for way, read in WAYS.items():
        assert read(Client(shared_api, "member")) == READABLE["member"], way


@pytest.mark.parametrize("actor", ACTORS)
def test_numbers_of_rows_are_those_of_readable_rows(shared_api: Api, actor: str) -> None:
    client, many = Client(shared_api, actor), len(READABLE[actor])
    for total in ("exact", "bounded"):
        assert client.get(f"/projects?total={total}&per_page=1").json()["total"] == many
    assert client.get("/projects?total=none").json()["total"] is None
    refused = client("GET", "/projects?total=estimate")
    assert refused.status_code == 422
    assert "estimate" not in refused.json()["detail"]
    assert client.get("/ranges").headers["Content-Range"].endswith(f"/{many}")
    facets = client.get("/projects?facets=owner").json()["facets"]["owner"]
    assert sum(each["count"] for each in facets) == many


@pytest.mark.parametrize("actor", ACTORS)
def test_related_rows_are_readable_ones(shared_api: Api, actor: str) -> None:
    client = Client(shared_api, actor)
    for path, options in (("/projects?include=tasks.project,labels", {}), ("/own?include=tasks", {})):
        rows = client.get(path, **options).json()["items"]
        tasks = {task["id"] for row in rows for task in row["tasks"]}
        assert tasks == {each for each in TASKS_OF[actor] if actor != "owner" or each in (1, 2)}
    rows = ndjson(client.get("/projects?include=tasks", headers=NDJSON))
    assert {task["id"] for row in rows for task in row["tasks"]} == TASKS_OF[actor]
    assert ids(client.get("/tasks")) == TASKS_OF[actor]


@pytest.mark.parametrize("actor", ["owner", "member", "auditor"])
def test_filters_through_a_relationship_see_readable_rows_alone(shared_api: Api, actor: str) -> None:
    titles = {"one": 1, "two": 2, "three": 3}
    for title, task in titles.items():
        found = ids(Client(shared_api, actor).get(f"/projects?tasks.title={title}"))
        assert bool(found) == (task in TASKS_OF[actor]), (title, found)


HIDDEN_FROM = ("member", "nobody")


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize(
    "path",
    [
        "/projects", "/projects?limit=5", "/projects?fields=id,name", "/projects?include=tasks.project", "/own",
        "/own?include=tasks", "/enveloped", "/ranges", "/skipped", "/projects/2", "/projects/2?include=tasks",
        "/projects/2?fields=name", "/tasks", "/projects csv", "/projects ndjson", "/own csv", "/own ndjson",
    ],
)  # fmt: skip
def test_hidden_columns_leave_the_responses(shared_api: Api, actor: str, path: str) -> None:
    path, _, kind = path.partition(" ")
    answer = Client(shared_api, actor)("GET", path, headers={"csv": CSV, "ndjson": NDJSON}.get(kind, {}))
    assert answer.status_code in ((200, 404) if actor == "nobody" else (200,))
    if actor in HIDDEN_FROM:
        for name in ("budget", "cost", *map(str, range(1001, 1006)), *map(str, range(2001, 2004))):
            assert name not in answer.text.replace('"status":', ""), (name, answer.text)
    elif "fields" not in path and (actor == "auditor" or "tasks" in path or path != "/tasks"):
        assert "budget" in answer.text or "cost" in answer.text


UNKNOWN_ALIKE = [
    "/projects?budget=1", "/projects?budget__gte=1", "/projects?budgt=1", "/projects?sort=budget",
    "/projects?sort=-budget", "/projects?limit=2&sort=budget", "/projects?fields=budget", "/projects?fields=budgt",
    "/projects?facets=budget", "/projects?tasks.cost=1", "/projects?tasks.cst__in=1", "/projects/2?fields=budget",
    '/ranges?filter={"budget":1}', '/ranges?filter={"budgt":1}', '/ranges?sort=["budget","ASC"]', "/tasks?cost=1",
    "/tasks?sort=cost", "/tasks?cost__between=1,2",
]  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWN_ALIKE)
def test_a_hidden_name_is_answered_as_by_a_router_without_it(shared_api: Api, path: str) -> None:
    client = Client(shared_api, "member")
    hidden, unknown = client("GET", path), client("GET", f"/twin{path}")
    assert (hidden.status_code, hidden.content) == (unknown.status_code, unknown.content)
    assert hidden.status_code == 422
    assert Client(shared_api, "auditor")("GET", path).status_code == (
        200 if "budgt" not in path and "cst" not in path else 422
    )


def test_another_order_of_a_default_sort_does_not_reveal_a_hidden_column(shared_api: Api) -> None:
    assert [row["id"] for row in Client(shared_api, "auditor").get("/skipped").json()["items"]] == [4, 3, 2, 1]
    assert [row["id"] for row in Client(shared_api, "member").get("/skipped").json()["items"]] == [2, 4]


@pytest.mark.parametrize("actor", ["member", "nobody", "owner"])
def test_a_row_that_may_not_be_read_is_answered_like_an_unknown_one(shared_api: Api, actor: str) -> None:
    client = Client(shared_api, actor)
    unreadable = {"member": SECRET, "nobody": SHARED, "owner": MEMBERS}[actor]
    for method, path, body in (
        ("GET", "/projects/{}", None),
        ("PATCH", "/projects/{}", {"name": "changed"}),
        ("DELETE", "/projects/{}", None),
        ("POST", "/projects/{}/restore", None),
        ("GET", "/entity/{}", None),
        ("PUT", "/projects/{}/labels/1", None),
        ("DELETE", "/projects/{}/labels/1", None),
    ):
        for headers in ({}, {"If-Match": '"1"'}, {"If-Match": '"77"'}):
            answers = [client(method, path.format(key), json=body, headers=headers) for key in (unreadable, 101, 999)]
            assert {each.status_code for each in answers} == {404}, (method, path, [each.text for each in answers])
            assert answers[0].content == answers[1].content == answers[2].content, (method, path)


def test_a_cursor_of_one_actor_gives_another_only_his_own_rows(shared_api: Api) -> None:
    cursor = Client(shared_api, "auditor").get("/projects?limit=1&sort=name").json()["next_cursor"]
    assert ids(Client(shared_api, "member").get(f"/projects?limit=9&sort=name&cursor={cursor}")) <= READABLE["member"]
    by_budget = Client(shared_api, "auditor").get("/projects?limit=1&sort=budget").json()["next_cursor"]
    for path in (f"/projects?limit=1&sort=budget&cursor={by_budget}", f"/projects?limit=1&cursor={by_budget}"):
        assert Client(shared_api, "member")("GET", path).status_code in (400, 422)


def test_the_etag_of_a_list_depends_on_what_is_shown(world: World, shared_api: Api) -> None:
    def tags() -> list[str]:
        return [Client(shared_api, actor).get("/projects").headers["ETag"] for actor in ("member", "auditor")]

    before = tags()
    with world.owner.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE policy_projects SET budget = 9009 WHERE id = 2")
    after = tags()
    with world.owner.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE policy_projects SET budget = 1002 WHERE id = 2")
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_a_policy_of_a_router_takes_the_place_of_the_plugins(shared_api: Api) -> None:
    client = Client(shared_api, "nobody")
    assert ids(client.get("/all")) == READABLE["auditor"]
    assert {row["id"] for row in ndjson(client.get("/all", headers=NDJSON))} == READABLE["auditor"]
    assert client.get("/repository").json() == 4
    assert ids(Client(shared_api, "nobody", "b").get("/all")) == {each + 100 for each in READABLE["auditor"]}


def test_the_same_statements_are_sent_as_without_policies(world: World) -> None:
    """Rules are conditions of the statements that are sent anyway."""
    options: list[dict[str, Any]] = [{}, {"actor": actor_of}, {"actor": actor_of, "policies": POLICIES}]
    before, acting, ruled = (_statements(world, each) for each in options)
    assert before == acting
    assert acting == ruled


def _statements(world: World, options: dict[str, Any]) -> list[int]:
    with world.api(**options) as (app, api):
        app.include_router(crud_router(Project, "/projects", include=("tasks",)))
        sent: list[str] = []
        engine = app.state.plugin.database.async_engine.sync_engine
        sa.event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
        counts = []
        for path in ("/projects", "/projects?include=tasks", "/projects/2", "/projects?limit=2"):
            api.get(path, tenant="a", headers={"X-Actor": "owner"})  # the first request may open a connection
            sent.clear()
            assert api.get(path, tenant="a", headers={"X-Actor": "owner"}).status_code == 200
            # Under row-level security a plain read names its tenant within its one statement, a ruled one before it.
            counts.append(sum("set_config" not in each for each in sent))
        return counts


def test_hidden_fields_of_a_body_are_unknown(shared_api: Api) -> None:
    client = Client(shared_api, "member")
    for method, path, body in (
        ("POST", "/projects", {"name": "n", "owner": "member", "budget": 5}),
        ("PATCH", f"/projects/{MEMBERS}", {"budget": 5}),
        ("POST", "/projects/bulk", [{"name": "n", "owner": "member", "budget": 5}]),
        ("PATCH", "/projects/bulk", [{"id": MEMBERS, "budget": 5}]),
        ("POST", "/nested", {"name": "n", "owner": "member", "tasks": [{"title": "t", "owner": "member", "cost": 5}]}),
    ):
        hidden = client(method, path, json=body)
        unknown = client(
            method, path, json=json.loads(json.dumps(body).replace("budget", "nudget").replace("cost", "cust"))
        )
        assert hidden.status_code == unknown.status_code == 422, hidden.text
        assert hidden.text.replace("budget", "nudget").replace("cost", "cust") == unknown.text


def test_an_answer_is_replayed_only_to_who_may_still_see_it(world: World, shared_api: Api) -> None:
    owner, path, body = Client(shared_api, "owner"), "/projects", {"name": "new", "owner": "owner", "budget": 77}
    headers = {"Idempotency-Key": "k1"}
    first = owner("POST", path, json=body, headers=headers)
    assert first.status_code == 201
    replayed = owner("POST", path, json=body, headers=headers)
    assert (replayed.status_code, replayed.content) == (201, first.content)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    with world.owner.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE policy_projects SET owner = 'member' WHERE id = {first.json()['id']}")
    refused = owner("POST", path, json=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert "77" not in refused.text
    world.refill()


def test_policies_need_an_actor_and_fit_their_model(world: World) -> None:
    with pytest.raises(MisuseError, match="actor"):
        DatabasePlugin(world.url, policies=POLICIES)
    with pytest.raises(MisuseError, match="actor"):
        DatabasePlugin(world.url).get_repository(Project, policy=PROJECTS)
    with pytest.raises(MisuseError, match="two policies of Project"):
        DatabasePlugin(world.url, actor=actor_of, policies=[PROJECTS, PROJECTS])
    with pytest.raises(MisuseError, match="rules Project, and not Task"):
        crud_router(Task, "/tasks", policy=PROJECTS)


def test_a_session_for_an_actor_is_ruled_and_one_of_trusted_code_is_not(world: World) -> None:
    plugin = DatabasePlugin(world.url, rls=world.rls, actor=actor_of, policies=POLICIES)

    async def counts() -> list[int]:
        numbers = []
        for actor in (ACTORS["member"], None):
            async with plugin.session("a", actor) as session:
                numbers.append(await create_async_repository(session, Project, "a").count())
        await plugin.database.dispose_async()
        return numbers

    assert asyncio.run(counts()) == [2, 4]
    with plugin.sync_session("a", ACTORS["nobody"]) as session:
        assert create_repository(session, Project, "a").count() == 0
    plugin.database.dispose()


def test_an_overridden_session_is_ruled_for_the_request(world: World) -> None:
    with world.api(actor=actor_of, policies=POLICIES) as (app, api):
        build(app)
        plugin: DatabasePlugin = app.state.plugin

        async def other() -> Any:
            async with plugin.session("a") as session:
                yield session
                assert await create_async_repository(session, Project, "a").count() == 4

        app.dependency_overrides[get_session] = other
        assert ids(Client(api, "member").get("/projects")) == READABLE["member"]


def test_required_policies_refuse_a_model_without_one(world: World) -> None:
    with world.api(actor=actor_of, policies=POLICIES, policies_required=True) as (app, api):
        app.include_router(list_router(Label, "/labels"))
        app.include_router(list_router(Project, "/projects"))
        refused = Client(api, "auditor")("GET", "/labels")
        assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        assert Client(api, "auditor").get("/projects").status_code == 200


def test_the_document_is_the_same_for_all_and_has_the_403(shared_api: Api) -> None:
    document = shared_api.app.openapi()
    assert "403" in document["paths"]["/projects"]["get"]["responses"]
    assert "403" in document["paths"]["/projects/{id}"]["patch"]["responses"]


def test_soft_deleted_rows_stay_gone(shared_api: Api) -> None:
    assert Client(shared_api, "auditor")("GET", f"/projects/{GONE}").status_code == 404
    assert Client(shared_api, "auditor")("GET", f"/projects/{SHARED}").status_code == 200
