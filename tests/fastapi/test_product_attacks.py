"""Attacks on the generated endpoints: what one feature forbids must not be possible by another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from dotmac_database import ALL_TENANTS, ValidationError, idempotency_metadata
from dotmac_database.testing import AsyncMockRepository
from dotmac_database_fastapi import (
    OPERATIONS,
    REACT_ADMIN,
    Caller,
    DatabasePlugin,
    get_caller,
    get_identity_session,
    get_repository,
    get_session,
    rerun_route,
    tenant_from_header,
)
from dotmac_database_fastapi.statuses import DeleteBody
from tests.confined import ROLE
from tests.fastapi import endpoints_app
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Tables, World, world_of
from tests.fastapi.product_models import (
    FORGED,
    TENANTS,
    Base,
    Dog,
    Living,
    Person,
    PersonAlias,
    Post,
    Slot,
    Tag,
    fill,
    key_of,
    uuid_of,
)
from tests.fastapi.shared_routers import crud_router

EVERY = (*OPERATIONS, "bulk_create", "bulk_update")
LINKED = (*EVERY, "link")


@pytest.fixture(scope="module", params=["sqlite", "rls"])  # without policies, PostgreSQL is as in the other tests
def ring(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("attacks"), Tables(Base.metadata, fill)) as world:
        idempotency_metadata.create_all(world.owner.engine)
        if world.rls is not None:
            with world.owner.engine.begin() as connection:
                connection.exec_driver_sql(f"GRANT ALL ON dotmac_idempotency_keys TO {ROLE}")
        yield world


@pytest.fixture
def world(ring: World) -> World:
    ring.refill()
    with ring.owner.engine.begin() as connection:
        connection.execute(sa.delete(idempotency_metadata.tables["dotmac_idempotency_keys"]))
    return ring


def stored(world: World, tenant: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all tables; of a tenant, if it is named."""
    with world.owner.engine.connect() as connection:
        return {
            name: [
                tuple(row)
                for row in connection.execute(sa.select(table).order_by(*table.primary_key))
                if tenant is None or tenant in row
            ]
            for name, table in Base.metadata.tables.items()
        }


class Foreign:
    """Hooks by which the app writes what the client asks for in ``name``."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def before_create(self, data: Any, repository: Any) -> Any:
        return {**data.model_dump(exclude_unset=True), **self.values}

    def before_update(self, key: Any, data: Any, repository: Any) -> Any:
        return {**data.model_dump(exclude_unset=True), **self.values}


class ForeignAfter:
    def __init__(self, **values: Any) -> None:
        self.values = values

    def after_create(self, entity: Any, repository: Any) -> None:
        for name, value in self.values.items():
            setattr(entity, name, value)

    after_update = after_create


FOREIGN: dict[str, Any] = {
    "tenant": (Person, {"tenant_id": "b"}),
    "team": (Person, {"team_id": key_of("b", "own")}),
    "tenant of a slot": (Slot, {"org": "b"}),
    "tenant of a dog": (Dog, {"tenant_id": "b"}),
    "person of a dog": (Dog, {"person_id": UUID(uuid_of("b", "own"))}),
}
KEYS = {Person: uuid_of, Slot: lambda tenant, kind: {"own": 0, "other": 1}[kind], Dog: key_of}


@pytest.mark.parametrize("when", [Foreign, ForeignAfter])
@pytest.mark.parametrize("what", FOREIGN)
def test_hooks_write_nothing_of_another_tenant(world: World, what: str, when: Any) -> None:
    model, values = FOREIGN[what]
    with world.api() as (app, api):
        app.include_router(crud_router(model, "/x", operations=EVERY, hooks=when(**values)))
        before = stored(world)
        key = KEYS[model]("a", "own")
        part = "day" if model is Slot else "id"
        new = {"name": "n", **({"day": 9} if model is Slot else {})}
        requests = [
            ("POST", "/x", new),
            ("POST", "/x/bulk", [new]),
            ("PATCH", f"/x/{key}", {"name": "m"}),
            ("PATCH", "/x/bulk", [{part: key, "name": "m"}]),
        ]
        answers = [api.request(method, path, tenant="a", json=body) for method, path, body in requests]
        seen = [answer.status_code for answer in answers]
        assert stored(world) == before, seen
        assert all(400 <= status < 500 for status in seen), [answer.text for answer in answers]


def test_hidden_columns_can_not_be_found_out(world: World) -> None:
    with world.api() as (app, api):
        app.include_router(crud_router(Person, "/p", include=("team", "posts"), facets=("kind",), fields=("id",)))
        app.include_router(crud_router(Person, "/admin", options=REACT_ADMIN))
        hidden = (
            "secret",
            "team.code",
            "posts.person.secret",
            "tenant_id",
            "team.tenant_id",
            "is_deleted",
            "deleted_at",
        )
        texts = []
        for name in hidden:
            for query in (f"{name}=x", f"{name}__ilike=x", f"sort={name}", f"facets={name}", f"fields={name}"):
                texts += [api.get(f"/p?{query}", tenant="a")]
            for query in (f'filter={{"{name}":"x"}}', f'sort=["{name}","ASC"]', f'filter={{"{name}__gte":"x"}}'):
                texts += [api.get(f"/admin?{query}", tenant="a")]
            if "." in name:
                outer, inner = name.rsplit(".", 1)
                texts.append(api.get(f'/admin?filter={{"{outer}":{{"{inner}":"x"}}}}', tenant="a"))
        assert {answer.status_code for answer in texts} == {422}
        for include in ("secret", "team.code", "tags", "posts.person", "team.people", "tenant_id"):
            assert api.get(f"/p?include={include}", tenant="a").status_code == 422


def test_conflicts_reveal_nothing(world: World) -> None:
    """A value of a private or of another tenant's column is in no problem."""
    with world.api() as (app, api):
        app.include_router(crud_router(Person, "/p", operations=EVERY, hooks=Foreign(secret="own of-b secret")))
        app.include_router(crud_router(Person, "/n", nested=("posts",)))
        for method, path, body in (
            ("POST", "/p", {"name": "x"}),
            ("POST", "/p/bulk", [{"name": "y"}, {"name": "x"}]),
            ("PATCH", f"/p/{uuid_of('a', 'own')}", {"name": "x"}),
            ("PATCH", "/p/bulk", [{"id": uuid_of("a", "own"), "name": "x"}]),
        ):
            answer = api.request(method, path, tenant="a", json=body)
            assert answer.status_code == 409, answer.text
            assert "secret" not in answer.text
            assert "of-b" not in answer.text


