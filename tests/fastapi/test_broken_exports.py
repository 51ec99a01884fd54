"""Exports that fail, or whose client goes away, on a real server and with raw HTTP."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, field_validator
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from dotmac_database import AsyncTenantRepository, Database
from dotmac_database_fastapi import DatabasePlugin
from tests.fastapi.conftest import checked_out, serving
from tests.fastapi.exporting import Account, Base
from tests.fastapi.shared_routers import list_router

ACCEPTS = ["text/csv", "application/x-ndjson"]


async def passing(request: Any, call_next: Any) -> Any:
    return await call_next(request)


_HTTP: dict[str, Any] = {"middleware_class": BaseHTTPMiddleware, "dispatch": passing}
_GZIP: dict[str, Any] = {"middleware_class": GZipMiddleware}
MIDDLEWARES: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "http": [_HTTP],
    "http twice": [_HTTP, _HTTP],
    "gzip in http": [_GZIP, _HTTP],
    "http in gzip": [_HTTP, _GZIP],
}
"""The middlewares around the app, of which each handles the parts of a body in its own way."""

SURROUNDED = [("none", ACCEPTS[0]), *((name, ACCEPTS[1]) for name in MIDDLEWARES)]
END = b"\r\n0\r\n\r\n"
"""The last chunk of a complete body, after another one."""

ROWS = 3000


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def rows(database: Database) -> None:
    """More rows of the tenant a than are read at once."""
    data = [{"id": number, "tenant_id": "a", "name": f"name {number}", "balance": 1} for number in range(ROWS)]
    with database.engine.begin() as connection:
        connection.execute(sa.insert(Account), data)


@contextmanager
def requested(url: str, path: str, accept: str, version: str = "1.1", coding: str = "") -> Iterator[socket.socket]:
    """A connection on which a request was sent."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        lines = [f"GET {path} HTTP/{version}", f"Host: {host}", f"Accept: {accept}", "X-Tenant-ID: a"]
        lines += [f"Accept-Encoding: {coding}"] if coding else []
        client.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        yield client


def answer(url: str, path: str, accept: str, version: str = "1.1", coding: str = "") -> bytes:
    """All bytes of a response, until the server closes the connection."""
    with requested(url, path, accept, version, coding) as client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def is_whole(raw: bytes) -> bool:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    return body.endswith(END)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_whole_export_ends_with_the_last_chunk(app: FastAPI, accept: str) -> None:
    app.include_router(list_router(Account, "/accounts"))
    with serving(app) as url:
        raw = answer(url, "/accounts", accept)
        assert raw.startswith(b"HTTP/1.1 200")
        assert is_whole(raw)
        assert raw.count(b"name ") == ROWS


class Picky(BaseModel):
    """A schema that some rows violate."""

    model_config = ConfigDict(from_attributes=True)

    id: int

    @field_validator("id")
    @classmethod
    def small(cls, value: int) -> int:
        if value in (0, 2345):
            raise ValueError("an unlucky number")
        return value


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("middleware", "accept"), SURROUNDED)
def test_a_row_that_violates_the_schema_breaks_the_stream(
    app: FastAPI, accept: str, middleware: str, caplog: pytest.LogCaptureFixture
) -> None:
    for each in MIDDLEWARES[middleware]:
        app.add_middleware(**each)
    app.include_router(list_router(Account, "/accounts", read_schema=Picky, filters=["id"], sorts=["id"]))
    with serving(app) as url:
        if "gzip" in middleware:
            broken = answer(url, "/accounts?id__gte=1", accept, coding="gzip")
            assert b"content-encoding: gzip" in broken
            assert not is_whole(broken)
            assert is_whole(answer(url, "/accounts?id__gte=2346", accept, coding="gzip"))
        caplog.clear()
        broken = answer(url, "/accounts?id__gte=1", accept)
        assert ("an unlucky number" in caplog.text) is ("http" in middleware)  # else the server logs it
        assert broken.startswith(b"HTTP/1.1 200")
        assert not is_whole(broken)
        assert b"2000" in broken
        assert b"2345" not in broken
        assert answer(url, "/accounts", accept).startswith(b"HTTP/1.1 500")  # the first row
        assert is_whole(answer(url, "/accounts?id__gte=2346", accept))


