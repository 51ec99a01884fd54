"""Groups of databases that count together: up, stopped, and frozen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from dotmac_database import DatabaseHealthChecker, ValidationError
from dotmac_database_fastapi import DatabasePlugin, health_router
from tests.fastapi.conftest import Api, MakePlugin
from tests.postgres import OwnServer


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    own = OwnServer(max_connections=30).start()
    yield own
    own.stop()


@pytest.fixture
def other(server: OwnServer, runner: asyncio.Runner) -> Iterator[DatabasePlugin]:
    """A plugin on a server that can be stopped and frozen."""
    plugin = DatabasePlugin(server.url(), name="reports", connect_timeout=2)
    yield plugin
    runner.run(plugin.database.dispose_async())


def nothing(_: OwnServer) -> None:
    """Leave the server as it is."""


STATES: dict[str, tuple[Callable[[OwnServer], Any], Callable[[OwnServer], Any], str]] = {
    "up": (nothing, nothing, "healthy"),
    "frozen": (OwnServer.freeze, OwnServer.thaw, "unhealthy"),
    "stopped": (OwnServer.kill, OwnServer.start, "unhealthy"),
}
CHECKERS = {
    # The sound database must respond within this time too.
    "frozen": DatabaseHealthChecker(connection_timeout=1.0, query_timeout=1.0),
}


@pytest.mark.parametrize("state", STATES)
def test_a_group_is_ready_if_all_of_it_responds(
    make_plugin: MakePlugin, other: DatabasePlugin, server: OwnServer, runner: asyncio.Runner, state: str
) -> None:
    mine = make_plugin()
    app = FastAPI(lifespan=mine.lifespan)
    groups = {"ready": (mine, other), "reading": [other], "writing": [mine]}
    app.include_router(health_router(plugin=mine, groups=groups, checker=CHECKERS.get(state, DatabaseHealthChecker())))
    api = Api(app, runner)
    begin, end, status = STATES[state]
    begin(server)
    try:
        answers = {name: api.get(f"/health/db/{name}") for name in groups}
    finally:
        end(server)
    works = state == "up"
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "ready": 200 if works else 503,
        "reading": 200 if works else 503,
        "writing": 200,
    }
    both = answers["ready"].json()
    assert both["status"] == status
    assert {name: each["status"] for name, each in both["databases"].items()} == {
        "default": "healthy",
        "reports": status,
    }
    assert answers["writing"].json()["databases"].keys() == {"default"}
    assert answers["ready"].headers["cache-control"] == "no-store"
    for each in both["databases"].values():
        assert each["details"] == {}
    # The checks of one database do not depend on the groups.
    assert api.get("/health/db").status_code == 200
    assert api.get("/health/db/live").status_code == 200


def test_the_databases_are_checked_at_the_same_time(runner: asyncio.Runner) -> None:
    """Each check waits until all have begun; one after the other, the first would never end."""
    plugins = [DatabasePlugin("sqlite://", name=f"p{number}") for number in range(3)]
    begun = asyncio.Barrier(3)

    class Checker(DatabaseHealthChecker):
        async def async_check_connectivity(self, session: Any) -> Any:
            async with asyncio.timeout(90):
                await begun.wait()
            return await super().async_check_connectivity(session)

    app = FastAPI()
    app.include_router(health_router(plugin=plugins[0], groups={"all": plugins}, checker=Checker()))
    answer = Api(app, runner).get("/health/db/all")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    for plugin in plugins:
        runner.run(plugin.database.dispose_async())


REFUSED: list[tuple[str, Callable[[DatabasePlugin, DatabasePlugin], Any], str]] = [
    ("an empty group", lambda a, b: {"ready": ()}, "'ready' has no plugins"),
    ("an empty list", lambda a, b: {"ready": []}, "'ready' has no plugins"),
    ("no sequence", lambda a, b: {"ready": a}, "'ready' must be a tuple or list of plugins, not DatabasePlugin"),
    ("a name", lambda a, b: {"ready": "default"}, "'ready' must be a tuple or list of plugins, not str"),
    ("an unknown plugin", lambda a, b: {"ready": (a, "reports")}, "'ready' contains 'reports', which is no"),
    ("a database", lambda a, b: {"ready": (a.database,)}, "which is no DatabasePlugin"),
    ("one name twice", lambda a, b: {"ready": (a, a)}, "'ready' has two plugins named 'default'"),
    ("no path", lambda a, b: {"a/b": (a,)}, "'a/b' can't be a path"),
    ("a parameter", lambda a, b: {"{id}": (a,)}, "'{id}' can't be a path"),
    ("no name", lambda a, b: {"": (a,)}, "'' can't be a path"),
    ("a number", lambda a, b: {1: (a,)}, "1 can't be a path"),
    ("the path of the process", lambda a, b: {"live": (a,)}, "'live' is the path that asks no database"),
    ("no mapping", lambda a, b: [a, b], "must be a mapping"),
]


@pytest.mark.parametrize(("groups", "message"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_what_is_no_group_is_refused_when_the_router_is_made(
    groups: Callable[[DatabasePlugin, DatabasePlugin], Any], message: str
) -> None:
    plugins = DatabasePlugin("sqlite://"), DatabasePlugin("sqlite://", name="reports")
    with pytest.raises(ValidationError) as refused:
        health_router(groups=groups(*plugins))
    assert message in str(refused.value)
    assert refused.value.field == "groups"


def test_groups_are_in_the_document() -> None:
    plugins = DatabasePlugin("sqlite://"), DatabasePlugin("sqlite://", name="reports")
    app = FastAPI()
    plugins[0].install(app)
    app.include_router(health_router(plugin=plugins[0], groups={"ready": plugins, "read-only": plugins[1:]}))
    document = app.openapi()
    paths = document["paths"]
    assert [paths[f"/health/db{path}"]["get"]["operationId"] for path in ("", "/live", "/ready", "/read-only")] == [
        "getDatabaseHealth",
        "isAlive",
        "checkDatabases_ready",
        "checkDatabases_read_only",
    ]
    schema = paths["/health/db/ready"]["get"]["responses"]["503"]["content"]["application/json"]["schema"]
    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    assert schema["properties"]["databases"]["additionalProperties"]["title"] == "DatabaseHealth"


def test_a_group_has_head_and_options(runner: asyncio.Runner) -> None:
    plugin = DatabasePlugin("sqlite://")
    app = FastAPI()
    app.include_router(health_router(plugin=plugin, groups={"all": [plugin]}))
    api = Api(app, runner)
    head = api.request("HEAD", "/health/db/all")
    assert (head.status_code, head.content) == (200, b"")
    assert api.request("OPTIONS", "/health/db/all").headers["allow"] == "GET, HEAD, OPTIONS"
    runner.run(plugin.database.dispose_async())


def test_the_documents_example_runs(runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "fastapi.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (example,) = (each for each in blocks if "groups=" in each)
    made: dict[str, Any] = {}
    exec(example, made)
    api = Api(made["app"], runner)
    assert api.get("/health/db/ready").json()["databases"].keys() == {"orders", "reports"}
    assert api.get("/health/db/reading").status_code == 200
    assert api.get("/health/db").json()["details"] == {}
    assert api.get("/health/db", headers={"X-Operator": "a secret"}).json()["details"]
    for name in ("orders", "reports"):
        runner.run(made[name].database.dispose_async())