def test_a_replay_needs_the_permission_and_the_same_caller(world: World) -> None:
    allowed = {"yes"}

    async def permission(token: str = Header("yes")) -> None:
        if token not in allowed:
            raise HTTPException(403)

    with world.api(actor=tenant_from_header("X-User")) as (app, api):
        one = Depends(permission)
        app.include_router(crud_router(Person, "/p", operations=EVERY, permissions={"create": one}, idempotency=True))
        for path, body in (("/p", {"name": "x"}), ("/p/bulk", [{"name": "x"}])):
            headers = {"Idempotency-Key": "k", "X-User": "ann"}
            if path == "/p/bulk":
                headers["Idempotency-Key"] = "l"
            first = api.post(path, tenant="a", json=body, headers=headers)
            assert first.status_code == 201
            assert api.post(path, tenant="a", json=body, headers={**headers, "token": "no"}).status_code == 403
            for tenant, user in (("b", "ann"), ("a", "bob")):
                other = api.post(path, tenant=tenant, json=body, headers={**headers, "X-User": user})
                assert other.status_code == 201
                assert other.content != first.content
            again = api.post(path, tenant="a", json=body, headers=headers)
            assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


class Late:
    """A hook that fails after the row has been written."""

    def __init__(self) -> None:
        self.fails, self.calls = True, 0

    async def after_create(self, entity: Any, repository: Any) -> None:
        self.calls += 1
        if self.fails:
            raise HTTPException(409, "later")


def test_a_failed_hook_leaves_no_record(world: World) -> None:
    hooks = Late()
    with world.api() as (app, api):
        app.include_router(crud_router(Person, "/p", operations=EVERY, hooks=hooks, idempotency=True))
        app.include_router(crud_router(Person, "/n", nested=("posts",), hooks=hooks, idempotency=True))
        requests: list[tuple[str, Any]] = [
            ("/p", {"name": "x"}), ("/p/bulk", [{"name": "x"}]), ("/n", {"name": "x", "posts": [{"title": "t"}]}),
        ]  # fmt: skip
        for number, (path, body) in enumerate(requests):
            before, hooks.fails = stored(world), True
            headers = {"Idempotency-Key": f"k{number}"}
            assert api.post(path, tenant="a", json=body, headers=headers).status_code == 409
            assert stored(world) == before
            hooks.fails, hooks.calls = False, 0
            first = api.post(path, tenant="a", json=body, headers=headers)
            assert (first.status_code, hooks.calls) == (201, 1)
            once = stored(world)
            assert api.post(path, tenant="a", json=body, headers=headers).content == first.content
            assert (hooks.calls, stored(world)) == (1, once)


def test_another_tenants_change_is_not_seen_in_an_etag(world: World) -> None:
    with world.api() as (app, api):
        app.include_router(
            crud_router(Person, "/p", list_etag=True, include=("team", "posts", "tags"), facets=("kind",))
        )
        urls = ("/p", "/p?include=team,posts,tags", "/p?facets=kind", "/p?limit=2")
        before = [api.get(url, tenant="a").headers["etag"] for url in urls]
        with world.owner.engine.begin() as connection:
            for table in ("people", "teams", "posts", "tags"):
                rows = Base.metadata.tables[f"product_{table}"]
                column = "title" if table == "posts" else "name"
                connection.execute(rows.update().where(rows.c.tenant_id == "b").values({column: "changed"}))
        assert [api.get(url, tenant="a").headers["etag"] for url in urls] == before


def test_an_export_has_the_conditions_of_the_repository(world: World) -> None:
    with world.api() as (app, api):
        app.include_router(
            crud_router(Person, "/p", repository=Living, include=("team",), fields=("name",), facets=("name",))
        )
        for accept in ("text/csv", "application/x-ndjson", "application/json"):
            for query in ("", "?fields=name", "?include=team", "?name=hidden of-a", "?facets=name"):
                answer = api.get(f"/p{query}", tenant="a", headers={"Accept": accept})
                text = answer.text.replace('"team":{', "")
                assert answer.status_code in (200, 422), (accept, query, answer.text)
                assert "hidden of-a" not in text, (accept, query)
                assert "of-b" not in text


