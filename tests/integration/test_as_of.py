"""A repository of `as_of` reads the rows as they were at a moment, by whatever way they were written since."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from sqlalchemy import JSON, ForeignKey, LargeBinary, MetaData, Numeric, String, delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from dotmac_database import (
    ALL_TENANTS,
    Count,
    DatabaseTransaction,
    HistoryMixin,
    LazyLoadError,
    MisuseError,
    PermissionDeniedError,
    Policy,
    QueryFilter,
    SoftDeleteMixin,
    TenantMixin,
    ValidationError,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from dotmac_database.types import UTCDateTime, utc_now
from tests.conftest import DRIVERS, Face, Faces


class Base(DeclarativeBase):
    """The tables of these tests."""


class Album(HistoryMixin, TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "past_albums"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(50))
    owner: Mapped[str] = mapped_column(default="ann")
    secret: Mapped[str | None] = mapped_column(info={"private": True})
    songs: Mapped[list[Song]] = relationship(back_populates="album", order_by="Song.id")
    labels: Mapped[list[Label]] = relationship()


class Song(HistoryMixin, TenantMixin, Base):
    """A class with columns of many types, one of them with an odd name."""

    __tablename__ = "past_songs"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column("called %s", String(50))
    album_id: Mapped[int | None] = mapped_column(ForeignKey("past_albums.id", ondelete="SET NULL"))
    length: Mapped[float | None]
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    sound: Mapped[bytes | None] = mapped_column(LargeBinary)
    made_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    day: Mapped[date | None]
    is_new: Mapped[bool | None]
    extra: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    album: Mapped[Album | None] = relationship(back_populates="songs")


class Label(TenantMixin, Base):
    """A class without a history."""

    __tablename__ = "past_labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey("past_albums.id"))


SONGS: Any = Song.__table__
ALBUMS: Any = Album.__table__


@pytest.fixture(params=DRIVERS)
def on(request: pytest.FixtureRequest, faces: Faces) -> Face:
    """The face of each driver, with empty tables."""
    face = faces[request.param]
    metadata: MetaData = Base.metadata

    def create(session: Session) -> None:
        metadata.drop_all(session.connection())
        metadata.create_all(session.connection())
        session.commit()

    sync(face, create)
    return face


def sync(face: Face, work: Callable[[Session], Any], session: Any = None) -> Any:
    """The result of sync work on either face."""
    if session is None:
        with face.session() as session:
            return sync(face, work, session)
    return face(session.run_sync, work) if face.is_async else work(session)


def moment() -> datetime:
    """The present moment. What is written after this call is later, also in SQLite's milliseconds."""
    now = utc_now()
    time.sleep(0.003)
    return now


def values(random: Random, **more: Any) -> dict[str, Any]:
    """Random values of a song; None is among them."""
    choices: dict[str, Any] = {
        "name": [*"abcä"],
        "length": [None, 0.1, 1e300, -2.5],
        "price": [None, Decimal("1.10"), Decimal("-3.00")],
        "sound": [None, b"", b"\x00\xff"],
        "made_at": [None, datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)],
        "day": [None, date(1999, 12, 31)],
        "is_new": [None, True, False],
        "extra": [None, {"a": [1, None]}, ["x"], "blob", {"blob": "00"}],
    }
    return {**{name: random.choice(each) for name, each in choices.items()}, **more}


def execute(face: Face, statement: Any, parameters: Any = None) -> None:
    def run(session: Session) -> None:
        session.execute(text(statement) if isinstance(statement, str) else statement, parameters)
        session.commit()

    sync(face, run)


def write(face: Face, songs: Any, random: Random) -> None:
    """One random write, by a random way. ``songs`` is the repository of the tenant ``t``."""
    key, other = random.sample(range(1, 6), 2)
    held = {each.id for each in face(songs.list)}
    only = [{"field": "id", "operator": "eq", "value": key}]
    changed = {name: value for name, value in values(random).items() if random.random() < 0.4}
    if key not in held:
        match random.randrange(4):
            case 0:
                face(songs.create, values(random, id=key))
            case 1:
                face(songs.upsert, values(random, id=key), conflict_fields=["id"])
            case 2:
                face(songs.bulk_create, [values(random, id=key)])
            case _:
                execute(face, insert(SONGS).values(values_of(values(random, id=key, tenant_id="t"))))
        return
    match random.randrange(8):
        case 0:
            face(songs.update, key, {"name": "z", **changed})
        case 1:
            face(songs.update_where, only, {"name": "w", **changed})
        case 2:
            face(songs.bulk_update, [{"id": key, "name": "v"}])
        case 3:
            face(songs.upsert, values(random, id=key), conflict_fields=["id"])
        case 4:
            face(songs.delete, key)
        case 5:
            execute(face, delete(SONGS).where(SONGS.c.id == key))
        case 6 if other not in held:
            execute(face, update(SONGS).where(SONGS.c.id == key).values(id=other))
        case 7:  # to another tenant and back, in two transactions
            execute(face, update(SONGS).where(SONGS.c.id == key).values(tenant_id="u"))
            execute(face, update(SONGS).where(SONGS.c.id == key).values(values_of({"tenant_id": "t", **changed})))
        case _:
            execute(face, f"UPDATE past_songs SET length = 7 WHERE id = {key}")


