"""What a client of a real server sees, and when."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.routing import APIRoute
from sqlalchemy import Engine, ForeignKey, MetaData, String, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import Database, DuplicateEntityError, TenantMixin
from dotmac_database_fastapi import (
    DatabasePlugin,
    get_repository,
    get_sync_repository,
    register_exception_handlers,
    rerun_route,
    tenant_from_header,
)
from tests.fastapi.conftest import checked_out, serving

TENANT = {"X-Tenant-ID": "a"}

SERVER_WAITS = 30
"""How many seconds a request waits at most for a connection of the pool, and then again for SQLite's lock."""

CLIENT_WAITS = 3 * SERVER_WAITS
"""A client that waited no longer than the server would report its own timeout instead of the server's response."""

post = partial(httpx.post, headers=TENANT, timeout=CLIENT_WAITS)
"""POST for the tenant."""


class Base(DeclarativeBase):
    """The tables of these tests alone."""


class Note(TenantMixin, Base):
    __tablename__ = "wire_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(50))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("wire_notes.id", deferrable=True, initially="DEFERRED"))


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def plugin(database: Database) -> DatabasePlugin:
    return DatabasePlugin(
        database.url,
        tenant=tenant_from_header("X-Tenant-ID"),
        pool_size=5,
        max_overflow=0,
        pool_timeout=SERVER_WAITS,
        busy_timeout=SERVER_WAITS,
    )


@pytest.fixture
def app(plugin: DatabasePlugin) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)

    @app.post("/notes", status_code=201)
    async def create(
        text: str, parent: int | None = None, notes: Any = Depends(get_repository(Note))
    ) -> dict[str, int]:
        note = await notes.create({"text": text, "parent_id": parent})
        return {"id": note.id}

    @app.post("/sync/notes", status_code=201)
    def create_sync(
        text: str, parent: int | None = None, notes: Any = Depends(get_sync_repository(Note))
    ) -> dict[str, int]:
        note = notes.create({"text": text, "parent_id": parent})
        return {"id": note.id}

    return app


@pytest.fixture
def url(app: FastAPI, plugin: DatabasePlugin) -> Iterator[str]:
    with serving(app) as url:
        yield url
        assert checked_out(plugin) == 0


def post_and_look(connection: socket.socket, path: str, look: Any) -> bytes:
    """Send a POST, and call ``look`` the moment that the status line is there."""
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: t\r\nX-Tenant-ID: a\r\nContent-Length: 0\r\n\r\n".encode())
    received = b""
    while b"\r\n" not in received:
        received += connection.recv(1)
    status = received.split(b" ")[1]
    look()
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return status


@pytest.mark.parametrize(("path", "requests"), [("/notes", 1000), ("/sync/notes", 200)])
def test_at_the_status_line_the_row_is_visible_to_others(
    url: str, database: Database, path: str, requests: int
) -> None:
    host, port = url.removeprefix("http://").split(":")
    seen: list[int] = []
    with socket.create_connection((host, int(port))) as wire, database.engine.connect() as other:
        other = other.execution_options(isolation_level="AUTOCOMMIT")
        for number in range(requests):
            name = f"n{number}"

            def look(name: str = name) -> None:
                found = other.execute(text("SELECT count(*) FROM wire_notes WHERE text = :name"), {"name": name})
                seen.append(found.scalar_one())

            assert post_and_look(wire, f"{path}?text={name}", look) == b"201"
    assert seen == [1] * requests


@pytest.mark.parametrize("path", ["/notes", "/sync/notes"])
def test_a_commit_that_fails_is_never_a_success(url: str, database: Database, path: str) -> None:
    answer = post(f"{url}{path}?text=orphan&parent=999")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM wire_notes")).scalar_one() == 0
    assert post(f"{url}{path}?text=next").status_code == 201


async def swallowing() -> AsyncIterable[None]:
    with suppress(Exception):
        yield


def swallowing_in_a_thread() -> Iterator[None]:
    with suppress(Exception):
        yield


async def converting() -> AsyncIterable[None]:
    try:
        yield
    except Exception as error:
        raise HTTPException(418) from error


def failing_after(_notes: Any = Depends(get_repository(Note))) -> Iterator[None]:
    yield
    raise DuplicateEntityError("found out at the end")