def test_nested_children_of_other_classes(world: World) -> None:
    with world.api() as (app, api):
        app.include_router(crud_router(Dog, "/d", nested=("toys",), idempotency=True, include=("toys",)))
        app.include_router(
            crud_router(Person, "/p", nested=("posts",), include=("posts",), status_codes={"create": 200})
        )
        made = api.post("/d", tenant="a", json={"name": "d", "toys": [{"name": "t"}]})
        assert made.status_code == 201, made.text
        assert made.json()["toys"][0]["name"] == "t"
        assert api.get(f"/d/{made.json()['id']}?include=toys", tenant="a").json()["toys"] == made.json()["toys"]
        for child in ({"name": "t", "dog_id": 1}, {"name": "t", "tenant_id": "b"}):
            assert api.post("/d", tenant="a", json={"name": "d", "toys": [child]}).status_code == 422
        many = api.post("/p", tenant="a", json={"name": "d", "posts": [{"title": "x", "text": "y"}, {"title": "z"}]})
        assert many.status_code == 200, many.text
        assert [post["text"] for post in many.json()["posts"]] == ["y", None]


def test_other_keys_with_every_option(world: World) -> None:
    with world.api() as (app, api):
        everything: dict[str, Any] = {
            "operations": EVERY, "idempotency": True, "list_etag": True, "facets": ("name",), "delete_body": {"ok": 1},
            "fields": ("name",), "trailing_slash": True, "update_method": "PUT", "read_only_fields": "ignore",
        }  # fmt: skip
        for model, path in ((Slot, "/slots"), (Tag, "/tags"), (Dog, "/dogs"), (Post, "/posts")):
            options = everything | ({"facets": ("title",), "fields": ("title",)} if model is Post else {})
            app.include_router(crud_router(model, path, **options))
        news: dict[str, Any] = {
            "/slots": {"day": 40, "name": "n"}, "/tags": {"slug": "é b", "name": "n"}, "/dogs": {"name": "n"},
            "/posts": {"title": "n"},
        }  # fmt: skip
        for path, body in news.items():
            made = api.post(f"{path}/", tenant="a", json=body)
            assert made.status_code == 201, made.text
            where = made.headers["location"]
            assert api.get(where, tenant="a").json() == made.json()
            if path != "/slots":
                assert api.get(where, tenant="b").status_code == 404
            changed = api.request("PUT", where, tenant="a", json={**made.json()})
            assert changed.status_code == 200, changed.text
            bulk = api.patch(f"{path}/bulk", tenant="a", json=[made.json()])
            assert bulk.status_code == 200, bulk.text
            for accept in ("text/csv", "application/x-ndjson"):
                text = api.get(f"{path}/", tenant="a", headers={"Accept": accept}).text
                assert "of-b" not in text
                assert "gone of-a" not in text or path == "/slots"
            assert api.delete(where, tenant="a").status_code == 200
            assert api.get(where, tenant="a").status_code == 404
        for key in ("bulk", "..", "a/b", ""):
            assert api.post("/tags/", tenant="a", json={"slug": key}).status_code == 422
            assert api.post("/tags/bulk", tenant="a", json=[{"slug": key}]).status_code == 422
        duplicate = api.post("/tags/", tenant="a", json={"slug": "own-of-b"})
        assert duplicate.status_code == 409


def test_two_requests_on_one_row(world: World) -> None:
    """Nothing is lost: of PATCHes with If-Match one wins, and a bulk PATCH waits."""
    own = uuid_of("a", "own")
    with world.api() as (app, api):
        app.include_router(crud_router(Person, "/p", operations=LINKED, links=("tags",)))

        async def race() -> list[int]:
            requests = []
            for number in range(6):
                tagged = {"If-Match": '"1"'}
                requests.append(
                    api.arequest("PATCH", f"/p/{own}", tenant="a", json={"kind": f"{number}"}, headers=tagged)
                )
                requests.append(api.arequest("PATCH", "/p/bulk", tenant="a", json=[{"id": own, "email": f"{number}"}]))
            return [answer.status_code for answer in await asyncio.gather(*requests)]

        statuses = api.run(race())
        single, bulk = statuses[::2], statuses[1::2]
        assert bulk == [200] * 6
        assert single.count(200) <= 1
        assert set(single) <= {200, 412}
        version = api.get(f"/p/{own}", tenant="a").json()["version"]
        assert version == 1 + single.count(200) + 6

        async def link_and_delete() -> list[int]:
            link = api.arequest("PUT", f"/p/{own}/tags/forged", tenant="a")
            links = [api.arequest("PUT", f"/p/{own}/tags/other-of-a", tenant="a") for _ in range(3)]
            delete = api.arequest("DELETE", f"/p/{own}", tenant="a")
            return [answer.status_code for answer in await asyncio.gather(link, *links, delete)]

        statuses = api.run(link_and_delete())
        assert statuses[-1] == 204
        assert set(statuses[1:-1]) <= {204, 404}


