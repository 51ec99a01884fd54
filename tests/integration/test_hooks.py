"""Whatever a user hangs on SQLAlchemy takes effect: no way that passes SQLAlchemy by is taken where one would miss it.

The oracle is SQLAlchemy itself: what an event, a method or a bind does when the same is done by hand with the ORM, it
does when a repository does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, text
from sqlalchemy.engine.events import ConnectionEvents, DialectEvents
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, Session, mapped_column, sessionmaker
from sqlalchemy.orm.events import AttributeEvents, InstanceEvents, MapperEvents, SessionEvents
from sqlalchemy.pool import Pool
from sqlalchemy.pool.events import PoolEvents

from dotmac_database import Database, create_database, direct, plainness
from dotmac_database.repositories import bulk
from tests.conftest import Face


class Hooked(DeclarativeBase):
    """A base of its own, so that listeners to it are nobody else's."""


class Item(Hooked):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    writer: Mapped[str] = mapped_column(server_default=text("CURRENT_USER"))


class Stored(DeclarativeBase):
    """The same table where there are no users."""


class StoredItem(Stored):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    writer: Mapped[str] = mapped_column(server_default="nobody")


DRIVERS = {
    "asyncpg": ("async", "postgresql"),
    "psycopg": ("sync", "postgresql+psycopg"),
    "psycopg-async": ("async", "postgresql+psycopg"),
    "sqlite3": ("sync", "sqlite"),
    "aiosqlite": ("async", "sqlite"),
}
POSTGRES = ["asyncpg", "psycopg", "psycopg-async"]


class Place(Face):
    """One driver's face of a database, and its session factories."""

    model: Any = Item

    def maker(self, **options: Any) -> Any:
        given = {"expire_on_commit": False, **options}
        if not self.is_async:
            return sessionmaker(self.engine, **given)
        return async_sessionmaker(self.database.async_engine, **given)

    @contextmanager
    def made(self, maker: Any) -> Iterator[Any]:
        session = maker()
        try:
            yield session
        finally:
            self(session.close)

    def start(self, database: Database | None = None) -> None:
        """Three rows, and nothing else."""
        with (database or self.database).engine.begin() as connection:
            connection.execute(text("DELETE FROM items"))
            rows = ({"i": number, "n": f"n{number}"} for number in (1, 2, 3))
            connection.execute(text("INSERT INTO items (id, name) VALUES (:i, :n)"), list(rows))


@pytest.fixture(scope="module")
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """A place for each driver that was asked for; they are made on demand."""

    class Places(dict[str, Place]):
        def __missing__(self, name: str) -> Place:
            kind, scheme = DRIVERS[name]
            if scheme == "sqlite":
                url = f"sqlite:///{tmp_path_factory.mktemp('hooks')}/{name}.db"
            else:
                url = request.getfixturevalue("postgres_url").replace("postgresql", scheme, 1)
            place = self[name] = Place(kind, create_database(url))
            place.model = StoredItem if scheme == "sqlite" else Item
            place.model.metadata.create_all(place.database.engine)
            return place

    made = Places()
    yield made
    for place in made.values():
        place.runner.run(place.database.dispose_async())
        place.runner.close()


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    place: Place = places[request.param]
    place.start()
    return place


@pytest.fixture(params=POSTGRES)
def server(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    place: Place = places[request.param]
    place.start()
    return place


@pytest.fixture
def passed_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went past SQLAlchemy: statements by the driver, COPY, statements without BEGIN."""
    ways: list[str] = []
    for module, name in ((direct, "_records"), (direct, "_records_within"), (bulk, "copy")):
        real = getattr(module, name)

        def spy(*args: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
            ways.append(_name)
            return _real(*args, **options)

        monkeypatch.setattr(module, name, spy)
    return ways


def many(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"n{number}"} for number in range(100, 100 + count)]


Operation = Callable[[Place, Any], Any]

OPERATIONS: dict[str, Operation] = {
    "get": lambda face, rows: face(rows.get_by_id, 1),
    "list": lambda face, rows: face(rows.list, {"filters": [{"field": "name", "operator": "ne", "value": "x"}]}),
    "page": lambda face, rows: face(rows.list_paginated, {"pagination": {"per_page": 2}}),
    "create": lambda face, rows: face(rows.create, {"id": 9, "name": "new"}),
    "update": lambda face, rows: face(rows.update, 1, {"name": "changed"}),
    "bulk_create": lambda face, rows: face(rows.bulk_create, many(40), returning=False),
    "copy": lambda face, rows: face(rows.bulk_create, many(600), returning=False),
}


def by_hand(session: Session, operation: str, model: Any) -> Any:
    """The same with the ORM alone."""
    match operation:
        case "get":
            return session.scalars(select(model).where(model.id == 1)).all()
        case "list" | "page":
            return session.scalars(select(model).where(model.name != "x").order_by(model.id).limit(2)).all()
        case "create":
            made = model(id=9, name="new")
            session.add(made)
            session.commit()
            return made
        case "update":
            found = session.scalars(select(model).where(model.id == 1)).one()
            found.name = "changed"
            session.commit()
            return found
    session.execute(insert(model), many(40))
    return session.commit()


EVENTS: list[tuple[Any, str]] = [
    (family, name)
    for family in (
        *(ConnectionEvents, DialectEvents, PoolEvents, SessionEvents, MapperEvents, InstanceEvents, AttributeEvents),
    )
    for name in family.dispatch._event_names  # type: ignore[attr-defined]  # made at run time
]
"""All that this version of SQLAlchemy can tell of, by introspection."""


def target_of(family: Any, place: Place, maker: Any) -> Any:
    if family in (ConnectionEvents, DialectEvents, PoolEvents):
        return place.engine
    if family is SessionEvents:
        return maker if not place.is_async else maker.kw["sync_session_class"]
    return {AttributeEvents: place.model.name}.get(family, place.model)


@contextmanager
def listening(target: Any, name: str, fired: list[str]) -> Iterator[None]:
    def listener(*args: Any, **kwargs: Any) -> None:
        fired.append(name)

    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def own_maker(place: Place) -> Any:
    """A factory of a session class of its own, which overrides nothing."""
    own = type("OwnSession", (Session,), {})
    return place.maker(sync_session_class=own) if place.is_async else place.maker(class_=own)


OF_THE_POOL = ("connect", "first_connect", "close", "detach", "do_connect", "engine_disposed")
OF_MAPPING = ("before_configured", "after_configured")
EXCUSED = {
    "rollback": "By hand a read's transaction is rolled back when its session is closed; here it is committed.",
    "do_executemany": "Many rows are one statement here, which sends do_execute.",
}


@pytest.mark.parametrize(("family", "name"), EVENTS, ids=[f"{family.__name__}-{name}" for family, name in EVENTS])
def test_an_event_is_sent_as_by_hand(place: Place, family: Any, name: str) -> None:
    if name in (*OF_THE_POOL, *OF_MAPPING):
        pytest.skip("No statement sends it.")
    missed: list[str] = []
    for operation, run in OPERATIONS.items():
        maker = own_maker(place)
        fired: dict[str, list[str]] = {"hand": [], "repository": []}
        for way, names in fired.items():
            place.start()
            with listening(target_of(family, place, maker), name, names), place.made(maker) as session:
                if way == "repository":
                    held = run(place, place.repository(session, place.model))
                elif place.is_async:
                    held = place(session.run_sync, by_hand, operation, place.model)
                else:
                    held = by_hand(session, operation, place.model)
            del held
        if fired["hand"] and not fired["repository"]:
            missed.append(operation)
    assert name in EXCUSED or missed == []