@pytest.mark.parametrize("route_class", [APIRoute, rerun_route(methods=["POST"])], ids=["once", "rerun"])
@pytest.mark.parametrize("repository", [get_repository(Note), get_sync_repository(Note)], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("around", "status"), [(swallowing, 409), (swallowing_in_a_thread, 409), (converting, 418)], ids=lambda each: ""
)
def test_no_dependency_makes_a_success_of_a_failed_commit(
    app: FastAPI, database: Database, around: Any, status: int, repository: Any, route_class: type[APIRoute]
) -> None:
    """One that is asked for before the repository ends after it; for FastAPI there is a response by then."""
    router = APIRouter(route_class=route_class)

    @router.post("/swallowed", status_code=201, dependencies=[Depends(around, scope="function")])
    async def create(notes: Any = Depends(repository)) -> dict[str, str]:
        made = notes.create({"text": "orphan", "parent_id": 999})
        if inspect.isawaitable(made):
            await made
        return {"made": "it"}

    @router.post("/found-out", status_code=201, dependencies=[Depends(around, scope="function")])
    async def found_out(
        notes: Any = Depends(get_repository(Note)), _: Any = Depends(failing_after, scope="function")
    ) -> dict[str, str]:
        await notes.create({"text": "rolled back"})
        return {"made": "it"}

    app.include_router(router)
    with serving(app) as url:
        for path in ("swallowed", "found-out"):
            answer = post(f"{url}/{path}")
            assert answer.status_code == status, path
        assert post(f"{url}/notes?text=next").status_code == 201
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT text FROM wire_notes")).scalars().all() == ["next"]


@contextmanager
def commits_failing(engine: Engine) -> Iterator[None]:
    """COMMIT raises what the driver raises when the connection is gone."""

    def fail(connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.invalidate()
            raise ConnectionResetError("the connection is gone")

    event.listen(engine, "commit", fail)
    try:
        yield
    finally:
        event.remove(engine, "commit", fail)


def test_a_lost_commit_is_a_server_error(app: FastAPI, plugin: DatabasePlugin) -> None:
    with serving(app) as url:
        with commits_failing(plugin.database.async_engine.sync_engine):
            answer = post(f"{url}/notes?text=lost")
        assert answer.status_code >= 500
        assert post(f"{url}/notes?text=kept").status_code == 201


def test_300_concurrent_requests_share_a_pool_of_5(
    app: FastAPI, plugin: DatabasePlugin, database: Database, dialect: str
) -> None:
    async def burst(url: str) -> list[int]:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=url, timeout=CLIENT_WAITS, headers=TENANT, limits=limits) as client:
            paths = [f"{'/sync' if number % 2 else ''}/notes?text=t{number}" for number in range(300)]
            return [answer.status_code for answer in await asyncio.gather(*(client.post(path) for path in paths))]

    with serving(app) as url:
        statuses = asyncio.run(burst(url))
        assert checked_out(plugin) == 0
    # SQLite has one writer at a time, and tells the rest to come again: a 503 that wrote nothing.
    written = statuses.count(201)
    assert written == 300 if dialect == "postgresql" else set(statuses) <= {201, 503}
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM wire_notes")).scalar_one() == written


def test_clients_that_leave_keep_no_connection(app: FastAPI, plugin: DatabasePlugin) -> None:
    entered, left = threading.Event(), threading.Semaphore(0)

    @app.post("/slow")
    async def slow(notes: Any = Depends(get_repository(Note))) -> None:
        try:
            await notes.create({"text": "slow"})
            entered.set()
            await asyncio.sleep(0.2)
        finally:
            left.release()

    with serving(app) as url:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(8):
            entered.clear()
            with socket.create_connection((host, int(port))) as wire:
                wire.sendall(b"POST /slow HTTP/1.1\r\nHost: t\r\nX-Tenant-ID: a\r\nContent-Length: 0\r\n\r\n")
                assert entered.wait(CLIENT_WAITS)
        for _ in range(8):
            assert left.acquire(timeout=CLIENT_WAITS)
        deadline = time.monotonic() + CLIENT_WAITS
        while checked_out(plugin) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert checked_out(plugin) == 0
        assert post(f"{url}/notes?text=next").status_code == 201


def test_clients_that_leave_a_stream_keep_no_connection(app: FastAPI, plugin: DatabasePlugin) -> None:
    @app.get("/stream")
    async def stream(notes: Any = Depends(get_repository(Note))) -> AsyncIterable[dict[str, int]]:
        while True:
            await notes.create({"text": "line"})
            yield {"count": await notes.count()}
            await asyncio.sleep(0.01)

    with serving(app) as url:
        for _ in range(5):
            with httpx.stream("GET", f"{url}/stream", headers=TENANT, timeout=CLIENT_WAITS) as lines:
                assert next(lines.iter_lines()).startswith('{"count":')
        deadline = time.monotonic() + CLIENT_WAITS
        while checked_out(plugin) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert checked_out(plugin) == 0
        assert post(f"{url}/notes?text=next").status_code == 201


def test_the_app_starts_without_its_database(dialect: str) -> None:
    nowhere = "sqlite:////nowhere/at/all.db" if dialect == "sqlite" else "postgresql://nobody@127.0.0.1:1/none"
    plugin = DatabasePlugin(nowhere, tenant=tenant_from_header("X-Tenant-ID"))
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)

    @app.get("/")
    async def endpoint(notes: Any = Depends(get_repository(Note))) -> int:
        return len(await notes.list())

    with serving(app) as url:
        assert httpx.get(f"{url}/docs", timeout=CLIENT_WAITS).status_code == 200
        answer = httpx.get(url, headers=TENANT, timeout=CLIENT_WAITS)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