class Counted:
    """Hooks that count their calls. The first row fails as if two transactions had met."""

    def __init__(self, *, fails: bool = True) -> None:
        self.calls: list[str] = []
        self.fails = fails

    def before_create(self, data: Any, repository: Any) -> Any:
        self.calls.append("before")
        return data

    def after_create(self, entity: Any, repository: Any) -> None:
        self.calls.append("after")
        if self.fails and self.calls.count("after") == 1:
            raise sa.exc.OperationalError("x", None, _DeadlockError("deadlock"))


class _DeadlockError(Exception):
    sqlstate = pgcode = "40001"
    sqlite_errorcode = 5


def test_run_again(world: World) -> None:
    """What is run again is written once."""
    for path, body, rows in (
        ("/x", {"name": "again", "posts": [{"title": "again"}]}, 1),
        ("/y/bulk", [{"name": "again"}, {"name": "again"}], 2),
    ):
        hooks = Counted()
        world.refill()
        with world.api() as (app, api):
            route: Any = rerun_route()
            app.include_router(
                crud_router(Person, "/x", nested=("posts",), hooks=hooks, idempotency=True, route_class=route)
            )
            app.include_router(
                crud_router(Person, "/y", operations=EVERY, hooks=hooks, idempotency=True, route_class=route)
            )
            answer = api.post(path, tenant="a", json=body, headers={"Idempotency-Key": path})
            assert answer.status_code == 201, answer.text
            assert hooks.calls.count("after") > 1
            found = stored(world)
            assert sum("again" in row for row in found["product_people"]) == rows
            assert sum("again" in row for row in found["product_posts"]) == (1 if path == "/x" else 0)


def test_all_tenants(world: World) -> None:
    """An administrator of all tenants sees all rows, and writes none without naming its tenant."""

    async def everyone() -> Any:
        return ALL_TENANTS

    with world.api(tenant=everyone) as (app, api):
        app.include_router(
            crud_router(
                Person, "/p", operations=LINKED, links=("tags",), include=("team", "posts", "tags"), facets=("name",),
                list_etag=True, idempotency=True, fields=("id", "name"), delete_body={"ok": True},
            )
        )  # fmt: skip
        app.include_router(crud_router(Person, "/n", nested=("posts",)))
        app.include_router(crud_router(Slot, "/s", operations=EVERY))
        own, foreign = uuid_of("a", "own"), uuid_of("b", "own")
        answers = {
            "list": api.get("/p?include=team,posts,tags&facets=name"),
            "csv": api.get("/p", headers={"Accept": "text/csv"}),
            "ndjson": api.get("/p?include=posts", headers={"Accept": "application/x-ndjson"}),
            "read": api.get(f"/p/{foreign}?include=team,tags"),
            "update": api.patch(f"/p/{foreign}", json={"kind": "x"}),
            "team": api.patch(f"/p/{foreign}", json={"team_id": key_of("b", "other")}),
            "foreign team": api.patch(f"/p/{foreign}", json={"team_id": key_of("a", "other")}),
            "bulk": api.patch("/p/bulk", json=[{"id": own, "kind": "y"}, {"id": foreign, "kind": "z"}]),
            "bulk team": api.patch(
                "/p/bulk", json=[{"id": own, "kind": "y"}, {"id": foreign, "team_id": key_of("a", "own")}]
            ),
            "link": api.request("PUT", f"/p/{own}/tags/other-of-a"),
            "foreign link": api.request("PUT", f"/p/{own}/tags/other-of-b"),
            "create": api.post("/p", json={"name": "x"}, headers={"Idempotency-Key": "k"}),
            "bulk create": api.post("/p/bulk", json=[{"name": "x"}]),
            "nested": api.post("/n", json={"name": "x", "posts": [{"title": "y"}]}),
            "slot": api.get("/s/1"),
            "slots": api.patch("/s/bulk", json=[{"day": 1, "name": "x"}]),
            "delete": api.delete(f"/p/{foreign}"),
        }
        assert all(answer.status_code < 500 for answer in answers.values()), {
            name: answer.text for name, answer in answers.items() if answer.status_code >= 500
        }
        assert answers["foreign team"].status_code == answers["bulk team"].status_code == 409
        assert answers["foreign link"].status_code in (404, 409)


