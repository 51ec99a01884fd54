"""The options of the routers together: each value of an option with each value of every other one."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import jsonschema_rs
import pytest
import sqlalchemy as sa
from fastapi import APIRouter, FastAPI

from dotmac_database import idempotency_metadata
from dotmac_database_fastapi import (
    OPERATIONS,
    DatabasePlugin,
    crud_router,
    register_exception_handlers,
    rerun_route,
    tenant_from_header,
)
from dotmac_database_fastapi.statuses import DeleteBody
from tests.confined import ROLE
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import RINGS, Tables, World, world_of
from tests.fastapi.product_models import (
    FORGED,
    TENANTS,
    Base,
    Counting,
    Dicts,
    Envelope,
    Living,
    Passing,
    Person,
    PersonAlias,
    PersonEnvelope,
    PersonRead,
    PersonShouted,
    enveloped,
    fill,
    key_of,
    uuid_of,
)

EVERY = (*OPERATIONS, "bulk_create", "bulk_update", "link")
NESTED = (*OPERATIONS, "bulk_update", "link")

AXES: dict[str, dict[str, dict[str, Any]]] = {
    "paging": {
        "both": {},
        "page": {"paging": "page"},
        "offset": {"paging": "offset"},
        "cursor": {"paging": "cursor"},
        "range": {"paging": "range"},
    },
    "envelope": {
        "none": {},
        "class": {"envelope": PersonEnvelope},
        "generic": {"envelope": Envelope},
        "function": {"envelope": enveloped},
    },
    "select": {
        "none": {},
        "fields": {"fields": ("id", "name", "kind")},
        "include": {"include": ("team", "posts.person", "tags")},
        "both": {"fields": ("id", "name", "kind"), "include": ("team", "posts.person", "tags")},
    },
    "facets": {"none": {}, "kind": {"facets": ("kind", "name")}},
    "list_etag": {"no": {}, "yes": {"list_etag": True}},
    "exports": {
        "default": {}, "csv": {"exports": ("csv",)}, "none": {"exports": ()}, "ndjson": {"exports": ["ndjson"]},
    },
    "read_schema": {
        "derived": {},
        "user's": {"read_schema": PersonRead},
        "code": {"read_schema": PersonShouted},
        "alias": {"read_schema": PersonAlias},
    },
    "hooks": {"none": {}, "passing": {"hooks": Passing()}, "dicts": {"hooks": Dicts()}},
    "many": {"bulk": {"operations": EVERY}, "nested": {"operations": NESTED, "nested": ("posts",)}},
    "idempotency": {"no": {}, "yes": {"idempotency": True}},
    "status": {
        "usual": {}, "200": {"status_codes": {"create": 200, "update": 202}}, "204": {"status_codes": {"create": 204}},
    },
    "delete": {"none": {}, "row": {"delete_body": DeleteBody.ROW}, "object": {"delete_body": {"ok": True}}},
    "slash": {"no": {}, "yes": {"trailing_slash": True}},
    "method": {"PATCH": {}, "PUT": {"update_method": "PUT", "read_only_fields": "ignore"}},
    "repository": {"default": {}, "conditions": {"repository": Living}, "overrides": {"repository": Counting}},
    "route": {"plain": {}, "rerun": {"route_class": rerun_route()}},
    "plugin": {"first": {}, "strict": {"strict_loading": True}},
}  # fmt: skip


def fits(case: dict[str, str]) -> bool:
    """Whether the options do not contradict each other."""
    fitted = case.get("paging") == "range" or case.get("envelope", "none") != "none"
    whole = case.get("select", "none") == case.get("facets", "none") == "none"
    both = case.get("paging") == "range" and case.get("envelope", "none") != "none"
    return not (fitted and not whole) and not both


def pairwise() -> list[dict[str, str]]:
    """Cases that contain each pair of values of two axes, if the pair fits. Always the same."""
    names = list(AXES)
    wanted = {
        frozenset({(one, first), (two, second)})
        for one, two in itertools.combinations(names, 2)
        for first in AXES[one]
        for second in AXES[two]
        if fits({one: first, two: second})
    }
    cases = []
    while wanted:
        case = dict(min(sorted(map(sorted, wanted))))
        for name in names:
            if name not in case:
                choices = [value for value in AXES[name] if fits({**case, name: value})]
                turn = len(cases) % len(choices)
                gains = {
                    value: sum(frozenset({(name, value), pair}) in wanted for pair in case.items())
                    for value in choices[turn:] + choices[:turn]
                }
                case[name] = max(gains, key=lambda value: gains[value])
        wanted -= {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}
        cases.append({name: case[name] for name in names})
    return cases


CASES = pairwise()


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("products"), Tables(Base.metadata, fill)) as world:
        idempotency_metadata.create_all(world.owner.engine)
        if world.rls is not None:
            with world.owner.engine.begin() as connection:
                connection.exec_driver_sql(f"GRANT ALL ON dotmac_idempotency_keys TO {ROLE}")
        yield world


class Checked:
    """An app whose responses are checked: no 500, nothing of another tenant or deleted, and as OpenAPI says."""

    def __init__(self, app: FastAPI, api: Api) -> None:
        self.api = api
        document = app.openapi()
        self.paths = document["paths"]
        self.components = document["components"]
        self.validators: dict[str, Any] = {}

    def send(self, method: str, path: str, *statuses: int, tenant: str = "a", **options: Any) -> httpx.Response:
        answer = self.api.request(method, path, tenant=tenant, **options)
        where = (method, path, options, answer.status_code, answer.text[:1500])
        assert answer.status_code in statuses, where
        [other] = set(TENANTS) - {tenant}
        for mark in (f"of-{other}", "gone of-", " secret", '"tenant_id":'):
            assert mark not in answer.text, (mark, where)
        self.validate(method, path, answer, where)
        return answer

    def validate(self, method: str, path: str, answer: httpx.Response, where: object) -> None:
        """Check the response against the operation's schema."""
        if method in ("HEAD", "OPTIONS") or answer.status_code == 405:
            assert not answer.content or answer.status_code == 405, where
            return
        operation = self.operation(method, path.partition("?")[0])
        status, kind = str(answer.status_code), answer.headers.get("content-type", "").partition(";")[0]
        documented = operation["responses"].get(status)
        assert documented is not None, ("not documented", where)
        if "$ref" in documented:
            documented = self.components["responses"][documented["$ref"].rpartition("/")[2]]
        contents = documented.get("content")
        assert bool(contents) == bool(answer.content) or not answer.content, where
        if not answer.content or kind not in ("application/json", "application/problem+json"):
            assert not answer.content or kind in contents, where
            return
        schema = contents[kind]["schema"]
        text = json.dumps(schema, sort_keys=True)
        if text not in self.validators:
            self.validators[text] = jsonschema_rs.Draft202012Validator({**schema, "components": self.components})
        faults = [str(fault) for fault in self.validators[text].iter_errors(answer.json())]
        assert not faults, (faults[:3], where)

    def operation(self, method: str, path: str) -> Any:
        def matches(template: str) -> bool:
            parts, own = template.split("/"), path.split("/")
            return len(parts) == len(own) and all(
                one == two or one.startswith("{") for one, two in zip(parts, own, strict=True)
            )

        found = [each for each in self.paths if matches(each) and method.lower() in self.paths[each]]
        assert found, (method, path)
        return self.paths[min(found, key=lambda each: each.count("{"))][method.lower()]


