"""Reads by the driver alone: the same rows, values and objects as by SQLAlchemy, and only where nobody would notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    DateTime,
    Double,
    ForeignKey,
    Interval,
    LargeBinary,
    Numeric,
    String,
    event,
    func,
    inspect,
    text,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    deferred,
    mapped_column,
    reconstructor,
    relationship,
    validates,
)
from sqlalchemy.types import TypeDecorator

from dotmac_database import (
    AsyncRepository,
    AuditMixin,
    ConstraintViolationError,
    Database,
    DatabaseTimeoutError,
    DatabaseTransaction,
    DuplicateEntityError,
    EntityNotFoundError,
    QueryFilter,
    SoftDeleteMixin,
    StaleEntityError,
    TenantMixin,
    TransactionError,
    VersionMixin,
    acting_as,
    create_database,
    create_repository,
)
from dotmac_database.execution import driver as direct
from tests.conftest import Face
from tests.models import User


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Reversed(TypeDecorator[str]):
    """Stored backwards."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]


class Kinds(DeclarativeBase):
    """Classes of every kind."""


class Thing(TenantMixin, VersionMixin, Kinds):
    """A column of every type."""

    __tablename__ = "things"

    number: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column("the_name", String(40))
    price: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))
    rough: Mapped[float | None] = mapped_column(Numeric(12, 3, asdecimal=False))
    weight: Mapped[float | None]
    exact: Mapped[Decimal | None] = mapped_column(Double(asdecimal=True))
    sold: Mapped[bool | None]
    made: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    day: Mapped[date | None]
    at: Mapped[time | None]
    lasts: Mapped[timedelta | None] = mapped_column(Interval)
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    document: Mapped[Any | None] = mapped_column(JSON)
    binary: Mapped[Any | None] = mapped_column(JSONB)
    colour: Mapped[Colour | None]
    plain_colour: Mapped[Colour | None] = mapped_column(EnumType(Colour, native_enum=False))
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    secret: Mapped[str | None] = mapped_column(Reversed)


class Owner(TenantMixin, Kinds):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    pets: Mapped[list[Pet]] = relationship(back_populates="owner")


class Pet(TenantMixin, Kinds):
    __tablename__ = "pets"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    owner: Mapped[Owner | None] = relationship(back_populates="pets")


class Shape(Kinds):
    __tablename__ = "shapes"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shape"}  # noqa: RUF012 - SQLAlchemy's form
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Circle(Shape):
    __mapper_args__ = {"polymorphic_identity": "circle"}  # noqa: RUF012


class Long(Kinds):
    __tablename__ = "longs"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = deferred(mapped_column(String))


class Changing(Kinds):
    __tablename__ = "changing"
    id: Mapped[int] = mapped_column(primary_key=True)
    settings: Mapped[Any] = mapped_column(MutableDict.as_mutable(JSON()))


PART = UUID(int=7)
FULL: dict[str, Any] = {
    "number": 1,
    "part": PART,
    "name": "ü",
    "price": Decimal("1.250"),
    "rough": 1.25,
    "weight": 0.1,
    "exact": Decimal("0.25"),
    "sold": True,
    "made": datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "day": date(2024, 2, 29),
    "at": time(1, 2, 3, 4),
    "lasts": timedelta(days=2, microseconds=5),
    "raw": b"\x00\xff",
    "document": {"a": [1, None, "x"]},
    "binary": [True, {"b": 1.5}],
    "colour": Colour.BLUE,
    "plain_colour": Colour.RED,
    "tags": ["a", "b"],
    "secret": "abc",
}
EMPTY = {"number": 2, "part": PART}


@pytest.fixture(scope="module")
def dialect() -> str:
    """It is asyncpg's way alone."""
    return "postgresql"


@pytest.fixture
def face(database: Database) -> Iterator[Face]:
    chosen = Face("async", database)
    yield chosen
    chosen.runner.run(database.async_engine.dispose())
    del database.__dict__["async_engine"]
    database.__dict__.pop("async_sessions", None)
    chosen.runner.close()


@pytest.fixture
def kinds(face: Face) -> Iterator[None]:
    Kinds.metadata.create_all(face.database.engine)
    yield
    Kinds.metadata.drop_all(face.database.engine)


