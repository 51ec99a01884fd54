"""An update of a class with validators or listeners: the driver has the same effect as a flush.

A case says what a validator does while the object is changed. Each case runs on all drivers, outside of a transaction,
in a block and in a block without savepoints, by the driver and by SQLAlchemy; the outcomes must be equal.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import JSON, CheckConstraint, Engine, ForeignKey, String, create_engine, event, func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, object_session, relationship, validates
from sqlalchemy.orm.attributes import flag_modified

from dotmac_database import AuditMixin, DatabaseError, DuplicateEntityError, TenantMixin, create_repository
from dotmac_database.engines import sync_url
from tests.conftest import DRIVERS, Face, Faces
from tests.ways import WAYS, block, recorded, way_of


class Base(DeclarativeBase):
    """The tables of these tests."""


class Room(TenantMixin, Base):
    """What a guest can be moved to."""

    __tablename__ = "object_rooms"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(default="empty")


class Guest(TenantMixin, AuditMixin, Base):
    """A class whose validator does what its case says."""

    __tablename__ = "object_guests"
    __table_args__ = (CheckConstraint("age >= 0", name="age_is_not_negative"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    age: Mapped[int] = mapped_column(default=1)
    notes: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    version: Mapped[int] = mapped_column(default=1)
    room_id: Mapped[int | None] = mapped_column(ForeignKey("object_rooms.id"))
    room: Mapped[Room | None] = relationship()

    behaviour = staticmethod(lambda guest, value: value)
    """What the validator of ``name`` does with an object and a value. It returns the value to set."""

    @validates("name")
    def validate_name(self, _key: str, value: Any) -> Any:
        return type(self).behaviour(self, value)


class RefusalError(Exception):
    """What a validator raises."""


def strips(guest: Guest, value: Any) -> Any:
    return value.strip()


def changes_another_column(guest: Guest, value: Any) -> Any:
    guest.age += 10
    return value


def reads_the_object(guest: Guest, value: Any) -> Any:
    return f"{guest.name}+{value}"


def keeps_the_value(guest: Guest, value: Any) -> Any:
    guest.age = 1
    return guest.name


def raises(guest: Guest, value: Any) -> Any:
    guest.age = 99
    raise RefusalError


def adds_an_object(guest: Guest, value: Any) -> Any:
    session: Any = object_session(guest)
    session.add(Room(id=77, name="added", tenant_id="a"))
    return value


def raises_after_an_object(guest: Guest, value: Any) -> Any:
    adds_an_object(guest, value)
    return raises(guest, value)


def changes_the_relationship(guest: Guest, value: Any) -> Any:
    session: Any = object_session(guest)
    with session.no_autoflush:
        guest.room = next(each for each in session.identity_map.values() if isinstance(each, Room))
    return value


def changes_another_object(guest: Guest, value: Any) -> Any:
    session: Any = object_session(guest)
    room = next(each for each in session.identity_map.values() if isinstance(each, Room))
    room.name = f"of {value}"
    return value


def deletes_another_object(guest: Guest, value: Any) -> Any:
    session: Any = object_session(guest)
    session.delete(next(each for each in session.identity_map.values() if isinstance(each, Room)))
    return value


def changes_the_key(guest: Guest, value: Any) -> Any:
    guest.id = 500
    return value


def changes_the_tenant(guest: Guest, value: Any) -> Any:
    guest.tenant_id = "b"
    return value


def sets_an_expression(guest: Guest, value: Any) -> Any:
    guest.age = func.abs(-7)
    return value


def flags_a_value(guest: Guest, value: Any) -> Any:
    assert guest.notes is not None
    guest.notes["seen"] = True
    flag_modified(guest, "notes")
    return value


def writes_by_a_repository(guest: Guest, value: Any) -> Any:
    rooms = create_repository(cast("Session", object_session(guest)), Room, "a")
    rooms.create({"id": 88})
    rooms.update(88, {"name": "of the validator"})
    return value


def raises_after_a_repository(guest: Guest, value: Any) -> Any:
    writes_by_a_repository(guest, value)
    return raises(guest, value)


def catches_a_failure(guest: Guest, value: Any) -> Any:
    session: Any = object_session(guest)
    with suppress(DBAPIError), session.begin_nested():
        session.execute(INSERT_AGAIN)
    return value


def fails_in_sql(guest: Guest, value: Any) -> Any:
    session: Any = object_session(guest)
    session.execute(INSERT_AGAIN)
    return value


def sets_a_raw_savepoint(guest: Guest, value: Any) -> Any:
    session: Any = object_session(guest)
    with session.no_autoflush:
        session.execute(text("SAVEPOINT of_the_validator"))
        session.execute(text("INSERT INTO object_rooms (id, name, tenant_id) VALUES (66, 'raw', 'a')"))
    return value


INSERT_AGAIN = text("INSERT INTO object_rooms (id, name, tenant_id) VALUES (1, 'again', 'a')")


@dataclass(frozen=True)
class Case:
    """What the validator does, what is written, and whether the driver can write what the validator has changed."""

    behaviour: Callable[[Guest, Any], Any] = strips
    data: Any = None
    options: Any = None
    by_driver: bool = True


NAMED = {"name": " new "}
CASES: dict[str, Case] = {
    "the value": Case(strips, NAMED),
    "another column": Case(changes_another_column, NAMED),
    "reads the object": Case(reads_the_object, NAMED),
    "keeps the value": Case(keeps_the_value, NAMED),
    "the same value": Case(strips, {"name": "one"}),
    "nothing to write": Case(strips, {}, by_driver=False),
    "a JSON value": Case(strips, {"notes": {"a": [1, None]}}),
    "a JSON null": Case(strips, {"notes": None}),
    "flags a value": Case(flags_a_value, NAMED),
    "raises": Case(raises, NAMED, by_driver=False),
    "adds an object": Case(adds_an_object, NAMED, by_driver=False),
    "raises after an object": Case(raises_after_an_object, NAMED, by_driver=False),
    "changes the relationship": Case(changes_the_relationship, NAMED, by_driver=False),
    "changes another object": Case(changes_another_object, NAMED, by_driver=False),
    "deletes another object": Case(deletes_another_object, NAMED, by_driver=False),
    "writes by a repository": Case(writes_by_a_repository, NAMED),
    "a duplicate after a repository": Case(writes_by_a_repository, {"name": "two"}),
    "raises after a repository": Case(raises_after_a_repository, NAMED, by_driver=False),
    "catches a failure": Case(catches_a_failure, NAMED),
    "fails in SQL": Case(fails_in_sql, NAMED, by_driver=False),
    "a raw savepoint": Case(sets_a_raw_savepoint, NAMED),
    "a duplicate after a raw savepoint": Case(sets_a_raw_savepoint, {"name": "two"}),
    "changes the key": Case(changes_the_key, NAMED, by_driver=False),
    "changes the tenant": Case(changes_the_tenant, NAMED, by_driver=False),
    "sets an expression": Case(sets_an_expression, NAMED, by_driver=False),
    "an expression as data": Case(strips, {"age": func.abs(-5)}, by_driver=False),
    "a duplicate": Case(strips, {"name": "two"}),
    "a failed check": Case(strips, {"age": -1}),
    "a missing reference": Case(strips, {"room_id": 404}),
    "the expected version": Case(strips, NAMED, {"expected_version": 1}),
    "another version": Case(strips, NAMED, {"expected_version": 5}, by_driver=False),
    "no such row": Case(strips, NAMED, {"entity_id": 404}, by_driver=False),
    "another tenant's row": Case(strips, NAMED, {"entity_id": 9}, by_driver=False),
}
CIRCUMSTANCES: dict[str, dict[str, Any] | None] = {
    "outside": None,
    "in a block": {},
    "without savepoints": {"savepoints": False},
}


@pytest.fixture(params=DRIVERS)
def face(request: pytest.FixtureRequest, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> Iterator[Face]:
    face = faces[request.param]
    monkeypatch.setattr(Guest, "behaviour", staticmethod(lambda guest, value: value))
    yield face
    assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def engines(faces: Faces) -> Iterator[dict[str, Engine]]:
    """The engines by which the tables were created and are filled, by their URL."""
    engines: dict[str, Engine] = {}
    yield engines
    for engine in engines.values():
        engine.dispose()


@pytest.fixture
def fill(face: Face, engines: dict[str, Engine]) -> Callable[[], None]:
    """A function that leaves two rows of tenant a, one of tenant b, and a room."""
    url = sync_url(face.database.url)
    engine = engines.get(str(url))
    if engine is None:
        engine = engines[str(url)] = create_engine(url)
        Base.metadata.create_all(engine)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    common = {"age": 1, "notes": {}, "version": 1, "created_at": now, "updated_at": now}
    rows = [
        {"id": key, "name": name, "tenant_id": tenant, **common}
        for key, name, tenant in ((1, "one", "a"), (2, "two", "a"), (9, "nine", "b"))
    ]

    def refill() -> None:
        with engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
            connection.execute(
                Base.metadata.tables["object_rooms"].insert(), {"id": 1, "name": "empty", "tenant_id": "a"}
            )
            connection.execute(Base.metadata.tables["object_guests"].insert(), rows)

    refill()
    return refill


def state_of(entity: Any) -> dict[str, Any]:
    """The loaded values of an object's columns, without the times of its changes."""
    columns = {column.key for column in type(entity).__table__.columns if not column.key.endswith("_at")}
    return {key: value for key, value in vars(entity).items() if key in columns}


