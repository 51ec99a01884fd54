"""A repository of `as_of` reads the rows as they were at a moment, by whatever way they were written since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    ForeignKey,
    LargeBinary,
    Numeric,
    String,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship

from dotmac_database import (
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
    restrict_to_reads,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from dotmac_database.types import UTCDateTime, utc_now
from tests.conftest import DRIVERS, Face, Faces, counted
from tests.sync_work import create_anew, sync


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


@pytest.fixture(scope="module", params=DRIVERS)
def created(request: pytest.FixtureRequest, faces: Faces) -> Face:
    """The face of each driver, with the tables."""
    return create_anew(faces[request.param], Base.metadata)


@pytest.fixture
def on(created: Face) -> Face:
    """The face of each driver, with empty tables. Their histories remain."""
    execute(created, delete(SONGS))
    execute(created, delete(ALBUMS))
    return created


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


def test_a_random_sequence_of_writes_can_be_seen_again(on: Face) -> None:
    random = Random(1)
    with on.session() as session:
        songs = on.repository(session, Song, "t")
        copies = [(moment(), copy(on))]
        for _ in range(20):
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
            assert [row["id"] for row in on(past.values("id").list)] == [row[0] for row in rows]
            for place in random.sample(range(len(SONGS.columns)), 2):  # columns that are rebuilt alone
                key = Song.__mapper__.get_property_by_column([*SONGS.columns][place]).key
                nulls = sum(row[place] is None for row in rows)
                assert on(past.count, [{"field": key, "operator": "is_null"}]) == nulls
                assert [row[key] for row in on(past.values("id", key).list)] == [row[place] for row in rows]


TEXTS: dict[str, Callable[[], Any]] = {
    "text": lambda: text("length > 1"),
    "literal column": lambda: literal_column("length") > 1,
    "column": lambda: column("length") > 1,
    "column of an alias": lambda: select(aliased(Song)).subquery().select().exists() & (Song.length > 1),
    "whole row": lambda: func.length(cast(Song.__table__.table_valued(), String)) > 0,  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("way", TEXTS)
def test_columns_in_texts_are_rebuilt_too(on: Face, way: str) -> None:
    """Only those columns are rebuilt that a statement reads; a text may read any."""
    if way == "whole row" and on.engine.dialect.name == "sqlite":
        return  # it has no such value
    with on.session() as session:
        songs = on.repository(session, Song, "t")
        for number in (1, 2):
            on(songs.create, {"id": number, "name": "a", "length": 2.0 * number})
        then = moment()
        on(songs.update, 1, {"length": 0.0})
        on(songs.delete, 2)
        base: Any = type(songs)
        conditioned = type("Conditioned", (base,), {"conditions": lambda _: [TEXTS[way]()]})(session, Song, "t")
        assert on(conditioned.as_of(then).count) == 2


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
    "aggregate": (
        lambda on, past: on(past.aggregate, {"first": {"function": "min", "field": "name"}}),
        [{"first": "old"}],
    ),
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


def test_a_read_of_the_past_takes_one_message(on: Face) -> None:
    with on.session() as session:
        _, then = fill(on, session)
    with on.guarded() as session, counted(on.engine) as statements:
        past = on.repository(session, Album, "t").as_of(then)
        assert statements == []
        on(past.get_by_id, 1)
        on(past.list, {"relationships": ["songs"]})
        assert [each[:4] for each in statements if each not in ("BEGIN", "COMMIT", "ROLLBACK")] == ["WITH"] * 3


def test_the_present_stays_as_it_is(on: Face) -> None:
    """The connection of an open transaction is used, and the session keeps its transaction, objects and changes."""
    with on.session() as session:
        albums, then = fill(on, session)
        present = on(albums.get_by_id, 1, True)

        def begin(each: Session) -> None:
            each.execute(update(ALBUMS).where(ALBUMS.c.id == 1).values(name="newest"))

        sync(on, begin, session)
        present.owner = "eve"
        past = on(albums.as_of(then).get_by_id, 1)
        assert (past.name, present.name, present.owner) == ("old", "new", "eve")
        assert session.in_transaction()
        assert present in session.dirty
        newest = sync(
            on, lambda each: each.execute(select(ALBUMS.c.name, ALBUMS.c.owner).where(ALBUMS.c.id == 1)).one(), session
        )
        assert newest == ("newest", "eve")
        sync(on, lambda each: each.rollback(), session)
        assert on(albums.as_of(then).get_by_id, 1).name == "old"
        assert not session.in_transaction()


WRITES: dict[str, tuple[Any, ...]] = {
    "create": ({"id": 9, "name": "x"},),
    "bulk_create": ([{"id": 9, "name": "x"}],),
    "update": (1, {"name": "x"}),
    "bulk_update": ([{"id": 1, "name": "x"}],),
    "update_where": ([{"field": "id", "operator": "eq", "value": 1}], {"name": "x"}),
    "upsert": ({"id": 1, "name": "x"}, ["id"]),
    "bulk_upsert": ([{"id": 1, "name": "x"}], ["id"]),
    "get_or_create": ({"id": 9}, {"name": "x"}),
    "delete": (1,),
    "delete_where": ([{"field": "id", "operator": "eq", "value": 1}],),
    "restore": (1,),
    "link": (1, "songs", [11]),
    "unlink": (1, "songs", [11]),
    "in_batches": (print,),
    "explain": (),
    "history": (1,),
}


def test_a_session_that_only_reads_has_a_past(on: Face) -> None:
    with on.session() as session:
        _, then = fill(on, session)
    with on.guarded() as session:
        restrict_to_reads(session)
        assert on(on.repository(session, Album, "t").as_of(then).get_by_id, 1).name == "old"


def test_the_past_cannot_be_changed(on: Face) -> None:
    with on.session() as session:
        _, then = fill(on, session)
    before = sync(on, lambda each: each.execute(select(ALBUMS)).all()), copy(on)
    with on.session() as session:
        past = on.repository(session, Album, "t").as_of(then)
        for name, arguments in WRITES.items():
            with pytest.raises(MisuseError):
                on(getattr(past, name), *arguments)
        with pytest.raises(MisuseError, match="no session"):
            _ = past.db.execute
        with pytest.raises(MisuseError, match="no session"):
            past.select()
        with pytest.raises(MisuseError, match="locked"):
            on(past.for_update().list)
        with pytest.raises(MisuseError):
            on(past.forget_history, before=then)
    assert before == (sync(on, lambda each: each.execute(select(ALBUMS)).all()), copy(on))


def test_what_the_history_does_not_know_is_refused(on: Face) -> None:
    with on.session() as session:
        albums, then = fill(on, session)
        past = albums.as_of(then)
        album = on(past.get_by_id, 1)
        with pytest.raises(PermissionDeniedError, match=r"Album\.secret"):
            _ = album.secret
        with pytest.raises(LazyLoadError):
            _ = album.songs
        for field in ("secret", "songs.album.secret"):
            with pytest.raises(MisuseError, match="no field"):
                on(past.list, {"filters": [{"field": field, "operator": "eq", "value": "s"}]})
        with pytest.raises(MisuseError, match="no field"):
            past.values("id", "secret")
        with pytest.raises(MisuseError, match="past_labels, which has no history"):
            on(past.list, {"relationships": ["labels"]})
        with pytest.raises(MisuseError, match="past_labels, which has no history"):
            on(past.list, {"filters": [{"field": "labels.id", "operator": "eq", "value": 1}]})
        with pytest.raises(MisuseError, match="Label has no history"):
            on.repository(session, Label, "t").as_of(then)
        assert on(albums.get_by_id, 1, True).secret == "z"


def test_a_moment(on: Face) -> None:
    with on.session() as session:
        albums, then = fill(on, session)
        naive = then.replace(tzinfo=None)
        assert on(albums.as_of(naive).get_by_id, 1).name == "old"
        elsewhere = then.astimezone(timezone(timedelta(hours=-7)))
        assert on(albums.as_of(elsewhere).get_by_id, 1).name == "old"
        assert on(albums.as_of(then - timedelta(days=1)).list, {"include_deleted": True}) == []
        assert on(albums.as_of(utc_now()).as_of(then).get_by_id, 1).name == "old"
        with pytest.raises(ValidationError, match="future"):
            albums.as_of(utc_now() + timedelta(hours=1))
        with pytest.raises(ValidationError, match="datetime"):
            albums.as_of(then.date())


def test_a_row_from_before_the_history_and_a_forgotten_one(on: Face) -> None:
    """Where there are no entries, the earliest known state is shown."""
    with on.session() as session:
        albums, then = fill(on, session)
        on(albums.forget_history, before=utc_now() + timedelta(days=1))
        assert [each.name for each in on(albums.as_of(then).list, {"include_deleted": True})] == ["new"]


def test_policies_hold_as_the_rows_were(on: Face) -> None:
    with on.session() as session:
        albums, then = fill(on, session)
        policy = Policy(Album, read=lambda actor: [QueryFilter("owner", "eq", actor)])
        with pytest.raises(MisuseError, match="actor="):
            albums.as_of(then).with_policy(policy)
        for actor, expected in (("ann", ["old"]), ("bob", [])):
            past = albums.with_policy(policy, actor=actor).as_of(then)
            assert [each.name for each in on(past.list)] == expected
            past = albums.as_of(then).with_policy(policy, actor=actor)
            assert [each.name for each in on(past.list)] == expected
            with pytest.raises(MisuseError, match="no field"):
                on(past.list, {"sorts": ["secret"]})


def test_conditions_on_private_columns_are_refused(on: Face) -> None:
    with on.session() as session:
        albums, then = fill(on, session)
        policy = Policy(Album, read=lambda _: [QueryFilter("secret", "eq", "s")])
        with pytest.raises(MisuseError, match=r"past_albums\.secret"):
            on(albums.with_policy(policy, actor=1).as_of(then).list)


def test_a_mock_has_a_past() -> None:
    albums = MockRepository(Album, "t")
    albums.create({"id": 1, "name": "old"})
    then = moment()
    albums.update(1, {"name": "new"})
    assert [each.name for each in albums.as_of(then).list()] == ["old"]
    assert [each.name for each in albums.list()] == ["new"]


def test_an_async_mock_has_a_past() -> None:
    async def run() -> list[str]:
        albums = AsyncMockRepository(Album, "t")
        await albums.create({"id": 1, "name": "old"})
        then = moment()
        await albums.update(1, {"name": "new"})
        assert [each.name for each in await albums.as_of(then).list()] == ["old"]
        return [each.name async for each in albums.as_of(then).stream()]

    assert asyncio.run(run()) == ["old"]


def test_the_past_in_a_block_and_in_a_savepoint(on: Face) -> None:
    with on.session() as session:
        albums, then = fill(on, session)
        block = DatabaseTransaction.async_transaction if on.is_async else DatabaseTransaction.sync_transaction
        with on.entered(block(session)):
            assert on(albums.as_of(then).get_by_id, 1).name == "old"
            on(albums.create, {"id": 3, "name": "third"})
            with on.entered(block(session)):
                assert on(albums.as_of(then).get_by_id, 1).name == "old"
                on(albums.update, 3, {"name": "changed"})
            with pytest.raises(MisuseError):
                on(albums.as_of(then).list, {"relationships": ["labels"]})
            assert [each.id for each in on(albums.as_of(then).list)] == [1]
        assert on(albums.get_by_id, 3).name == "changed"