class Killing(AsyncTenantRepository[Account]):
    """A repository whose statements end the database's own process when they come to a certain row."""

    def conditions(self) -> Sequence[sa.ColumnElement[bool]]:
        return (sa.func.dotmac_survives(Account.id),)


# It is so expensive that it is called for the rows of the statement alone, in their order, by the index.
KILLER = """
CREATE OR REPLACE FUNCTION dotmac_survives(row_id int) RETURNS bool LANGUAGE plpgsql COST 1000000 AS $$
BEGIN
    IF row_id = 1500 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); END IF;
    RETURN true;
END $$
"""


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_database_that_is_killed_breaks_the_stream(
    app: FastAPI, plugin: DatabasePlugin, database: Database, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    if database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no process of its own")
    with database.engine.begin() as connection:
        connection.exec_driver_sql(KILLER)
        connection.exec_driver_sql("ANALYZE exported_accounts")
    app.include_router(list_router(Account, "/accounts", repository=Killing, filters=["id"], sorts=["id"]))
    with serving(app) as url, caplog.at_level(logging.CRITICAL):
        broken = answer(url, "/accounts", accept)
        assert broken.startswith(b"HTTP/1.1 200")
        assert not is_whole(broken)
        assert b"name 999" in broken
        assert b"name 1500" not in broken
        first = answer(url, "/accounts?id__gte=1500", accept)
        assert first.startswith(b"HTTP/1.1 503")
        assert b"application/problem+json" in first
        assert is_whole(answer(url, "/accounts?id__gte=1501", accept))
        assert checked_out(plugin) == 0


class Watched(AsyncTenantRepository[Account]):
    """A stream that has no end, and says how far it is."""

    started = threading.Event()
    ended = threading.Event()

    async def stream(self, options: Any = None, batch_size: int = 1000) -> AsyncIterator[Account]:
        self.started.set()
        try:
            while True:
                async for row in super().stream(options, batch_size):
                    row.name = "x" * 1000
                    yield row
        finally:
            self.ended.set()


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("middleware", "accept"), [("none", ACCEPTS[0]), ("http twice", ACCEPTS[1])])
def test_a_client_that_goes_away_ends_the_stream(
    app: FastAPI, plugin: DatabasePlugin, accept: str, middleware: str
) -> None:
    for each in MIDDLEWARES[middleware]:
        app.add_middleware(**each)
    app.include_router(list_router(Account, "/accounts", repository=Watched))
    Watched.started.clear()
    Watched.ended.clear()
    with serving(app) as url:
        with requested(url, "/accounts", accept) as client:
            assert client.recv(1000)
            assert Watched.started.wait(60)
            assert not Watched.ended.is_set()
        assert Watched.ended.wait(60)
    assert checked_out(plugin) == 0


class Reading(AsyncTenantRepository[Account]):
    """A stream that tells between its statements how many connections are in use."""

    plugin: DatabasePlugin
    in_use: list[int] = []  # noqa: RUF012 - a note of the test

    async def stream(self, options: Any = None, batch_size: int = 1000) -> AsyncIterator[Account]:
        async for row in super().stream(options, batch_size):
            if row.id % 500 == 499:
                self.in_use.append(checked_out(self.plugin))
            yield row


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("accept", ACCEPTS[:1])
def test_no_connection_is_in_use_while_rows_are_sent(app: FastAPI, plugin: DatabasePlugin, accept: str) -> None:
    """So a client that reads slowly costs no connection, and the request's own session has ended."""
    app.include_router(list_router(Account, "/accounts", repository=Reading))
    Reading.plugin = plugin
    Reading.in_use.clear()
    with serving(app) as url:
        assert is_whole(answer(url, "/accounts", accept))
    assert Reading.in_use == [0] * (ROWS // 500)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("accept", ACCEPTS[:1])
def test_old_http_has_no_exports(app: FastAPI, accept: str) -> None:
    """Without chunks, the end of the connection would be the end of the file, also of a broken one."""
    app.include_router(list_router(Account, "/accounts"))
    with serving(app) as url:
        refused = answer(url, "/accounts", accept, "1.0")
        assert refused.startswith(b"HTTP/1.1 426")
        assert b"upgrade: HTTP/1.1" in refused
        assert answer(url, "/accounts", "*/*", "1.0").startswith(b"HTTP/1.1 200")