@pytest.fixture
def by_driver(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """The reads and the writes that went by the driver alone."""
    reads: list[str] = []
    writes: list[str] = []
    real = direct._records

    def spy(engine: Any, plan: Any, *given: Any, **options: Any) -> Any:
        (reads if plan.sql.startswith("SELECT") else writes).append(plan.sql)
        return real(engine, plan, *given, **options)

    monkeypatch.setattr(direct, "_records", spy)
    return reads, writes


@pytest.fixture
def sent(by_driver: tuple[list[str], list[str]]) -> list[str]:
    """The reads that went by the driver alone."""
    return by_driver[0]


@pytest.fixture
def written(by_driver: tuple[list[str], list[str]]) -> list[str]:
    """The writes that went by the driver alone."""
    return by_driver[1]


@contextmanager
def slowly(face: Face) -> Iterator[None]:
    """SQLAlchemy's way: somebody listens."""

    def listener(*_: Any) -> None: ...

    event.listen(face.engine, "after_execute", listener)
    yield
    event.remove(face.engine, "after_execute", listener)


def state_of(entity: Any) -> dict[str, Any]:
    """All that SQLAlchemy knows of an object."""
    state: Any = inspect(entity)
    return {
        "values": {key: value for key, value in state.dict.items() if key != "_sa_instance_state"},
        "types": {key: type(value) for key, value in state.dict.items()},
        "identity": state.identity_key,
        "persistent": state.persistent,
        "modified": state.modified,
        "expired": state.expired,
        "unloaded": state.unloaded,
        "in session": state.session is not None,
    }


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_every_type_is_as_sqlalchemy_gives_it(face: Face, sent: list[str]) -> None:
    with face.session() as session:
        things = face.repository(session, Thing, "a")
        face(things.create, FULL)
        face(things.create, EMPTY)
    options = {"sorts": [{"field": "number"}]}
    with face.session() as session:
        things = face.repository(session, Thing, "a")
        quick = [state_of(each) | {"values": None} for each in face(things.list, options)]
        values = face(things.values(*things.traits.columns).list, options)
        assert len(sent) == 2
    with slowly(face), face.session() as session:
        things = face.repository(session, Thing, "a")
        found = face(things.list, options)
        assert [state_of(each) | {"values": None} for each in found] == quick
        assert values == [{key: getattr(each, key) for key in things.traits.columns} for each in found]
        assert len(sent) == 2
    assert {key: values[0][key] for key in FULL} == FULL
    assert all(values[1][key] is None for key in FULL if key not in EMPTY)


READS: dict[str, tuple[Callable[[Face, Any], Any], int]] = {
    "get_by_id": (lambda face, pets: [face(pets.get_by_id, 2)], 1),
    "missing": (lambda face, pets: [face(pets.get_by_id, 99)], 1),
    "first": (lambda face, pets: [face(pets.first)], 1),
    "get_by_field": (lambda face, pets: [face(pets.get_by_field, "name", "p3")], 1),
    "list": (lambda face, pets: face(pets.list, {"filters": [QueryFilter("owner.name", value="o")]}), 1),
    "page": (lambda face, pets: face(pets.list_paginated, {"pagination": {"page": 2, "per_page": 2}}), 1),
    "past the end": (lambda face, pets: face(pets.list_paginated, {"pagination": {"page": 9, "per_page": 2}}), 2),
    "uncounted": (lambda face, pets: face(pets.list_paginated, {"pagination": {"per_page": 2, "total": "none"}}), 1),
    "cursor": (
        lambda face, pets: face(
            pets.cursor_paginate, {"sorts": [{"field": "owner.name"}], "cursor_pagination": {"limit": 2}}
        ),
        1,
    ),
    "stream": (lambda face, pets: face(pets.stream, None, 2), 3),
    "count": (lambda face, pets: face(pets.count, [QueryFilter("name", "gt", "p1")]), 1),
    "exists": (lambda face, pets: [face(pets.exists, 1), face(pets.exists, 99)], 2),
    "values": (lambda face, pets: face(pets.values("name").list), 1),
}


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("read", READS)
def test_every_read_gives_what_sqlalchemy_gives(face: Face, sent: list[str], read: str) -> None:
    def told(result: Any) -> Any:
        items = getattr(result, "items", result)
        rest = {key: value for key, value in vars(result).items() if key != "items"} if items is not result else None
        listed = items if isinstance(items, list) else [items]
        return [state_of(each) if isinstance(each, Pet) else each for each in listed], rest

    with face.session() as session:
        face(face.repository(session, Owner, "a").create, {"id": 1, "name": "o"})
        rows = [{"id": n, "name": f"p{n}", "owner_id": 1 if n % 2 else None} for n in range(1, 6)]
        face(face.repository(session, Pet, "a").bulk_create, rows)
        face(face.repository(session, Pet, "b").create, {"id": 9, "name": "p3"})
    call, statements = READS[read]
    with face.session() as session:
        quick = told(call(face, face.repository(session, Pet, "a")))
        assert len(sent) == statements
        assert not session.in_transaction()
        assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    with slowly(face), face.session() as session:
        assert told(call(face, face.repository(session, Pet, "a"))) == quick


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_an_object_that_the_session_holds_is_the_same_and_fresh(face: Face, sent: list[str]) -> None:
    with face.session() as session:
        face(face.repository(session, Owner, "a").create, {"id": 1, "name": "o"})
        face(face.repository(session, Pet, "a").bulk_create, [{"id": 1, "name": "old", "owner_id": 1}])
    with face.session() as session:
        owners = face.repository(session, Owner, "a")
        owner = face(owners.get_by_id, 1, relationships=["pets"])
        assert [pet.name for pet in owner.pets] == ["old"]
        with face.database.sessions() as other:
            other.execute(text("UPDATE owners SET name = 'new'"))
            other.execute(text("DELETE FROM pets"))
            other.commit()
        again = face(owners.get_by_id, 1)
        assert len(sent) == 1
        assert again is owner
        assert owner.name == "new"
        # What was loaded of it before is not kept as if it were fresh, too.
        assert "pets" not in inspect(owner).dict
        owner.name = "changed"
        face(session.commit)
    with face.session() as session:
        assert face(face.repository(session, Owner, "a").get_by_id, 1).name == "changed"


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_what_is_read_can_be_written_and_loaded_from(face: Face, sent: list[str]) -> None:
    with face.session() as session:
        face(face.repository(session, Owner, "a").create, {"id": 1, "name": "o"})
        face(face.repository(session, Pet, "a").create, {"id": 1, "name": "p", "owner_id": 1})
        face(face.repository(session, Thing, "a").create, FULL)
    with face.session() as session:
        pet = face(face.repository(session, Pet, "a").first)
        thing = face(face.repository(session, Thing, "a").first)
        assert len(sent) == 2
        pet.name, thing.name = "renamed", "renamed"
        face(session.commit)
        assert face(session.run_sync, lambda sync: pet.owner.name) == "o"
        face(session.refresh, thing)
        assert thing.name == "renamed"
        face(session.delete, pet)
        face(session.commit)
        assert face(face.repository(session, Pet, "a").count) == 0


def listened(name: str, target: Any) -> Callable[[Face, Any], Any]:
    @contextmanager
    def listening(face: Face, session: Any) -> Iterator[None]:
        def listener(*given: Any) -> None: ...

        where = target(face, session)
        event.listen(where, name, listener)
        yield
        event.remove(where, name, listener)

    return listening


ELSEWHERE: dict[str, Callable[[Face, Any], Any]] = {
    "a listener to elements": listened("before_execute", lambda face, session: face.engine),
    "a listener to the ORM's statements": listened("do_orm_execute", lambda face, session: session.sync_session),
    "a listener to loaded objects": listened("loaded_as_persistent", lambda face, session: session.sync_session),
    "a listener to refreshes": listened("refresh", lambda face, session: Pet),
    "a listener to transactions": listened("after_begin", lambda face, session: session.sync_session),
}


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("case", ELSEWHERE)
def test_whoever_listens_hears_of_it(face: Face, sent: list[str], case: str) -> None:
    with face.session() as session:
        face(face.repository(session, Pet, "a").create, {"id": 1, "name": "p"})
        with ELSEWHERE[case](face, session):
            assert face(face.repository(session, Pet, "a").get_by_id, 1).name == "p"
    assert not sent


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize(
    ("model", "row"),
    [
        (Shape, {"id": 1}),
        (Circle, {"id": 1}),
        (Long, {"id": 1, "body": "x"}),
        (Changing, {"id": 1, "settings": {"a": 1}}),
    ],
)
def test_classes_that_are_more_than_their_columns_are_the_orms(
    face: Face, sent: list[str], model: Any, row: dict[str, Any]
) -> None:
    with face.session() as session:
        face(face.repository(session, model).create, row)
    with face.session() as session:
        found = face(face.repository(session, model).get_by_id, 1)
        assert type(found) is model
        assert [key for key in inspect(found).unloaded if key != "body"] == []
    assert not sent


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_inside_a_transaction_it_is_the_transactions(face: Face, sent: list[str]) -> None:
    with face.session() as session:
        pets = face.repository(session, Pet, "a")
        with face.entered(DatabaseTransaction.async_transaction(session)):
            face(pets.create, {"id": 1, "name": "p"})
            assert face(pets.count) == 1
        assert not sent
        with face.entered(DatabaseTransaction.async_transaction(session, lazy=True)):
            assert face(pets.count) == 1
        assert len(sent) == 1


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_a_guarded_session_reads_its_own_tenants_rows(face: Face, sent: list[str]) -> None:
    with face.session() as session:
        face(face.repository(session, Pet, "a").create, {"id": 1, "name": "p"})
    with face.guarded() as session:
        pets = face.repository(session, Pet, "b")
        assert face(pets.get_by_id, 1) is None
        assert face(pets.list) == []
    assert len(sent) == 2


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_a_table_that_changes_is_read_on(face: Face, sent: list[str]) -> None:
    """The server refuses prepared statements of a table that has changed; they are prepared anew."""
    with face.session() as session:
        pets = face.repository(session, Pet, "a")
        face(pets.create, {"id": 1, "name": "p"})
        assert face(pets.get_by_id, 1).name == "p"
        with face.database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE pets ALTER name TYPE varchar(40), ADD COLUMN more int"))
        assert face(pets.get_by_id, 1).name == "p"
    assert len(sent) == 2


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_a_connection_that_the_server_ends_is_replaced(face: Face, sent: list[str]) -> None:
    with face.session() as session:
        pets = face.repository(session, Pet, "a")
        face(pets.create, {"id": 1, "name": "p"})
        with face.database.engine.connect() as killer:
            killer.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        assert face(pets.get_by_id, 1).name == "p"
        assert len(sent) == 1


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_errors_are_the_toolkits_and_the_connection_goes_back(face: Face, sent: list[str]) -> None:
    database = create_database(face.database.url, statement_timeout=0.2)

    async def run() -> None:
        with face.database.engine.begin() as holder:
            holder.execute(text("LOCK TABLE pets IN ACCESS EXCLUSIVE MODE"))
            async with database.async_sessions() as session:
                pets = face.repository(session, Pet, "a")
                with pytest.raises(DatabaseTimeoutError) as caught:
                    await pets.count()
                assert getattr(caught.value.__cause__, "sqlstate", None) == "57014"
        async with database.async_sessions() as session:
            assert await face.repository(session, Pet, "a").count() == 0
            assert database.async_engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await database.dispose_async()

    face(run)
    assert len(sent) == 2


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
def test_a_cancelled_read_leaves_the_pool_whole(face: Face, sent: list[str]) -> None:
    async def run() -> None:
        async with face.database.async_sessions() as session:
            pets = face.repository(session, Pet, "a")
            with face.database.engine.begin() as holder:
                holder.execute(text("LOCK TABLE pets IN ACCESS EXCLUSIVE MODE"))
                task = asyncio.ensure_future(pets.list())
                waiting = text(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                while not holder.execute(waiting).all():
                    holder.execute(text("SELECT pg_stat_clear_snapshot()"))
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            assert await pets.list() == []

    face(run)
    assert len(sent) == 2


@pytest.mark.fast_way("driver", "autocommit")
def test_engines_for_poolers_keep_to_sqlalchemys_statements(face: Face, sent: list[str]) -> None:
    database = create_database(face.database.url, transaction_pooler=True)

    async def run() -> None:
        async with database.async_sessions() as session:
            assert await face.repository(session, User, "a").count() == 0
        await database.dispose_async()

    face(run)
    assert len(sent) == 1  # it was tried, and left alone


def test_sync_sessions_are_the_orms(face: Face, sent: list[str]) -> None:
    with Session(face.database.engine) as session:
        assert create_repository(session, User, "a").count() == 0
    assert not sent


@pytest.fixture
def pet(face: Face, kinds: None) -> Pet:
    with face.session() as session:
        face(face.repository(session, Owner, "a").create, {"id": 1, "name": "o"})
        made: Pet = face(face.repository(session, Pet, "a").create, {"id": 1, "name": "p"})
    return made


def marked(entity: Any) -> dict[str, Any]:
    """An object's state without what differs from one creation to the next."""
    told = state_of(entity)
    return {**told, "values": {key: value for key, value in told["values"].items() if not key.endswith("_at")}}


class Account(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Kinds):
    """Has all that is filled by itself."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    limit: Mapped[Decimal] = mapped_column(Numeric(8, 2), default=5)
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    colour: Mapped[Colour] = mapped_column(default=Colour.BLUE)
    plan: Mapped[str] = mapped_column(server_default="free")
    note: Mapped[str | None]


WRITES: dict[str, Callable[[Face, Any], Any]] = {
    "create": lambda face, rows: face(rows.create, {"id": 7, "email": "7", "note": "n"}, "ann"),
    "create with nothing": lambda face, rows: face(rows.create, {"email": "8", "colour": None, "note": None}),
    "create with all": lambda face, rows: face(
        rows.create, {"id": 9, "email": "9", "limit": "1.5", "tags": ["x"], "colour": "r", "plan": "gold"}
    ),
    "update": lambda face, rows: face(rows.update, 1, {"email": "new", "tags": ["y"]}, "bob"),
    "update of a version": lambda face, rows: face(rows.update, 1, {"note": "n"}, expected_version=1),
    "delete": lambda face, rows: face(rows.delete, 1),
    "delete nothing": lambda face, rows: face(rows.delete, 99),
    "restore": lambda face, rows: face(rows.restore, 2),
}


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("write", WRITES)
def test_writes_do_what_sqlalchemys_do(face: Face, written: list[str], write: str) -> None:
    def outcome() -> tuple[Any, Any]:
        with face.database.engine.begin() as connection:
            connection.execute(text("TRUNCATE accounts RESTART IDENTITY"))
            connection.execute(text("ALTER SEQUENCE accounts_id_seq RESTART WITH 50"))
        with face.session() as session, acting_as("someone"):
            face(face.repository(session, Account, "a").bulk_create, [{"id": n, "email": f"{n}"} for n in (1, 2)])
            with face.database.engine.begin() as connection:
                connection.execute(text("UPDATE accounts SET is_deleted = true WHERE id = 2"))
        del written[:]
        with face.session() as session:
            result = WRITES[write](face, face.repository(session, Account, "a"))
            told = marked(result) if isinstance(result, Account) else result
            assert not session.in_transaction()
        with face.database.engine.connect() as connection:
            rows = connection.execute(
                text(
                    'SELECT id, tenant_id, email, "limit", tags, colour, plan, note, created_by, updated_by, '
                    "is_deleted, deleted_at IS NULL, version, updated_at > created_at FROM accounts ORDER BY id"
                )
            ).all()
        return told, rows

    quick = outcome()
    assert len(written) == 1
    with slowly(face):
        assert outcome() == quick
        assert not written


def test_what_a_write_refuses(face: Face, pet: Pet, written: list[str]) -> None:
    with face.session() as session:
        pets = face.repository(session, Pet, "a")
        with pytest.raises(DuplicateEntityError) as caught:
            face(pets.create, {"id": 1, "name": "again"})
        assert caught.value.fields == ("id",)
        with pytest.raises(ConstraintViolationError):
            face(pets.update, 1, {"owner_id": 99})
        with pytest.raises(EntityNotFoundError):
            face(pets.update, 99, {"name": "x"})
        with pytest.raises(EntityNotFoundError):
            face(face.repository(session, Pet, "b").update, 1, {"name": "stolen"})
        things = face.repository(session, Thing, "a")
        face(things.create, FULL)
        with pytest.raises(StaleEntityError):
            face(things.update, (1, PART), {"name": "x"}, expected_version=9)
        assert not session.in_transaction()
        assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert face(pets.get_by_id, 1).name == "p"
        assert face(pets.update, 1, {"name": "q"}).name == "q"


def test_the_object_that_the_session_holds_is_the_one_that_is_written(face: Face, pet: Pet, written: list[str]) -> None:
    with face.session() as session:
        pets = face.repository(session, Pet, "a")
        held = face(pets.get_by_id, 1)
        assert face(pets.update, 1, {"name": "new"}) is held
        assert held.name == "new"
        made = face(pets.create, {"id": 2, "name": "two"})
        assert face(pets.get_by_id, 2) is made
        made.name = "changed"
        face(session.commit)
    with face.session() as session:
        assert [each.name for each in face(face.repository(session, Pet, "a").list)] == ["new", "changed"]


class Made(Kinds):
    """Its constructor has a say."""

    __tablename__ = "mades"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    def __init__(self, **values: Any) -> None:
        super().__init__(**{**values, "name": values["name"].upper()})


class Checked(Kinds):
    """It validates."""

    __tablename__ = "checkeds"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    @validates("name")
    def _upper(self, _key: str, value: str) -> str:
        return value.upper()


class Heard(Kinds):
    """A listener changes what is set."""

    __tablename__ = "heards"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@event.listens_for(Heard.name, "set", retval=True)
def _upper(_target: Any, value: str, *_: Any) -> str:
    return value.upper()


class Born(Kinds):
    """A listener hears of new objects."""

    __tablename__ = "borns"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@event.listens_for(Born, "init")
def _shout(_target: Any, _args: Any, kwargs: dict[str, Any]) -> None:
    kwargs["name"] = kwargs["name"].upper()


class Expressed(Kinds):
    """A default of the database's own."""

    __tablename__ = "expresseds"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default=func.upper("by default"))


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("model", [Made, Checked, Heard, Born])
def test_who_has_a_say_in_new_objects_is_asked(face: Face, written: list[str], model: Any) -> None:
    with face.session() as session:
        rows = face.repository(session, model)
        new = face(rows.create, {"id": 1, "name": "x"})
        assert new.name == "X"
        assert inspect(new).persistent
        assert not session.dirty
    assert len(written) == 1
    with face.session() as session:
        assert face(face.repository(session, model).get_by_id, 1).name == "X"


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("model", [Checked, Heard])
def test_who_has_a_say_in_changes_is_asked(face: Face, written: list[str], model: Any) -> None:
    with face.session() as session:
        rows = face.repository(session, model)
        face(rows.create, {"id": 1, "name": "x"})
        assert face(rows.update, 1, {"name": "y"}).name == "Y"
    assert not [sql for sql in written if sql.startswith("UPDATE")]


class Counted(Kinds):
    """It has a reconstructor, and an attribute that is no column."""

    __tablename__ = "counteds"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.origin = "constructed"

    @reconstructor
    def _loaded(self) -> None:
        self.origin = "loaded"


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("slow", [False, True])
def test_listeners_to_loads_are_called_once_for_each_object(face: Face, by_driver: Any, slow: bool) -> None:
    loaded: list[tuple[str, str]] = []

    def load(entity: Any, _context: object) -> None:
        loaded.append((entity.name, entity.origin))

    with slowly(face) if slow else nullcontext(), face.session() as session:
        rows = face.repository(session, Counted)
        event.listen(Counted, "load", load)
        try:
            new = [face(rows.create, {"id": number, "name": f"n{number}"}) for number in (1, 2, 3)]
            assert [each.origin for each in new] == ["constructed"] * 3
            assert loaded == []
            session.expunge_all()
            first = face(rows.get_by_id, 1)
            assert first.origin == "loaded"
            assert loaded == [("n1", "loaded")]
            assert len(face(rows.list)) == 3
            assert sorted(loaded) == [("n1", "loaded"), ("n2", "loaded"), ("n3", "loaded")]
            session.expunge_all()
            assert face(rows.update, 2, {"name": "changed"}).origin == "loaded"
            assert loaded[3:] == [("changed", "loaded")]
        finally:
            event.remove(Counted, "load", load)
    reads, writes = by_driver
    assert (len(reads), len(writes)) == ((0, 0) if slow else (2, 4))


@pytest.mark.usefixtures("kinds")
def test_a_default_of_the_databases_own(face: Face, written: list[str]) -> None:
    with face.session() as session:
        assert face(face.repository(session, Expressed).create, {"id": 1}).name == "BY DEFAULT"
    assert not written


@pytest.mark.parametrize(
    "name", ["before_commit", "after_commit", "before_flush", "pending_to_persistent", "before_attach"]
)
def test_whoever_listens_hears_of_writes(face: Face, pet: Pet, written: list[str], name: str) -> None:
    heard: list[Any] = []
    with face.session() as session:
        event.listen(session.sync_session, name, lambda *given: heard.append(given))
        face(face.repository(session, Pet, "a").create, {"id": 2, "name": "two"})
    assert heard
    assert not written


def test_a_repository_with_conditions_of_its_own(face: Face, pet: Pet, written: list[str]) -> None:
    class Named(AsyncRepository[Pet]):
        def conditions(self) -> list[Any]:
            return [Pet.name == "q"]

    with face.session() as session:
        pets = Named(session, tenant_id="a")
        assert face(pets.list) == []
        with pytest.raises(EntityNotFoundError):
            face(pets.update, 1, {"name": "x"})
    assert not written


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
def test_a_write_whose_connection_is_lost_has_an_unknown_outcome(face: Face, pet: Pet, written: list[str]) -> None:
    async def run() -> None:
        async with face.database.async_sessions() as session:
            pets = face.repository(session, Pet, "a")
            with face.database.engine.begin() as holder:
                holder.execute(text("SELECT 1 FROM pets FOR UPDATE"))
                task = asyncio.ensure_future(pets.update(1, {"name": "x"}))
                waiting = text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                while not holder.execute(waiting).all():
                    holder.execute(text("SELECT pg_stat_clear_snapshot()"))
                    await asyncio.sleep(0.05)
                with pytest.raises(TransactionError) as caught:
                    await task
            assert caught.value.outcome == "unknown"
            assert caught.value.__cause__ is not None
            assert (await pets.update(1, {"name": "y"})).name == "y"

    face(run)
    assert len(written) == 2


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
def test_a_row_within_a_transaction_is_the_transactions(face: Face, pet: Pet, monkeypatch: pytest.MonkeyPatch) -> None:
    within: list[str] = []
    real = direct._records_within

    def spy(session: Any, connection: Any, to_send: Any, *args: Any, **options: Any) -> Any:
        within.append(to_send.sql)
        return real(session, connection, to_send, *args, **options)

    monkeypatch.setattr(direct, "_records_within", spy)
    with face.session() as session:
        pets = face.repository(session, Pet, "a")
        with pytest.raises(LookupError):
            undone(face, session, pets)
        assert face(pets.count) == 1
        with face.entered(DatabaseTransaction.async_transaction(session)):
            made = face(pets.create, {"id": 2, "name": "two"})
            with pytest.raises(DuplicateEntityError):
                face(pets.create, {"id": 2, "name": "again"})
            assert face(pets.update, 2, {"name": "changed"}) is made
            third = face(pets.create, {"id": 3, "name": "three"})
            third.name = "touched"
        assert (made.name, third.name) == ("changed", "touched")
    assert len(within) == 5
    with face.session() as session:
        assert [each.name for each in face(face.repository(session, Pet, "a").list)] == ["p", "changed", "touched"]


def undone(face: Face, session: Any, pets: Any) -> None:
    with face.entered(DatabaseTransaction.async_transaction(session)):
        made = face(pets.create, {"id": 7, "name": "seven"})
        try:
            raise LookupError
        finally:
            face(session.rollback)
            state: Any = inspect(made)
            # As an object that was flushed: it is the session's no more, and keeps its values.
            assert (state.transient, state.persistent, made.name) == (True, False, "seven")


def test_what_is_pending_is_written_first(face: Face, pet: Pet) -> None:
    with face.session() as session, face.entered(DatabaseTransaction.async_transaction(session)):
        session.add(Owner(id=5, name="five", tenant_id="a"))
        made = face(face.repository(session, Pet, "a").create, {"id": 5, "name": "n", "owner_id": 5})
        assert made.owner_id == 5