Plugins = dict[str, DatabasePlugin]


@pytest.fixture(scope="module")
def plugins(world: World) -> Iterator[tuple[Plugins, asyncio.Runner]]:
    """Two plugins of an app: one with strict loading and signed cursors."""
    options: dict[str, Any] = {"rls": world.rls, "tenant": tenant_from_header("X-Tenant-ID")}
    first = DatabasePlugin(world.url, name="first", **options)
    strict = DatabasePlugin(world.url, name="strict", strict_loading=True, cursor_key=b"0123456789abcdef", **options)
    with asyncio.Runner() as runner:
        yield {"first": first, "strict": strict}, runner
        for plugin in (first, strict):
            runner.run(plugin.database.dispose_async())


def router_of(number: int, plugins: Plugins) -> APIRouter:
    options: dict[str, Any] = {}
    for name, value in CASES[number].items():
        options |= AXES[name][value] if name != "plugin" else {"plugin": plugins[value]}
    return crud_router(Person, f"/p{number}", links=("tags",), tags=[f"p{number}"], **options)


def app_of(plugins: Plugins, numbers: Iterable[int]) -> FastAPI:
    app = FastAPI()
    for plugin in plugins.values():
        plugin.install(app)
    register_exception_handlers(app)
    for number in numbers:
        app.include_router(router_of(number, plugins))
    return app