def outcome_of(face: Face, case: Case, options: dict[str, Any] | None) -> dict[str, Any]:
    """What a case returns or raises, the objects of the session after it, and what is committed at the end."""
    found: dict[str, Any] = {}
    arguments = {"entity_id": 1, "data": case.data, **(case.options or {})}
    with face.session() as session:
        guests, rooms = face.repository(session, Guest, "a"), face.repository(session, Room, "a")
        with nullcontext() if options is None else block(face, session, **options):
            held, room = face(guests.get_by_id, 1), face(rooms.get_by_id, 1)
            if options is not None:
                face(guests.create, {"id": 3, "name": "three"})
            Guest.behaviour = staticmethod(case.behaviour)  # type: ignore[method-assign]
            try:
                changed = face(guests.update, **arguments)
                found["same object"] = changed is held
                found["changed"] = state_of(changed)
            except (DatabaseError, RefusalError) as error:
                found["error"] = type(error), str(error)
            except DBAPIError as error:
                found["error"] = type(error), type(error.orig)
            finally:
                Guest.behaviour = staticmethod(lambda guest, value: value)  # type: ignore[method-assign]
            if "error" in found and options == {"savepoints": False}:
                face(session.rollback)  # nothing else is possible
            else:
                inner = session.sync_session if face.is_async else session
                found["pending"] = [len(inner.new), len(inner.dirty), len(inner.deleted)]
                found["held"], found["room"] = state_of(held), state_of(room)
                assert found["held"], "it was expired"
                if options != {"savepoints": False}:
                    with pytest.raises(DuplicateEntityError):
                        face(guests.create, {"id": 5, "name": "two"})
                face(guests.create, {"id": 4, "name": "four"})
    with face.session() as session:
        rows = [
            *face(face.repository(session, Guest, "a").list),
            *face(face.repository(session, Guest, "b").list),
            *face(face.repository(session, Room, "a").list),
        ]
        found["rows"] = [state_of(each) for each in rows]
    return found