def test_the_tenant_of_the_user_who_is_logged_in(world: World) -> None:
    """The tenant is found in the database, for every route, also for exports and replays."""
    calls: list[str] = []

    async def organisation(
        token: str | None = Header(None), session: AsyncSession = Depends(get_identity_session)
    ) -> str:
        assert session is not None
        calls.append("asked")
        if token not in TENANTS:
            raise HTTPException(401)
        return token

    with world.api(tenant=organisation) as (app, api):
        app.include_router(
            crud_router(
                Person, "/p", operations=LINKED, links=("tags",), include=("team", "posts"), facets=("name",),
                list_etag=True, idempotency=True, permissions=Depends(caller_is_known),
            )
        )  # fmt: skip
        own = uuid_of("a", "own")
        requests: list[tuple[str, str, Any, dict[str, str]]] = [
            ("GET", "/p?include=team,posts&facets=name", None, {}),
            ("HEAD", "/p", None, {}),
            ("GET", "/p", None, {"Accept": "text/csv"}),
            ("GET", "/p?include=posts", None, {"Accept": "application/x-ndjson"}),
            ("HEAD", "/p", None, {"Accept": "text/csv"}),
            ("GET", f"/p/{own}", None, {}),
            ("POST", "/p", {"name": "x"}, {"Idempotency-Key": "1"}),
            ("POST", "/p", {"name": "x"}, {"Idempotency-Key": "1"}),
            ("POST", "/p/bulk", [{"name": "x"}], {"Idempotency-Key": "2"}),
            ("PATCH", "/p/bulk", [{"id": own, "name": "x"}], {}),
            ("PATCH", f"/p/{own}", {"name": "y"}, {}),
            ("PUT", f"/p/{own}/tags/other-of-a", None, {}),
            ("DELETE", f"/p/{own}/tags/other-of-a", None, {}),
            ("DELETE", f"/p/{own}", None, {}),
            ("POST", f"/p/{own}/restore", None, {}),
        ]
        for method, path, body, headers in requests:
            calls.clear()
            answer = api.request(method, path, json=body, headers={**headers, "token": "a"})
            assert answer.status_code < 300, (method, path, answer.text)
            assert calls == ["asked"], (method, path, headers)
            assert "of-b" not in answer.text
            refused = api.request(method, path, json=body, headers={**headers, "token": "z"})
            assert refused.status_code == 401
        foreign = api.get(f"/p/{own}", headers={"token": "b"})
        assert foreign.status_code == 404


async def caller_is_known(caller: Caller[str, None] = Depends(get_caller)) -> None:
    if caller.tenant not in TENANTS:
        raise HTTPException(403)


def test_a_mock_in_place_of_the_repository(ring: World) -> None:
    """Every route works with a mock repository, too, which is how users test their apps."""
    if ring.rls is not None or ring.owner.engine.dialect.name != "sqlite":
        return
    with ring.api() as (app, api):
        app.include_router(
            crud_router(
                Person, "/p", operations=LINKED, links=("tags",), include=("team", "posts", "tags"), facets=("name",),
                list_etag=True, fields=("id", "name"), delete_body={"ok": True}, exports=("csv", "ndjson"),
            )
        )  # fmt: skip
        app.include_router(crud_router(Person, "/n", nested=("posts",)))
        mock = AsyncMockRepository(Person, "a")
        app.dependency_overrides[get_repository(Person)] = lambda: mock
        made = api.post("/p", tenant="a", json={"name": "x"})
        assert made.status_code == 201, made.text
        key = made.json()["id"]
        answers = {
            "list": api.get("/p?include=team,posts,tags&facets=name", tenant="a"),
            "fields": api.get("/p?fields=name", tenant="a"),
            "csv": api.get("/p", tenant="a", headers={"Accept": "text/csv"}),
            "ndjson": api.get("/p?include=posts", tenant="a", headers={"Accept": "application/x-ndjson"}),
            "read": api.get(f"/p/{key}?fields=name&include=team,tags", tenant="a"),
            "update": api.patch(f"/p/{key}", tenant="a", json={"kind": "x"}),
            "bulk": api.patch("/p/bulk", tenant="a", json=[{"id": key, "kind": "y"}]),
            "bulk create": api.post("/p/bulk", tenant="a", json=[{"name": "x"}]),
            "nested": api.post("/n", tenant="a", json={"name": "x", "posts": [{"title": "y"}]}),
            "link": api.request("PUT", f"/p/{key}/tags/other-of-a", tenant="a"),
            "delete": api.delete(f"/p/{key}", tenant="a"),
            "restore": api.post(f"/p/{key}/restore", tenant="a"),
        }
        assert all(answer.status_code < 500 for answer in answers.values()), {
            name: answer.text for name, answer in answers.items() if answer.status_code >= 500
        }