@pytest.mark.parametrize(
    ("world", "number"),
    [(RINGS[number % len(RINGS)], number) for number in range(0, len(CASES), 2)],  # each on one of the databases
    indirect=["world"],
)
def test_a_sample_of_options_together(world: World, plugins: tuple[Plugins, asyncio.Runner], number: int) -> None:
    run_case(world, plugins, number)


@pytest.mark.matrix
@pytest.mark.parametrize("number", range(len(CASES)))
@pytest.mark.parametrize("world", RINGS, indirect=True)
def test_options_together(world: World, plugins: tuple[Plugins, asyncio.Runner], number: int) -> None:
    run_case(world, plugins, number)


def run_case(world: World, plugins: tuple[Plugins, asyncio.Runner], number: int) -> None:
    """Send the requests of one case to an app with its options alone."""
    world.refill()
    with world.owner.engine.begin() as connection:
        connection.execute(sa.delete(idempotency_metadata.tables["dotmac_idempotency_keys"]))
    app = app_of(plugins[0], [number])
    Scenario(Checked(app, Api(app, plugins[1])), number, CASES[number]).run()


@pytest.mark.parametrize("world", ["sqlite"], indirect=True)
def test_one_document_of_all_routers(plugins: tuple[Plugins, asyncio.Runner]) -> None:
    document = app_of(plugins[0], range(len(CASES))).openapi()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)


