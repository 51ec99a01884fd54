"""Each option of an engine does what it says, on a real server and through every driver."""

from __future__ import annotations

import asyncio
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import URL, make_url, text

from dotmac_database import (
    Database,
    DatabaseTimeoutError,
    DatabaseTransaction,
    DatabaseUnavailableError,
    create_database,
)
from dotmac_database_fastapi import DatabasePlugin

DRIVERS = ["psycopg", "psycopg/async", "asyncpg"]


class Driven:
    """One driver: asks databases through it, and closes them."""

    def __init__(self, driver: str) -> None:
        self.name, _, twin = driver.partition("/")
        self.is_async = bool(twin) or self.name == "asyncpg"
        self.runner = asyncio.Runner()
        self.opened: list[Database] = []

    def open(self, url: str, *, plugin: bool = False, **options: Any) -> Database:
        """A database of this driver, a plugin's if asked."""
        said = make_url(url).set(drivername=f"postgresql+{self.name}")
        database = DatabasePlugin(said, **options).database if plugin else create_database(said, **options)
        self.opened.append(database)
        return database

    def ask(self, database: Database, *statements: str) -> Any:
        """The last one's first value; all of them in one transaction, whose errors are the toolkit's."""
        if not self.is_async:
            with database.sessions() as session, DatabaseTransaction.sync_transaction(session):
                return [session.execute(text(statement)).scalar() for statement in statements][-1]

        async def run() -> Any:
            async with database.async_sessions() as session, DatabaseTransaction.async_transaction(session):
                return [(await session.execute(text(statement))).scalar() for statement in statements][-1]

        return self.runner.run(run())

    @contextmanager
    def held(self, database: Database, count: int) -> Iterator[None]:
        """So many connections of the pool are taken in this block."""
        if not self.is_async:
            taken: list[Any] = [database.engine.connect() for _ in range(count)]
            yield
            for connection in taken:
                connection.close()
            return

        async def take() -> list[Any]:
            return [await database.async_engine.connect() for _ in range(count)]

        taken = self.runner.run(take())
        yield
        for connection in taken:
            self.runner.run(connection.close())

    def close(self) -> None:
        for database in self.opened:
            self.runner.run(database.dispose_async())
        self.runner.close()


@pytest.fixture(params=DRIVERS)
def driven(request: pytest.FixtureRequest) -> Iterator[Driven]:
    made = Driven(request.param)
    yield made
    made.close()


@contextmanager
def within(least: float, most: float) -> Iterator[None]:
    """The block takes so many seconds."""
    started = time.perf_counter()
    yield
    assert least <= time.perf_counter() - started < most


@pytest.fixture(params=[False, True], ids=["create_database", "plugin"])
def plugin(request: pytest.FixtureRequest) -> bool:
    """Whether the options are given to a plugin."""
    return bool(request.param)


def test_a_full_pool_is_a_timeout_in_time(postgres_url: str, driven: Driven, plugin: bool) -> None:
    database = driven.open(postgres_url, plugin=plugin, pool_size=1, max_overflow=1, pool_timeout=0.3)
    with driven.held(database, 1):
        assert driven.ask(database, "SELECT 1") == 1
    with driven.held(database, 2):
        with within(0.25, 60), pytest.raises(DatabaseTimeoutError):
            driven.ask(database, "SELECT 1")
        pool: Any = database.async_engine.pool if driven.is_async else database.engine.pool
        assert (pool.size(), pool.overflow(), pool.checkedout()) == (1, 1, 2)
    assert driven.ask(database, "SELECT 1") == 1


def test_a_statement_that_takes_too_long_is_a_timeout(postgres_url: str, driven: Driven, plugin: bool) -> None:
    database = driven.open(postgres_url, plugin=plugin, statement_timeout=0.3)
    with within(0.25, 60), pytest.raises(DatabaseTimeoutError):
        driven.ask(database, "SELECT pg_sleep(120)")
    assert driven.ask(database, "SELECT 1", "SHOW statement_timeout") == "300ms"


