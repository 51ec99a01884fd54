"""Apps for the tests, which are called in process or by a real server."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from dotmac_database import Database
from dotmac_database_fastapi import DatabasePlugin, register_exception_handlers, tenant_from_header

MakePlugin = Callable[..., DatabasePlugin]


class Api:
    """A client that calls an app in process, in one event loop."""

    def __init__(self, app: FastAPI, runner: asyncio.Runner) -> None:
        self.app = app
        self.runner = runner

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    def request(self, method: str, path: str, *, tenant: str | None = None, **options: Any) -> httpx.Response:
        return self.run(self.arequest(method, path, tenant=tenant, **options))

    async def arequest(self, method: str, path: str, *, tenant: str | None = None, **options: Any) -> httpx.Response:
        if tenant is not None:
            options["headers"] = {"X-Tenant-ID": tenant, **options.get("headers", {})}
        async with self.client() as client:
            return await client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def patch(self, path: str, **options: Any) -> httpx.Response:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", path, **options)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        # Each in a copy of the context, because tests of a module can share the client.
        return self.runner.run(work, context=contextvars.copy_context())


def inlined(document: dict[str, Any]) -> Any:
    """An OpenAPI document with parameters, headers, responses and enums in the place of references to them."""

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(each) for each in value]
        if not isinstance(value, dict):
            return value
        *_, kind, name = ("", *str(value.get("$ref")).split("/"))
        component = document.get("components", {}).get(kind, {}).get(name, {})
        if kind in ("parameters", "headers", "responses") or "enum" in component:
            return put({**{key: each for key, each in value.items() if key != "$ref"}, **component})
        return {key: put(each) for key, each in value.items()}

    return put(document)


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """The event loop of the test's plugins."""
    if request.node.get_closest_marker("shared_plugin"):
        yield request.getfixturevalue("shared_runner")
        return
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def make_plugin(database: Database, runner: asyncio.Runner) -> Iterator[MakePlugin]:
    """A function that creates plugins for the module's database. After the test, none of them may hold a connection."""
    made: list[DatabasePlugin] = []

    def make(**options: Any) -> DatabasePlugin:
        options.setdefault("tenant", tenant_from_header("X-Tenant-ID"))
        plugin = DatabasePlugin(database.url, **options)
        made.append(plugin)
        return plugin

    yield make
    held = [checked_out(plugin) for plugin in made]
    for plugin in made:
        runner.run(plugin.database.dispose_async())
    assert not any(held), "a connection was left checked out"


@pytest.fixture
def plugin(request: pytest.FixtureRequest, make_plugin: MakePlugin) -> DatabasePlugin:
    """A plugin of the test, or that of all tests with the marker `shared_plugin`."""
    if request.node.get_closest_marker("shared_plugin"):
        request.getfixturevalue("emptied")
        return request.getfixturevalue("shared_plugin")  # type: ignore[no-any-return]
    return make_plugin()


@pytest.fixture
def app(plugin: DatabasePlugin) -> FastAPI:
    """An app with one plugin and the exception handlers."""
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    return app


@pytest.fixture
def api(app: FastAPI, runner: asyncio.Runner) -> Api:
    return Api(app, runner)


@pytest.fixture(scope="module")
def shared_options() -> dict[str, Any]:
    """The options of `shared_plugin`; a module can override this fixture."""
    return {"tenant": tenant_from_header("X-Tenant-ID")}


@pytest.fixture(scope="module")
def shared_runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def shared_plugin(
    _database: Database, shared_options: dict[str, Any], shared_runner: asyncio.Runner
) -> Iterator[DatabasePlugin]:
    """A plugin for all tests of a module, whose connections and compiled statements need not be made for each test.

    It is the fixture `plugin` of tests with the marker `shared_plugin`, whose `runner` is its event loop. A test that
    serves an app in another event loop, or breaks connections, needs a plugin of its own.
    """
    plugin = DatabasePlugin(_database.url, **shared_options)
    yield plugin
    shared_runner.run(plugin.database.dispose_async())


@pytest.fixture(scope="module")
def shared_api(shared_plugin: DatabasePlugin, shared_runner: asyncio.Runner) -> Api:
    """An app like that of `app`, for all tests of a module: a fixture of the module adds the routers, once.

    Each test asks for `emptied`, too. One that adds routes or replaces dependencies takes `app`.
    """
    app = FastAPI(lifespan=shared_plugin.lifespan)
    register_exception_handlers(app)
    return Api(app, shared_runner)


@pytest.fixture
def emptied(shared_plugin: DatabasePlugin, shared_runner: asyncio.Runner, database: Database) -> Iterator[None]:
    """After the test, the tables are emptied, and neither a task nor a connection of the plugin is in use."""
    yield
    shared_runner.run(_tasks_ended())
    assert not checked_out(shared_plugin), "a connection was left checked out"


async def _tasks_ended() -> None:
    """Cancel all other tasks, as a runner does when it is closed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def threads_ended(runner: asyncio.Runner) -> Iterator[None]:
    """Wait after the block for the threads that it has started: those of aiosqlite's connections that did not open.

    They report their end to the event loop, which nobody awaits, so the loop must be open until then.
    """
    before = set(threading.enumerate())

    async def ended() -> None:
        async with asyncio.timeout(60):
            while any("_connection_worker" in each.name for each in {*threading.enumerate()} - before):  # noqa: ASYNC110 - threads
                await asyncio.sleep(0.01)

    yield
    runner.run(ended())


def checked_out(plugin: DatabasePlugin) -> int:
    """The number of connections in use in the plugin's pools."""
    engines = [plugin.database.__dict__.get("async_engine"), plugin.database.__dict__.get("engine")]
    return sum(engine.pool.checkedout() for engine in engines if engine is not None)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Run the app on a real server in its own thread; the block gets its URL."""
    # asyncio turns off Nagle's algorithm only for sockets with the protocol IPPROTO_TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="on", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