def test_an_overridden_session_serves_every_route(world: World) -> None:
    """The session of a test: what a request writes is there for the next one, and nothing is left of it."""
    if world.rls is not None:
        return  # the session of a test names no tenant to the policies
    with world.api() as (app, api):
        app.include_router(
            crud_router(
                Person, "/p", operations=LINKED, links=("tags",), include=("team", "posts"), facets=("name",),
                list_etag=True, idempotency=True, fields=("id", "name"), delete_body=DeleteBody.ROW,
                hooks=Counted(fails=False),
            )
        )  # fmt: skip
        app.include_router(crud_router(Person, "/n", nested=("posts",), idempotency=True))
        plugin: DatabasePlugin = app.state.plugin
        before = stored(world)
        own = uuid_of("a", "own")

        async def work() -> None:
            async with plugin.database.async_engine.connect() as connection:
                outer = await connection.begin()
                options: dict[str, Any] = {"join_transaction_mode": "create_savepoint", "expire_on_commit": False}
                session = AsyncSession(bind=connection, **options)
                app.dependency_overrides[get_session] = lambda: session
                requests: list[tuple[str, str, Any, dict[str, str], int]] = [
                    ("POST", "/p", {"name": "x"}, {"Idempotency-Key": "1"}, 201),
                    ("POST", "/p", {"name": "x"}, {"Idempotency-Key": "1"}, 201),
                    ("POST", "/p/bulk", [{"name": "y"}, {"name": "z"}], {"Idempotency-Key": "2"}, 201),
                    ("POST", "/p/bulk", [{"name": "y"}, {"name": "z", "team_id": key_of("b", "own")}], {}, 409),
                    ("POST", "/n", {"name": "v", "posts": [{"title": "t"}]}, {"Idempotency-Key": "3"}, 201),
                    ("PATCH", "/p/bulk", [{"id": own, "kind": "x"}], {}, 200),
                    ("PATCH", f"/p/{own}", {"kind": "z"}, {"If-Match": '"2"'}, 200),
                    ("PUT", f"/p/{own}/tags/other-of-a", None, {}, 204),
                    ("PUT", f"/p/{own}/tags/other-of-b", None, {}, 404),
                    ("GET", "/p?include=team,posts&facets=name", None, {}, 200),
                    ("GET", "/p?fields=name&limit=2", None, {}, 200),
                    ("GET", "/p", None, {"Accept": "text/csv"}, 200),
                    ("GET", "/p?include=posts", None, {"Accept": "application/x-ndjson"}, 200),
                    ("HEAD", "/p", None, {"Accept": "text/csv"}, 200),
                    ("DELETE", f"/p/{own}", None, {}, 200),
                    ("POST", f"/p/{own}/restore", None, {}, 200),
                ]
                for method, path, body, headers, status in requests:
                    answer = await api.arequest(method, path, tenant="a", json=body, headers=headers)
                    assert answer.status_code == status, (method, path, answer.text)
                    assert "of-b" not in answer.text
                csv = await api.arequest("GET", "/p?sort=name", tenant="a", headers={"Accept": "text/csv"})
                assert all(f",{name}," in csv.text for name in "vxyz")
                assert csv.text.count(",x,") == 1
                await session.close()
                await outer.rollback()

        api.run(work())
        assert stored(world) == before


def test_permissions_hold_for_every_method(world: World) -> None:
    async def nobody() -> None:
        raise HTTPException(403)

    with world.api() as (app, api):
        app.include_router(
            crud_router(
                Person, "/p", operations=LINKED, links=("tags",), permissions=Depends(nobody), idempotency=True,
                list_etag=True, include=("team",), facets=("name",),
            )
        )  # fmt: skip
        app.include_router(crud_router(Person, "/n", nested=("posts",), permissions=Depends(nobody)))
        own, before = uuid_of("a", "own"), stored(world)
        paths = ["/p", "/p/bulk", f"/p/{own}", f"/p/{own}/restore", f"/p/{own}/tags/other-of-a", "/n"]
        for path in paths:
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
                for accept in ("application/json", "text/csv"):
                    for body in (
                        {"name": "x"},
                        [{"name": "x"}],
                        [{"id": own, "name": "x"}],
                        {"name": "x", "posts": []},
                    ):
                        answer = api.request(method, path, tenant="a", json=body, headers={"Accept": accept})
                        assert answer.status_code in (403, 405, 422), (method, path, answer.status_code)
                        assert "of-a" not in answer.text
        assert stored(world) == before


def test_react_admin_sends_back_whole_rows(world: World) -> None:
    """What is not read-only is never ignored, so no change is lost without an error."""
    with world.api() as (app, api):
        app.include_router(crud_router(Person, "/p", options=REACT_ADMIN, operations=EVERY))
        app.include_router(
            crud_router(Person, "/alias", options=REACT_ADMIN, operations=EVERY, read_schema=PersonAlias)
        )
        own = uuid_of("a", "own")
        whole = api.get(f"/p/{own}", tenant="a").json()
        assert api.request("PUT", f"/p/{own}", tenant="a", json={**whole, "name": "new"}).json()["name"] == "new"
        assert api.patch("/p/bulk", tenant="a", json=[{**whole, "name": "newer"}]).json()[0]["name"] == "newer"
        for field in ("secret", "tenant_id", "is_deleted", "nonsense"):
            assert api.request("PUT", f"/p/{own}", tenant="a", json={**whole, field: "b"}).status_code == 422
        whole = api.get(f"/alias/{own}", tenant="a").json()
        for body in (whole, {**whole, "fullName": "newest"}):
            answer = api.request("PUT", f"/alias/{own}", tenant="a", json=body)
            assert answer.status_code == 422 or answer.json()["fullName"] == body["fullName"], answer.text
            answer = api.patch("/alias/bulk", tenant="a", json=[body])
            assert answer.status_code == 422 or answer.json()[0]["fullName"] == body["fullName"], answer.text


def test_wrong_hooks_write_nothing(world: World) -> None:
    class Wrong:
        def __init__(self, value: Any) -> None:
            self.value = value

        def before_create(self, data: Any, repository: Any) -> Any:
            return self.value

    for value in (
        None,
        [],
        3,
        Person(name="x"),
        {"name": "x", "nonsense": 1},
        {},
        {"name": None},
        {"posts": 3, "name": "x"},
    ):
        with world.api() as (app, api):
            app.include_router(crud_router(Person, "/p", operations=EVERY, hooks=Wrong(value)))
            app.include_router(crud_router(Person, "/n", nested=("posts",), hooks=Wrong(value)))
            before = stored(world)
            for path, body in (
                ("/p", {"name": "x"}),
                ("/p/bulk", [{"name": "x"}]),
                ("/n", {"name": "x", "posts": [{"title": "x"}]}),
            ):
                answer = api.post(path, tenant="a", json=body)
                assert answer.status_code >= 400, (value, path)
            assert stored(world) == before