def test_a_server_that_accepts_and_says_nothing_is_given_up(driven: Driven, plugin: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        # libpq's shortest wait is two seconds.
        database = driven.open(url, plugin=plugin, connect_timeout=1)
        with within(0.9, 60), pytest.raises((DatabaseTimeoutError, DatabaseUnavailableError)):
            driven.ask(database, "SELECT 1")


def test_a_connection_is_recycled(
    postgres_url: str, driven: Driven, plugin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = "SELECT pg_backend_pid()"
    young = driven.open(postgres_url, plugin=plugin, pool_size=1, pool_recycle=600)
    old = driven.open(postgres_url, plugin=plugin, pool_size=1)
    first, kept = driven.ask(young, backend), driven.ask(old, backend)
    assert driven.ask(young, backend) == first
    later = time.time() + 700
    monkeypatch.setattr("sqlalchemy.pool.base.time", SimpleNamespace(time=lambda: later))
    assert driven.ask(young, backend) != first
    assert driven.ask(old, backend) == kept


def test_the_application_has_a_name(postgres_url: str, driven: Driven, plugin: bool) -> None:
    database = driven.open(postgres_url, plugin=plugin, application_name="orders api")
    mine = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    assert driven.ask(database, mine) == "orders api"


def test_a_transaction_pooler_gets_no_statement_to_keep(postgres_url: str, driven: Driven, plugin: bool) -> None:
    kept = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 7%'"
    asked = ["SELECT 7 AS seven"] * 12
    plain = driven.open(postgres_url, plugin=plugin)
    pooled = driven.open(postgres_url, plugin=plugin, transaction_pooler=True)
    assert driven.ask(plain, *asked, kept) == 1
    assert driven.ask(pooled, *asked, kept) == 0


_ASKS_FOR_TLS = 80877103  # https://www.postgresql.org/docs/current/protocol-message-formats.html


class Tls:
    """What speaks TLS before a server that can't (the wheel's is built without); and certificates of a stranger's."""

    def __init__(self, folder: Path, upstream: URL) -> None:
        self.certificate, key = self._made(folder / "server")
        self.stranger, _ = self._made(folder / "stranger")
        self.encrypted: list[bool] = []
        self._upstream = upstream
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @staticmethod
    def _made(stem: Path) -> tuple[Path, Path]:
        certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
        command = ["openssl", "req", "-new", "-x509", "-nodes", "-days", "2", "-newkey", "rsa:2048"]
        names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*command, *names, *files], check=True, capture_output=True)
        return certificate, key

    def url(self, host: str = "127.0.0.1", **query: Any) -> str:
        made = self._upstream.set(host=host, port=self._listener.getsockname()[1])
        return made.update_query_dict(query).render_as_string(hide_password=False)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        target = self._upstream.host or "127.0.0.1", self._upstream.port or 5432
        with suppress(OSError), client, socket.create_connection(target) as server:
            first = client.recv(8, socket.MSG_WAITALL)
            asks = int.from_bytes(first[4:]) == _ASKS_FOR_TLS
            self.encrypted.append(asks)
            if not asks:
                server.sendall(first)
                _pump(client, server)
                return
            client.sendall(b"S")
            with self._context.wrap_socket(client, server_side=True) as encrypted:
                _pump(encrypted, server)


def _pump(client: socket.socket, server: socket.socket) -> None:
    """One thread for both directions: two may not use an encrypted socket at once."""
    while True:
        waiting = isinstance(client, ssl.SSLSocket) and client.pending()
        for source in [client] if waiting else select.select([client, server], [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            (server if source is client else client).sendall(data)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Tls]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = Tls(tmp_path_factory.mktemp("tls"), make_url(postgres_url))
    yield made
    made.close()


@pytest.mark.parametrize(("mode", "encrypted"), [("disable", False), ("prefer", True), ("require", True)])
def test_tls_as_asked_for(tls: Tls, driven: Driven, plugin: bool, mode: str, encrypted: bool) -> None:
    tls.encrypted.clear()
    assert driven.ask(driven.open(tls.url(), plugin=plugin, ssl=mode), "SELECT 1") == 1
    assert tls.encrypted == [encrypted]


@pytest.mark.parametrize(("mode", "encrypted"), [("disable", False), ("require", True)])
@pytest.mark.parametrize("name", ["ssl", "sslmode"])
def test_tls_as_the_url_says_in_spite_of_the_option(
    tls: Tls, driven: Driven, name: str, mode: str, encrypted: bool
) -> None:
    tls.encrypted.clear()
    other = "require" if mode == "disable" else "disable"
    assert driven.ask(driven.open(tls.url(**{name: mode}), ssl=other), "SELECT 1") == 1
    assert tls.encrypted == [encrypted]


def test_tls_with_a_server_that_is_known(tls: Tls, driven: Driven, plugin: bool) -> None:
    tls.encrypted.clear()
    database = driven.open(tls.url(sslrootcert=str(tls.certificate)), plugin=plugin, ssl="verify-full")
    assert driven.ask(database, "SELECT 1") == 1
    assert tls.encrypted == [True]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_tls_with_a_stranger_is_refused(tls: Tls, driven: Driven, mode: str) -> None:
    database = driven.open(tls.url(sslrootcert=str(tls.stranger)), ssl=mode)
    with pytest.raises(DatabaseUnavailableError):
        driven.ask(database, "SELECT 1")


def test_tls_for_another_name_is_refused(tls: Tls, driven: Driven) -> None:
    url = tls.url("localhost", sslrootcert=str(tls.certificate))
    with pytest.raises(DatabaseUnavailableError):
        driven.ask(driven.open(url, ssl="verify-full"), "SELECT 1")
    assert driven.ask(driven.open(url, ssl="verify-ca"), "SELECT 1") == 1


def test_a_server_without_tls_is_refused_where_tls_is_required(postgres_url: str, driven: Driven) -> None:
    with pytest.raises(DatabaseUnavailableError):
        driven.ask(driven.open(postgres_url, ssl="require"), "SELECT 1")