@pytest.mark.fast_way("driver")
@pytest.mark.parametrize("circumstance", CIRCUMSTANCES)
@pytest.mark.parametrize("name", CASES)
def test_an_update_of_an_object_is_the_same_either_way(
    face: Face, fill: Callable[[], None], name: str, circumstance: str
) -> None:
    case, options = CASES[name], CIRCUMSTANCES[circumstance]
    outcomes, updates = {}, {}
    for way in WAYS:
        fill()
        with way_of(face.engine, way) as sent:
            outcomes[way] = outcome_of(face, case, options)
        updates[way] = [each.sql for each in sent if each.sql.startswith("UPDATE object_guests")]
    assert outcomes["driver"] == outcomes["sqlalchemy"]
    assert bool(updates["driver"]) == case.by_driver


@pytest.mark.usefixtures("fill")
def test_a_listener_to_updates_gets_a_flush(face: Face) -> None:
    seen: list[str] = []

    def listener(_mapper: Any, _connection: Any, guest: Guest) -> None:
        seen.append(guest.name)

    event.listen(Guest, "before_update", listener)
    try:
        with recorded() as sent, face.session() as session:
            face(face.repository(session, Guest, "a").update, 1, {"name": "new"})
    finally:
        event.remove(Guest, "before_update", listener)
    assert seen == ["new"]
    assert not any(each.sql.startswith("UPDATE") for each in sent)


@pytest.mark.usefixtures("fill")
def test_a_listener_to_flushes_gets_a_flush(face: Face) -> None:
    seen: list[str] = []
    with recorded() as sent, face.session() as session:
        inner = session.sync_session if face.is_async else session
        event.listen(inner, "before_flush", lambda session, *_: seen.extend(each.name for each in session.dirty))
        face(face.repository(session, Guest, "a").update, 1, {"name": "new"})
    assert seen == ["new"]
    assert not any(each.sql.startswith("UPDATE") for each in sent)


@pytest.mark.fast_way("driver")
@pytest.mark.usefixtures("fill")
def test_the_row_is_locked_before_the_validator_sees_it(face: Face) -> None:
    if "sqlite" in face.engine.url.drivername:
        pytest.skip("SQLite locks the whole database")
    with recorded() as sent, face.session() as session:
        face(face.repository(session, Guest, "a").update, 1, {"name": "new"})
    assert [each.sql.split()[0] for each in sent] == ["SELECT", "UPDATE"]
    assert "FOR UPDATE" in sent[0].sql
    assert all(each.is_within for each in sent)