class Scenario:
    """All requests of one router."""

    def __init__(self, checked: Checked, number: int, case: dict[str, str]) -> None:
        self.send, self.case = checked.send, case
        self.base = f"/p{number}"
        self.list = f"/p{number}/" if case["slash"] == "yes" else f"/p{number}"
        self.update = case["method"]
        self.hidden = case["repository"] == "conditions"
        self.status = {"usual": (201, 200), "200": (200, 202), "204": (204, 200)}[case["status"]]

    def run(self) -> None:
        for step in (self.lists, self.exports, self.heads, self.reads, self.creates, self.updates, self.many):
            step()
        self.links()
        self.deletes()

    def rows(self, answer: httpx.Response) -> list[Any]:
        body = answer.json()
        if isinstance(body, list):
            return body
        return next(body[name] for name in ("items", "data", "rows") if name in body)

    def names(self, rows: list[Any]) -> set[str]:
        return {str(row.get("fullName") or row.get("name")).lower() for row in rows}

    @property
    def live(self) -> set[str]:
        return {"own of-a", "other of-a", "forged of-a"} | (set() if self.hidden else {"hidden of-a"})

    def lists(self) -> None:
        paging, get = self.case["paging"], self.list
        whole = self.send("GET", get, 200)
        assert self.names(self.rows(whole)) == self.live
        pages = {
            "both": ["?page=2&per_page=1&total=bounded", "?limit=2&sort=-name", "?page=1&total=none&sort=kind"],
            "page": ["?page=2&per_page=1&total=bounded"],
            "offset": ["?skip=1&limit=1", "?skip=100"],
            "cursor": ["?limit=2&sort=-name", "?limit=1&sort=kind"],
            "range": ['?range=[0,1]&sort=["name","DESC"]&filter={"kind":["own"]}', "?range=[90,99]"],
        }[paging]
        for page in pages:
            self.send("GET", get + page, 200)
        if paging in ("both", "cursor"):
            seen, path, turns = set[str](), get + "?limit=1&sort=-kind,name", 0
            while path and turns < 9:
                answer = self.send("GET", path, 200)
                seen |= self.names(self.rows(answer))
                turns += 1
                path = answer.links.get("next", {}).get("url", "")
                assert not path or path.startswith(self.list)
            assert seen == self.live
        for wrong in ("secret=x", "team.code=x", "tenant_id=b", "is_deleted=true", "posts.person.secret=x"):
            self.send("GET", f"{get}?{wrong}", 422)
        for wrong in ("secret", "bio_x", "tenant_id", "team.code", "-is_deleted"):
            self.send("GET", f"{get}?sort={wrong}", 422)
        selected = self.case["select"]
        if selected in ("fields", "both"):
            answer = self.send("GET", f"{get}?fields=name", 200)
            assert all(len(row) == 1 for row in self.rows(answer))
            if paging in ("both", "cursor"):
                self.send("GET", f"{get}?fields=name&limit=1&sort=kind", 200)
            for wrong in ("secret", "tenant_id", "bio", "team"):
                self.send("GET", f"{get}?fields={wrong}", 422)
        if selected in ("include", "both"):
            answer = self.send("GET", f"{get}?include=team,posts.person,tags", 200)
            for row in self.rows(answer):
                name = str(row.get("fullName") or row.get("name")).lower()
                assert (row["team"] is None) == name.startswith("forged"), row
                if name.startswith("own"):
                    assert {post["title"] for post in row["posts"]} == {"own of-a", "other of-a", "hidden of-a"}
                    assert {tag["slug"] for tag in row["tags"]} == {"own-of-a", "other-of-a", "hidden-of-a"}
            self.send("GET", f"{get}?include=posts.person.team", 422)
        if selected == "both":
            self.send("GET", f"{get}?include=team&fields=name", 200)
        if self.case["facets"] == "kind":
            answer = self.send("GET", f"{get}?facets=kind,name", 200)
            assert {each["value"].lower() for each in answer.json()["facets"]["name"]} == self.live
            self.send("GET", f"{get}?facets=secret", 422)
        if self.case["list_etag"] == "yes":
            tag = whole.headers["etag"]
            self.send("GET", get, 304, headers={"If-None-Match": tag})
            assert self.send("GET", get, 200, tenant="b", headers={"If-None-Match": tag}).headers["etag"] != tag

    def exports(self) -> None:
        offered = {"default": {"csv", "ndjson"}, "csv": {"csv"}, "ndjson": {"ndjson"}, "none": set()}
        formats = offered[self.case["exports"]]
        if self.case["exports"] == "default" and (
            self.case["repository"] == "overrides" or self.case["paging"] == "range"
        ):
            formats = set()
        for name, kind in (("csv", "text/csv"), ("ndjson", "application/x-ndjson")):
            answer = self.send("GET", self.list, 200, headers={"Accept": kind})
            exported = answer.headers["content-type"].startswith(kind)
            assert exported == (name in formats)
            if exported:
                assert all(each in answer.text.lower() for each in self.live)
                assert ("hidden of-a" in answer.text.lower()) != self.hidden
                self.send("HEAD", self.list, 200, headers={"Accept": kind})
                page = {"range": "range=[0,1]", "offset": "skip=1", "cursor": "limit=1"}.get(
                    self.case["paging"], "page=2"
                )
                self.send("GET", f"{self.list}?{page}", 422, headers={"Accept": kind})
            if exported and self.case["select"] in ("fields", "both"):
                answer = self.send("GET", f"{self.list}?fields=kind", 200, headers={"Accept": kind})
                assert "of-a" not in answer.text
            if exported and name == "ndjson" and self.case["select"] in ("include", "both"):
                self.send("GET", f"{self.list}?include=team,posts.person,tags", 200, headers={"Accept": kind})

    def heads(self) -> None:
        key = uuid_of("a", "own")
        paths = [self.list, f"{self.base}/{key}", f"{self.base}/bulk", f"{self.base}/{key}/tags/x"]
        for path in (*paths, f"{self.base}/{key}/restore"):
            allowed = self.send("OPTIONS", path, 204).headers["allow"]
            assert "OPTIONS" in allowed
            head = self.send("HEAD", path, 200 if "HEAD" in allowed else 405)
            if head.status_code == 200:
                whole = self.send("GET", path, 200)
                assert {**head.headers} == {**whole.headers}
        assert self.send("GET", f"{self.base}/bulk", 405).headers["allow"]

    def reads(self) -> None:
        for kind in ("own", "other", "gone", "hidden"):
            lost = kind == "gone" or (kind == "hidden" and self.hidden)
            answer = self.send("GET", f"{self.base}/{uuid_of('a', kind)}", 404 if lost else 200)
            foreign = self.send("GET", f"{self.base}/{uuid_of('b', kind)}", 404)
            if lost:
                assert answer.json() == foreign.json()
            elif "etag" in answer.headers:
                expected = {200, 304}
                self.send("GET", f"{self.base}/{uuid_of('a', kind)}", *expected, headers={"If-None-Match": '"1"'})
        own = f"{self.base}/{uuid_of('a', 'own')}"
        if self.case["select"] in ("fields", "both"):
            assert len(self.send("GET", f"{own}?fields=name", 200).json()) == 1
        if self.case["select"] in ("include", "both"):
            self.send("GET", f"{own}?include=team,posts.person,tags", 200)
            forged = f"{self.base}/{UUID(int=FORGED + key_of('a', 'own'))}"
            assert self.send("GET", f"{forged}?include=team", 200).json()["team"] is None

    def creates(self) -> None:
        created, _ = self.status
        for extra, headers in (({}, {}), ({}, {"Prefer": "return=minimal"})):
            nested = {"posts": [{"title": "one"}, {"title": "two"}]} if self.case["many"] == "nested" else {}
            body = {"name": f"new {uuid4()}", **nested, **extra}
            headers = {**headers, "Idempotency-Key": str(uuid4())}
            status = 204 if created == 200 and "Prefer" in headers else created
            answer = self.send("POST", self.list, status, json=body, headers=headers)
            assert answer.headers["location"].endswith(self.location(answer)), answer.headers
            self.send("GET", answer.headers["location"], 200)
            self.send("GET", answer.headers["location"], 404, tenant="b")
            if self.case["idempotency"] == "yes":
                again = self.send("POST", self.list, status, json=body, headers=headers)
                assert (again.content, again.headers["location"]) == (answer.content, answer.headers["location"])
                assert again.headers["idempotency-replayed"] == "true"
                other = self.send("POST", self.list, status, tenant="b", json=body, headers=headers)
                assert "idempotency-replayed" not in other.headers
                assert other.headers["location"] != answer.headers["location"]
                self.send("POST", self.list, 422, json={**body, "name": "y"}, headers=headers)
            if nested:
                children = [{"title": "x", field: uuid_of("a", "own")} for field in ("tenant_id", "person_id", "id")]
                for child in (*children, {"title": "x", "version": 3}, {}, None, 3):
                    self.send("POST", self.list, 422, json={"name": "x", "posts": [child]})
                foreign = {"title": "x", "team_id": key_of("b", "own")}
                refused = self.send("POST", self.list, 409, json={"name": "x", "posts": [{"title": "y"}, foreign]})
                assert (refused.json()["index"], refused.json()["fields"]) == (1, ["posts.team_id"])
        for field, value in (("tenant_id", "b"), ("is_deleted", True), ("id", uuid_of("b", "own")), ("version", 9)):
            self.send("POST", self.list, 422, json={"name": "x", field: value})
        for name in ("own", "gone"):
            foreign = self.send("POST", self.list, 409, json={"name": "x", "team_id": key_of("b", name)})
            unknown = self.send("POST", self.list, 409, json={"name": "x", "team_id": 999})
            assert foreign.json() == unknown.json()
        duplicate = self.send("POST", self.list, 409, json={"name": "x", "email": "own of-a@x"})
        assert duplicate.json()["fields"] == ["email"]

    def location(self, answer: httpx.Response) -> str:
        return "" if not answer.content else f"{self.base}/{answer.json()['id']}"

    def updates(self) -> None:
        _, updated = self.status
        own = f"{self.base}/{uuid_of('a', 'own')}"
        self.send(self.update, own, updated, json={"kind": "changed"})
        self.send(
            self.update,
            own,
            204 if updated == 200 else updated,
            json={"kind": "x"},
            headers={"Prefer": "return=minimal"},
        )
        for kind in ("own", "gone"):
            self.send(self.update, f"{self.base}/{uuid_of('b', kind)}", 404, json={"kind": "x"})
        self.send(self.update, f"{self.base}/{uuid_of('a', 'gone')}", 404, json={"kind": "x"})
        self.send(self.update, own, 409, json={"team_id": key_of("b", "own")})
        self.send(self.update, own, 412, json={"kind": "x"}, headers={"If-Match": '"77"'})
        self.send(self.update, own, 422, json={"posts": []})
        whole = self.send("GET", own, 200).json()
        ignoring = self.update == "PUT"
        self.send(
            self.update,
            own,
            *((updated,) if ignoring and self.case["read_schema"] != "alias" else (422, updated)),
            json=whole,
        )
        assert self.send("GET", own, 200).json()["id"] == uuid_of("a", "own")

    def many(self) -> None:
        bulk = f"{self.base}/bulk"
        own, other = uuid_of("a", "own"), uuid_of("a", "other")
        rows = [{"id": own, "kind": "many"}, {"id": other, "kind": "many", "bio": "long"}]
        answer = self.send("PATCH", bulk, 200, json=rows)
        assert [row["id"] for row in answer.json()] == [own, other]
        for kind in ("own", "gone"):
            refused = self.send("PATCH", bulk, 404, json=[{"id": own, "kind": "z"}, {"id": uuid_of("b", kind)}])
            assert refused.json()["index"] == 1
        refused = self.send("PATCH", bulk, 409, json=[{"id": own}, {"id": other, "team_id": key_of("b", "own")}])
        assert (refused.json()["index"], refused.json()["fields"]) == (1, ["team_id"])
        if self.update == "PUT" and self.case["read_schema"] != "alias":
            whole = self.send("GET", f"{self.base}/{own}", 200).json()
            self.send("PATCH", bulk, 200, json=[whole])
        if self.case["many"] != "bulk":
            assert self.send("POST", bulk, 405).headers["allow"] == "OPTIONS, PATCH"
            return
        key = {"Idempotency-Key": str(uuid4())}
        body = [{"name": "m1"}, {"name": "m2", "bio": "x"}]
        answer = self.send("POST", bulk, 201, json=body, headers=key)
        if self.case["idempotency"] == "yes":
            assert self.send("POST", bulk, 201, json=body, headers=key).content == answer.content
        foreign = self.send("POST", bulk, 409, json=[{"name": "m3"}, {"name": "m4", "email": "own of-a@x"}])
        assert (foreign.json().get("index"), foreign.json()["fields"]) in ((1, ["email"]), (None, ["email"]))

    def links(self) -> None:
        own = f"{self.base}/{uuid_of('a', 'own')}/tags"
        self.send("DELETE", f"{own}/own-of-a", 204)
        self.send("PUT", f"{own}/own-of-a", 204)
        for tag in ("own-of-b", "gone-of-a", "nothing"):
            self.send("PUT", f"{own}/{tag}", 404)
            self.send("DELETE", f"{own}/{tag}", 404)
        self.send("PUT", f"{self.base}/{uuid_of('b', 'own')}/tags/own-of-a", 404)

    def deletes(self) -> None:
        key = f"{self.base}/{uuid_of('a', 'other')}"
        status = 204 if self.case["delete"] == "none" else 200
        self.send("DELETE", f"{self.base}/{uuid_of('b', 'own')}", 404)
        self.send("DELETE", key, 412, headers={"If-Match": '"77"'})
        answer = self.send("DELETE", key, status)
        if self.case["delete"] == "row":
            assert answer.json()["id"] == uuid_of("a", "other")
        self.send("DELETE", key, 404)
        self.send("PUT", f"{key}/tags/own-of-a", 404)
        self.send("POST", f"{self.base}/{uuid_of('b', 'gone')}/restore", 404)
        self.send("POST", f"{key}/restore", 200)
        self.send("GET", key, 200)
