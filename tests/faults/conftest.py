"""Faults on the network and on the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database.transactions import TransactionManager, idempotency_metadata
from tests.postgres import OwnServer

metadata = MetaData()
ROWS = Table("fault_rows", metadata, Column("id", Integer, primary_key=True), Column("name", String(40)))


class Wire:
    """A proxy in front of PostgreSQL, which can cut a connection after the server has answered a COMMIT."""

    def __init__(self, upstream: URL, directory: Path) -> None:
        self._upstream = upstream
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen()
        self.directory = directory
        self.lose_commits = 0
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, driver: str) -> URL:
        return URL.create(
            f"postgresql+{driver}",
            username=self._upstream.username,
            database=self._upstream.database,
            query={"host": str(self.directory)},
        )

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                state = {"committing": False}
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=pump, args=(client, server, state), daemon=True).start()

    def _connect(self) -> socket.socket:
        host = self._upstream.query.get("host")
        if host:
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{self._upstream.port or 5432}")
            return server
        return socket.create_connection((self._upstream.host or "127.0.0.1", self._upstream.port or 5432))

    def _to_server(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with hanging_up(client, server):
            while data := client.recv(65536):
                state["committing"] = self.lose_commits > 0 and b"COMMIT" in data
                server.sendall(data)

    def _to_client(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with hanging_up(client, server):
            while data := server.recv(65536):
                if state["committing"]:
                    self.lose_commits -= 1
                    self.lost += 1
                    return
                client.sendall(data)


@contextlib.contextmanager
def hanging_up(*sockets: socket.socket) -> Iterator[None]:
    """Shut down the sockets at the end. To close them would not wake up the thread of the other direction."""
    with contextlib.suppress(OSError):
        yield
    for end in sockets:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Face:
    """The same steps through a sync or an async driver."""

    def __init__(self, driver: str, is_async: bool, url: URL) -> None:
        self.driver = driver
        self.runner = asyncio.Runner() if is_async else None
        options: dict[str, Any] = {"pool_size": 3, "max_overflow": 0, "pool_timeout": 60}
        if is_async:
            self.engine: Any = create_async_engine(url, **options)
            self.maker: Any = async_sessionmaker(self.engine)
        else:
            self.engine = create_engine(url, **options)
            self.maker = sessionmaker(self.engine)

    def retrying(self, manager: TransactionManager, operation: Callable[[Session], Any], **options: Any) -> Any:
        if self.runner is None:
            return manager.execute_with_retry(operation, **options)

        async def async_operation(session: Any) -> Any:
            return await session.run_sync(operation)

        return self.runner.run(manager.async_execute_with_retry(async_operation, **options))

    def close(self) -> None:
        if self.runner is None:
            self.engine.dispose()
        else:
            self.runner.run(self.engine.dispose())
            self.runner.close()


@pytest.fixture
def database(postgres_url: str) -> URL:
    """The URL of a PostgreSQL database with new tables."""
    url = make_url(postgres_url).set(drivername="postgresql+psycopg")
    reset(url)
    return url


def reset(url: URL) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for tables in (metadata, idempotency_metadata):
            tables.drop_all(connection)
            tables.create_all(connection)
    engine.dispose()


@pytest.fixture
def ask(database: URL) -> Iterator[Callable[[str], Any]]:
    """A function that runs a statement on its own connection and returns the rows, or None."""
    engine = create_engine(database, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> Any:
        with engine.connect() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else None

    yield run
    engine.dispose()


@pytest.fixture
def wire(database: URL) -> Iterator[Wire]:
    # A short folder, because the path of a Unix socket is limited to about 100 characters.
    with tempfile.TemporaryDirectory(prefix="wire", dir="/tmp") as directory:
        wire = Wire(database, Path(directory))
        yield wire
        wire.close()


@pytest.fixture(params=[("psycopg", False), ("psycopg", True), ("asyncpg", True)], ids=["sync", "psycopg", "asyncpg"])
def face(request: pytest.FixtureRequest, wire: Wire) -> Iterator[Face]:
    """A driver that connects through the proxy."""
    driver, is_async = request.param
    face = Face(driver, is_async, wire.url(driver))
    yield face
    checked_out = face.engine.pool.checkedout()
    face.close()
    assert checked_out == 0


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnServer]:
    """A server with the tables, which a test can freeze and kill."""
    server = OwnServer(durable=True).start()
    reset(make_url(server.url("psycopg")))
    yield server
    server.stop()
