"""Databases with an outbox, whose messages are published by each driver, and relayed by the async ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, delete, make_url, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dotmac_database import Database, OutboxRelay, RetryPolicy, create_database, guard_tenants
from dotmac_database.outbox import publishing
from tests.conftest import DRIVERS, Face

from .models import OUTBOX, RLS, ROLE, Base, Order

AT_ONCE = RetryPolicy(base_delay=0.0)
KINDS = ("plain", "guarded", "rls")
PLACES = [
    f"{driver}-{kind}" for driver in DRIVERS for kind in KINDS if kind != "rls" or "sqlite" not in DRIVERS[driver][1]
]


class Place:
    """One driver's sessions of one kind, on a database that the driver's kinds share."""

    def __init__(self, face: Face, kind: str, admin: Database) -> None:
        self.face = face
        self.kind = kind
        self.admin = admin
        maker: Any = async_sessionmaker(self.engine) if face.is_async else sessionmaker(self.engine)
        self.maker = maker if kind == "plain" else guard_tenants(maker, rls=RLS if kind == "rls" else None)

    @property
    def database(self) -> Database:
        return self.face.database

    @property
    def engine(self) -> Any:
        return self.database.async_engine if self.face.is_async else self.database.engine

    @contextmanager
    def session(self) -> Iterator[Any]:
        session = self.maker()
        try:
            yield session
        finally:
            self.face(session.close)

    def rows(self) -> list[Any]:
        """The payloads of the committed messages, in order."""
        with self.admin.engine.connect() as connection:
            return list(connection.scalars(select(OUTBOX.c.payload).order_by(OUTBOX.c.position)))

    def columns(self, *names: str) -> list[tuple[Any, ...]]:
        with self.admin.engine.connect() as connection:
            columns = [OUTBOX.c[name] for name in names]
            return [tuple(row) for row in connection.execute(select(*columns).order_by(OUTBOX.c.position))]

    def orders(self) -> list[int]:
        with self.admin.engine.connect() as connection:
            return list(connection.scalars(select(Order.number).order_by(Order.id)))

    def empty(self) -> None:
        with self.admin.engine.begin() as connection:
            for table in (OUTBOX, Order.__table__):
                connection.execute(delete(table))


@pytest.fixture(autouse=True)
def notified_again() -> None:
    """No test depends on the notification of an earlier one."""
    publishing._NOTIFIED.clear()


@pytest.fixture(scope="module")
def outbox_url(postgres_url: str) -> URL:
    """A PostgreSQL database with the tables, policies and a role that may only insert messages."""
    admin = create_database(postgres_url)
    Base.metadata.create_all(admin.engine)
    with admin.engine.begin() as connection:
        RLS.apply(connection)
    admin.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as plain:
        if plain.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
            plain.execute(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOBYPASSRLS")
        plain.execute(f"GRANT INSERT ON dotmac_outbox TO {ROLE}")
        plain.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON outbox_orders TO {ROLE}")
        plain.execute(f"GRANT USAGE ON SEQUENCE outbox_orders_id_seq TO {ROLE}")
    return make_url(postgres_url)


class Places(dict[str, Place]):
    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        super().__init__()
        self._request = request
        self._folder = folder

    def __missing__(self, name: str) -> Place:
        driver, _, kind = name.rpartition("-")
        face, scheme = DRIVERS[driver]
        if scheme == "sqlite":
            path = self._folder / f"{driver}.db"
            new = not path.exists()
            url: Any = f"sqlite:///{path}"
            admin = create_database(url)
            if new:
                Base.metadata.create_all(admin.engine)
        else:
            server = self._request.getfixturevalue("outbox_url")
            admin = create_database(server)
            url = server.set(drivername=scheme, **({"username": ROLE} if kind == "rls" else {}))
        place = self[name] = Place(Face(face, create_database(url)), kind, admin)
        return place

    def close(self) -> None:
        for place in self.values():
            place.face.runner.run(place.database.dispose_async())
            place.face.runner.close()
            place.admin.dispose()


@pytest.fixture(scope="module")
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    places = Places(request, tmp_path_factory.mktemp("outbox"))
    yield places
    places.close()


@pytest.fixture
def emptied(places: Places) -> Iterator[None]:
    """The tables are empty again after a test that takes its places by name, also if it fails."""
    yield
    for place in places.values():
        place.empty()


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, places: Places) -> Iterator[Place]:
    place = places[request.param]
    yield place
    place.empty()


@pytest.fixture(params=["asyncpg", "psycopg-async", "aiosqlite"])
def home(request: pytest.FixtureRequest, places: Places) -> Iterator[Place]:
    """The databases from which messages are relayed."""
    home = places[f"{request.param}-plain"]
    yield home
    home.empty()


class Inbox:
    """A ``deliver`` that notes the messages, and fails as often as ``failing`` says for a payload."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.failing: dict[Any, int] = {}
        self.arrived = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        self.messages.append(message)
        self.arrived.set()
        if self.failing and self.failing.get(message.payload, 0):
            self.failing[message.payload] -= 1
            raise ConnectionError("refused")

    @property
    def payloads(self) -> list[Any]:
        return [message.payload for message in self.messages]

    async def until(self, count: int) -> None:
        """Wait until so many messages have arrived."""
        async with asyncio.timeout(90):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()


def relay_of(home: Place, deliver: Any, **options: Any) -> OutboxRelay:
    return OutboxRelay(home.database, deliver, **{"policy": AT_ONCE, "poll": 0.05, **options})