def test_hooks_change_children(world: World) -> None:
    """Children are checked as they are written, not as they were sent."""

    class Children:
        def __init__(self, **values: Any) -> None:
            self.values = values

        def before_create(self, data: Any, repository: Any) -> Any:
            values = data.model_dump(exclude_unset=True)
            return {**values, "posts": [{**post, **self.values} for post in values.get("posts", [])]}

    other = uuid_of("b", "own")
    for values, status in (
        ({"tenant_id": "b"}, 403), ({"person_id": UUID(other)}, 201), ({"team_id": key_of("b", "own")}, 409),
        ({"nonsense": 1}, 500),  # the app's fault, which no client can correct
    ):  # fmt: skip
        with world.api() as (app, api):
            app.include_router(crud_router(Person, "/n", nested=("posts",), hooks=Children(**values)))
            before = stored(world, "b")
            answer = api.post("/n", tenant="a", json={"name": "x", "posts": [{"title": "t"}]})
            assert answer.status_code == status, (values, answer.text)
            assert stored(world, "b") == before
            if status == 201:
                assert answer.json()["posts"][0]["person_id"] == answer.json()["id"]


def test_links_of_forged_rows(world: World) -> None:
    """A link to another tenant's row that exists already is neither shown, found nor removed."""
    with world.api() as (app, api):
        app.include_router(
            crud_router(Person, "/p", operations=LINKED, links=("tags", "posts"), include=("tags", "posts"))
        )
        own, before = uuid_of("a", "own"), stored(world)
        for tag in ("own-of-b", "gone-of-b", "nothing"):
            for method in ("PUT", "DELETE"):
                assert api.request(method, f"/p/{own}/tags/{tag}", tenant="a").status_code == 404
        forged = FORGED + key_of("b", "own")
        for method in ("PUT", "DELETE"):
            for post in (forged, key_of("b", "own"), key_of("a", "gone"), 999):
                assert api.request(method, f"/p/{own}/posts/{post}", tenant="a").status_code == 404
        assert stored(world) == before
        row = api.get(f"/p/{own}?include=tags,posts", tenant="a").json()
        assert {tag["slug"] for tag in row["tags"]} == {"own-of-a", "other-of-a", "hidden-of-a"}
        # one's own row with a forged key can be repaired
        mine = FORGED + key_of("a", "own")
        assert api.request("PUT", f"/p/{own}/posts/{mine}", tenant="a").status_code == 204


def test_forged_keys_in_updates(world: World) -> None:
    """A row with a forged foreign key can be changed otherwise, but the key can't be confirmed."""
    forged = str(UUID(int=FORGED + key_of("a", "own")))
    with world.api() as (app, api):
        app.include_router(crud_router(Person, "/p", operations=EVERY, hooks=Counted(fails=False)))
        assert api.patch(f"/p/{forged}", tenant="a", json={"kind": "x"}).status_code == 200
        assert api.patch("/p/bulk", tenant="a", json=[{"id": forged, "kind": "y"}]).status_code == 200
        team = {"team_id": key_of("b", "own")}
        assert api.patch(f"/p/{forged}", tenant="a", json=team).status_code == 409
        assert api.patch("/p/bulk", tenant="a", json=[{"id": forged, **team}]).status_code == 409


def test_a_row_with_more_children_than_one_statement_reads(world: World) -> None:
    """Included rows are complete, and of the tenant, however many there are."""
    posts = Base.metadata.tables["product_posts"]
    own = UUID(uuid_of("a", "own"))
    with world.owner.engine.begin() as connection:
        for tenant, first in (("a", 10_000), ("b", 30_000)):
            row = {"tenant_id": tenant, "is_deleted": False, "version": 1, "person_id": own}
            rows = [{**row, "id": first + number, "title": f"many of-{tenant}"} for number in range(10_001)]
            connection.execute(posts.insert(), rows)
    with world.api() as (app, api):
        app.include_router(crud_router(Person, "/p", include=("posts",), fields=("id", "name")))
        for path, accept in (
            ("/p?include=posts&limit=1&sort=-name", "*/*"),
            ("/p?include=posts", "application/x-ndjson"),
        ):
            seen = 0
            while path:
                answer = api.get(path, tenant="a", headers={"Accept": accept})
                assert answer.status_code == 200
                assert "of-b" not in answer.text
                seen += answer.text.count("many of-a")
                path = answer.links.get("next", {}).get("url", "")
            assert seen == 10_001