def values_of(by_attribute: dict[str, Any]) -> dict[str, Any]:
    """The values by column."""
    return {SONGS.c["called %s" if name == "name" else name].name: value for name, value in by_attribute.items()}


def copy(face: Face) -> list[Any]:
    """The rows as they are now, read by Core."""
    return sync(face, lambda session: [tuple(row) for row in session.execute(select(SONGS).order_by(SONGS.c.id))])


def as_rows(entities: Any) -> list[Any]:
    keys = [Song.__mapper__.get_property_by_column(column).key for column in SONGS.columns]
    return [tuple(getattr(each, key) for key in keys) for each in entities]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_sequence_of_writes_can_be_seen_again(on: Face, seed: int) -> None:
    random = Random(seed)
    with on.session() as session:
        songs = on.repository(session, Song, "t")
        copies = [(moment(), copy(on))]
        for _ in range(25):
            write(on, songs, random)
            copies.append((moment(), copy(on)))
        for then, rows in copies:
            past = songs.as_of(then)
            assert as_rows(on(past.list)) == rows
            assert on(past.count) == len(rows)
            assert as_rows(on(past.get_many, [row[0] for row in rows])) == rows
            for row in rows[:1]:
                assert as_rows([on(past.get_by_id, row[0])]) == [row]
            only = [{"field": "length", "operator": "gt", "value": 0}]
            expected = [row for row in rows if (row[SONGS.columns.keys().index("length")] or 0) > 0]
            assert as_rows(on(past.list, {"filters": only})) == expected


def fill(on: Face, session: Any) -> tuple[Any, datetime]:
    """An album with two songs, and the moment before all of it was changed."""
    albums, songs = on.repository(session, Album, "t"), on.repository(session, Song, "t")
    for tenant, number in (("t", 1), ("u", 2)):
        on(albums.with_tenant(tenant).create, {"id": number, "name": "old", "secret": "s"})
        for song in (1, 2):
            on(songs.with_tenant(tenant).create, {"id": 10 * number + song, "name": f"s{song}", "album_id": number})
    then = moment()
    for tenant, number in (("t", 1), ("u", 2)):
        on(songs.with_tenant(tenant).update, 10 * number + 1, {"name": "new", "album_id": None})
        on(songs.with_tenant(tenant).delete, 10 * number + 2)
        on(albums.with_tenant(tenant).update, number, {"name": "new", "secret": "z", "owner": "bob"})
        on(albums.with_tenant(tenant).delete, number)
    return albums, then


NAME = {"field": "songs.name", "operator": "eq", "value": "s2"}
READS: dict[str, tuple[Callable[[Face, Any], Any], Any]] = {
    "list": (lambda on, past: [each.name for each in on(past.list)], ["old"]),
    "include": (
        lambda on, past: [song.name for song in on(past.get_by_id, 1, False, ["songs"]).songs],
        ["s1", "s2"],
    ),
    "include with options": (
        lambda on, past: [
            song.name
            for song in on(past.list, {"relationships": {"songs": {"filters": [{**NAME, "field": "name"}]}}})[0].songs
        ],
        ["s2"],
    ),
    "filter through a relationship": (
        lambda on, past: [each.id for each in on(past.list, {"filters": [NAME]})],
        [1],
    ),
    "count": (lambda on, past: on(past.count, [NAME]), 1),
    "aggregate": (lambda on, past: on(past.aggregate, {"first": {"function": "min", "field": "name"}}), [{"first": "old"}]),
    "values": (lambda on, past: on(past.values("id", "name").list), [{"id": 1, "name": "old"}]),
    "counts": (lambda on, past: on(past.values("id", songs=Count("songs")).list), [{"id": 1, "songs": 2}]),
    "page": (
        lambda on, past: on(past.list_paginated, {"pagination": {"page": 1, "per_page": 1}, "sorts": ["-name"]}).total,
        1,
    ),
    "cursor": (
        lambda on, past: [each.id for each in on(past.cursor_paginate, {"sorts": ["name"]}).items],
        [1],
    ),
    "stream": (lambda on, past: [each.name for each in on(past.stream)], ["old"]),
    "by field": (lambda on, past: on(past.get_by_field, "name", "old").id, 1),
    "of another tenant": (lambda on, past: on(past.get_by_id, 2), None),
    "exists": (lambda on, past: (on(past.exists, 1), on(past.exists, 2)), (True, False)),
}


@pytest.mark.parametrize("ring", ["plain", "guarded", "in a transaction"])
def test_every_read_sees_the_moment(on: Face, ring: str) -> None:
    with on.session() as session:
        _, then = fill(on, session)
    with on.guarded() if ring == "guarded" else on.session() as session:
        albums = on.repository(session, Album, "t")
        if ring == "in a transaction":
            sync(on, lambda each: each.execute(select(ALBUMS)).all(), session)
        past = albums.as_of(then)
        for name, (read, expected) in READS.items():
            assert read(on, past) == expected, name
        assert on(albums.list) == []  # the present is as it was
        assert [each.name for each in on(albums.list, {"include_deleted": True})] == ["new"]