def test_bulk_requests_that_meet_are_run_again(world: World) -> None:
    """Two that lock the same rows in another order: each is done once."""
    own, other = uuid_of("a", "own"), uuid_of("a", "other")
    with world.api() as (app, api):
        route: Any = rerun_route(methods={"PATCH", "POST"})
        app.include_router(crud_router(Person, "/p", operations=EVERY, route_class=route, hooks=Counted(fails=False)))

        async def race() -> list[int]:
            bodies = [[{"id": key, "kind": "x"} for key in pair] for pair in ((own, other), (other, own))] * 4
            requests = [api.arequest("PATCH", "/p/bulk", tenant="a", json=body) for body in bodies]
            return [answer.status_code for answer in await asyncio.gather(*requests)]

        assert api.run(race()) == [200] * 8
        for key in (own, other):
            assert api.get(f"/p/{key}", tenant="a").json()["version"] == 9


class ParentAlone:
    """Hooks that build the parent's data anew, and do not think of its children."""

    def __init__(self, *, none: bool = False) -> None:
        self.none = none

    def before_create(self, data: Any, repository: Any) -> Any:
        return {"name": data.name, **({"posts": []} if self.none else {})}


def test_children_are_not_lost(world: World) -> None:
    """Children that a hook does not mention are created as they were sent; an empty list drops them."""
    for hooks, expected in ((ParentAlone(), ["t", "u"]), (ParentAlone(none=True), [])):
        with world.api() as (app, api):
            app.include_router(crud_router(Person, "/n", nested=("posts",), hooks=hooks))
            made = api.post("/n", tenant="a", json={"name": "x", "posts": [{"title": "t"}, {"title": "u"}]})
            assert made.status_code == 201, made.text
            assert [post["title"] for post in made.json()["posts"]] == expected


class Mapped:
    """Hooks that return objects of a class of SQLModel, which are mapped."""

    def before_create(self, data: Any, repository: Any) -> Any:
        return endpoints_app.load().Author(name=f"{data.name} mapped")

    def before_update(self, key: Any, data: Any, repository: Any) -> Any:
        return endpoints_app.load().Author(name=f"{data.name} mapped")


def test_hooks_return_mapped_objects(tmp_path: Path) -> None:
    author = endpoints_app.load().Author
    plugin = DatabasePlugin(f"sqlite:///{tmp_path}/authors.db", tenant=tenant_from_header("X-Tenant-ID"))
    tables = [SQLModel.metadata.tables[name] for name in ("author", "book")]
    SQLModel.metadata.create_all(plugin.database.engine, tables=tables)
    app = FastAPI(lifespan=plugin.lifespan)
    app.include_router(crud_router(author, "/p", operations=EVERY, hooks=Mapped()))
    app.include_router(crud_router(author, "/n", nested=("books",), hooks=Mapped()))
    with asyncio.Runner() as runner:
        api = Api(app, runner)
        key = api.post("/p", tenant="a", json={"name": "x"}).json()["id"]
        assert api.post("/p/bulk", tenant="a", json=[{"name": "x"}]).json()[0]["name"] == "x mapped"
        assert api.patch(f"/p/{key}", tenant="a", json={"name": "y"}).json()["name"] == "y mapped"
        changed = api.patch("/p/bulk", tenant="a", json=[{"id": key, "name": "z"}])
        assert [row["name"] for row in changed.json()] == ["z mapped"]
        nested = api.post("/n", tenant="a", json={"name": "x", "books": [{"title": "t"}]}).json()
        assert (nested["name"], [book["title"] for book in nested["books"]]) == ("x mapped", ["t"])
        runner.run(plugin.database.dispose_async())


@pytest.mark.parametrize("field", ["secret", "team.code", "posts.person.secret"])
@pytest.mark.parametrize(
    "option", ["filters", "sorts", "search", "facets", "fields", "include", "default_sort", "nested"]
)
def test_no_option_reveals_a_private_column(option: str, field: str) -> None:
    value: Any = field if option == "default_sort" else (field,)
    with pytest.raises(ValidationError):
        crud_router(Person, "/p", **{option: value})


def test_a_repository_hides_rows_from_every_route(world: World) -> None:
    """The conditions of a repository class hold for all requests: a hidden row is as if it did not exist."""
    hidden = uuid_of("a", "hidden")
    with world.api() as (app, api):
        app.include_router(
            crud_router(
                Person, "/p", operations=LINKED, links=("tags",), repository=Living, facets=("name",), fields=("name",),
                delete_body=DeleteBody.ROW, hooks=Counted(fails=False), list_etag=True,
            )
        )  # fmt: skip
        before = stored(world)
        for method, path, body in (
            ("GET", f"/p/{hidden}", None),
            ("GET", f"/p/{hidden}?fields=name", None),
            ("HEAD", f"/p/{hidden}", None),
            ("PATCH", f"/p/{hidden}", {"name": "x"}),
            ("PATCH", "/p/bulk", [{"id": uuid_of("a", "own"), "name": "x"}, {"id": hidden, "name": "x"}]),
            ("DELETE", f"/p/{hidden}", None),
            ("POST", f"/p/{hidden}/restore", None),
            ("PUT", f"/p/{hidden}/tags/own-of-a", None),
            ("DELETE", f"/p/{hidden}/tags/own-of-a", None),
        ):
            answer = api.request(method, path, tenant="a", json=body)
            assert answer.status_code == 404, (method, path, answer.text)
            assert "hidden" not in answer.text
        assert stored(world) == before
