"""`get_or_create`: one row and one ``created``, however many ask at once, and no way to another tenant's row.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest
from sqlalchemy import DateTime, ForeignKey, Index, MetaData, Numeric, UniqueConstraint, event, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker, validates

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    AuditMixin,
    BaseRepository,
    DatabaseTransaction,
    DuplicateEntityError,
    LivingUnique,
    SoftDeleteMixin,
    TenantIsolationError,
    TenantMixin,
    TransactionError,
    TransactionManager,
    TransactionOptions,
    ValidationError,
    create_async_repository,
    create_repository,
    guard_tenants,
    unscoped,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The models of this module."""


class Member(TenantMixin, SoftDeleteMixin, AuditMixin, Base):
    __tablename__ = "members"
    __table_args__ = (UniqueConstraint("tenant_id", "email"), UniqueConstraint("tenant_id", "first", "last"))

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    first: Mapped[str | None]
    last: Mapped[str | None]
    score: Mapped[int] = mapped_column(default=1)


class Handle(TenantMixin, Base):
    """Its name is unique across tenants."""

    __tablename__ = "handles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Living(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "living"
    __table_args__ = (LivingUnique("email"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


class Indexed(TenantMixin, Base):
    """One unique index is on an expression, and the other on columns in an order."""

    __tablename__ = "indexed"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    rank: Mapped[int]


Index("indexed_email", Indexed.tenant_id, func.lower(Indexed.email), unique=True)
Index("indexed_rank", Indexed.tenant_id, Indexed.rank.desc(), unique=True)


class Kind(enum.Enum):
    ONE = "one"
    TWO = "two"


class Reading(Base):
    """A composite key with the tenant, whose columns are stored in other forms than those of the data."""

    __tablename__ = "readings"
    __tenant_column__ = "org"

    org: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[Kind] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    amount: Mapped[Decimal] = mapped_column("amount_stored", Numeric(10, 2), primary_key=True)
    ratio: Mapped[float] = mapped_column(primary_key=True)
    key: Mapped[UUID] = mapped_column(primary_key=True)


class Vehicle(TenantMixin, Base):
    __tablename__ = "vehicles"
    __table_args__ = (UniqueConstraint("tenant_id", "plate"),)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012 - SQLAlchemy's form

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    plate: Mapped[str]


class Truck(Vehicle):
    __tablename__ = "trucks"
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012 - SQLAlchemy's form

    id: Mapped[int] = mapped_column(ForeignKey("vehicles.id"), primary_key=True)
    load: Mapped[int]


class Currency(Base):
    __tablename__ = "currencies"

    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]

    @validates("code")
    def _upper(self, _key: str, code: str) -> str:
        return code.upper()


class MemberIn(pydantic.BaseModel):
    email: str
    score: int = 7


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


KINDS = ["plain", "guarded", "all tenants", "all tenants, guarded"]
BOUNDARIES = ["alone", "no auto_commit", "block", "block without savepoints"]


@contextmanager
def opened(face: Face, kind: str, model: Any, **options: Any) -> Iterator[tuple[Any, Any]]:
    tenant = ALL_TENANTS if kind.startswith("all") else "a"
    with face.guarded() if "guarded" in kind else face.session() as session:
        if kind == "all tenants, guarded":
            with unscoped(session, reason="test"):
                yield session, face.repository(session, model, tenant, **options)
        else:
            yield session, face.repository(session, model, tenant, **options)


@contextmanager
def within(face: Face, boundary: str, session: Any) -> Iterator[None]:
    if not boundary.startswith("block"):
        yield
        return
    begin = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    with face.entered(begin(session, savepoints=boundary == "block")):
        yield


def many(face: Face, model: Any) -> int:
    with face.database.sessions() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_it_creates_once_and_then_reads(face: Face, kind: str, boundary: str) -> None:
    data = {"email": "x", "tenant_id": "a"}
    with opened(face, kind, Member, auto_commit=boundary != "no auto_commit") as (session, members):
        with within(face, boundary, session):
            one, created = face(members.get_or_create, data, ["email"], user_id="ann")
            assert (created, one.email, one.tenant_id, one.score, one.created_by) == (True, "x", "a", 1, "ann")
            other, created = face(members.get_or_create, {**data, "score": 5}, ["email"], "ben")
            assert (created, other.id, other.score, other.updated_by) == (False, one.id, 1, "ann")
        if boundary == "no auto_commit":
            face(session.commit)
    assert many(face, Member) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_row_of_another_tenant(face: Face, kind: str, boundary: str) -> None:
    """It is neither returned nor changed, and an error says only that the value is taken."""
    with face.session() as session:
        face(face.repository(session, Handle, "b").create, {"name": "x"})
        face(face.repository(session, Member, "b").create, {"email": "x"})
    with opened(face, kind, Handle, auto_commit=boundary != "no auto_commit") as (session, handles):
        with within(face, boundary, session):
            with pytest.raises(DuplicateEntityError) as raised:
                face(handles.get_or_create, {"name": "x", "tenant_id": "a"}, ["name"])
            assert raised.value.fields == ("name",)
            assert "'b'" not in str(raised.value)
            assert face(handles.get_or_create, {"name": "y", "tenant_id": "a"}, ["name"])[1] is True
        if boundary == "no auto_commit":
            face(session.commit)
    with opened(face, kind, Member) as (_session, members):
        assert face(members.get_or_create, {"email": "x", "tenant_id": "a"}, ["email"])[1] is True
    with face.session() as session:
        rows = face(face.repository(session, Handle, ALL_TENANTS).list)
        assert sorted((row.tenant_id, row.name) for row in rows) == [("a", "y"), ("b", "x")]
    assert many(face, Member) == 2


@pytest.mark.parametrize("kind", KINDS[:2])
def test_data_that_name_another_tenant(face: Face, kind: str) -> None:
    with face.session() as session:
        face(face.repository(session, Member, "b").create, {"email": "x"})
    with opened(face, kind, Member) as (_session, members), pytest.raises(TenantIsolationError):
        face(members.get_or_create, {"email": "x", "tenant_id": "b"}, ["email", "tenant_id"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_deleted_row(face: Face, kind: str, boundary: str) -> None:
    with face.session() as session:
        for model in (Member, Living):
            repository = face.repository(session, model, "a")
            face(repository.delete, face(repository.create, {"email": "x"}).id)
    with opened(face, kind, Member, auto_commit=boundary != "no auto_commit") as (session, members):
        with (
            within(face, boundary, session),
            pytest.raises(DuplicateEntityError, match="soft-deleted: email") as raised,
        ):
            face(members.get_or_create, {"email": "x", "tenant_id": "a"}, ["email"])
        assert raised.value.fields == ("email",)
    with opened(face, kind, Living) as (_session, living):
        assert face(living.get_or_create, {"email": "x", "tenant_id": "a"}, ["email"])[1] is True
        assert face(living.get_or_create, {"email": "x", "tenant_id": "a"}, ["email"])[1] is False
    assert (many(face, Member), many(face, Living)) == (1, 2)


def test_values_are_looked_for_in_their_stored_form(face: Face) -> None:
    key = "6f1c7d3e-7d0c-4f0a-9a55-0d3b7b9c1f00"
    moment = "2026-01-02T03:04:05.678901+02:00"
    data = {"kind": "two", "at": moment, "amount": "1.5", "ratio": 0.1, "key": key}
    fields = ["kind", "at", "amount", "ratio", "key"]
    with face.session() as session:
        for tenant in (1, "2"):
            readings = face.repository(session, Reading, tenant)
            row, created = face(readings.get_or_create, data, fields)
            assert (row.org, row.kind, row.amount, created) == (int(tenant), Kind.TWO, Decimal("1.50"), True)
            assert (
                face(readings.get_or_create, {**data, "amount": Decimal("1.50"), "kind": Kind.TWO}, fields)[1] is False
            )
    assert many(face, Reading) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_joined_inheritance(face: Face, kind: str) -> None:
    with opened(face, kind, Truck) as (session, trucks):
        data = {"plate": "x", "load": 3, "tenant_id": "a"}
        assert face(trucks.get_or_create, data, ["plate"])[1] is True
        row, created = face(trucks.get_or_create, data, ["plate"])
        assert (row.load, created) == (3, False)
        face(session.commit)
    with opened(face, kind, Vehicle) as (session, vehicles):
        row, created = face(vehicles.get_or_create, {"plate": "x", "tenant_id": "a"}, ["plate"])
        assert (type(row), created) == (Truck, False)
        face(vehicles.create, {"plate": "y", "tenant_id": "a"})
        face(session.commit)
    with opened(face, kind, Truck) as (_session, trucks), pytest.raises(DuplicateEntityError):
        face(trucks.get_or_create, {"plate": "y", "load": 3, "tenant_id": "a"}, ["plate"])


def test_another_unique_constraint(face: Face) -> None:
    with opened(face, "plain", Member) as (_session, members):
        face(members.create, {"email": "x", "first": "A", "last": "B"})
        with pytest.raises(DuplicateEntityError) as raised:
            face(members.get_or_create, {"email": "y", "first": "A", "last": "B"}, ["email"])
        assert raised.value.fields == ("first", "last")
        found, created = face(members.get_or_create, {"email": "y", "first": "A", "last": "B"}, ["last", "first"])
        assert (found.email, created) == ("x", False)


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        ({"email": "x"}, ["score"], "no unique constraint"),
        ({"email": "x"}, [], "match_fields must name columns"),
        ({"email": "x"}, ["emial"], "did you mean 'email'"),
        ({"email": "x", "first": "A"}, ["first", "last"], "Member.last must be set"),
        ({"email": "x", "first": "A", "last": None}, ["first", "last"], "Member.last must be set"),
        ({"email": func.lower("x")}, ["email"], "Member.email must be set"),
        ({"email": "x", "nothing": 1}, ["email"], "no field 'nothing'"),
    ],
)
def test_what_is_refused(face: Face, data: dict[str, Any], fields: list[str], message: str) -> None:
    with opened(face, "plain", Member) as (_session, members), pytest.raises(ValidationError, match=message):
        face(members.get_or_create, data, fields)


@pytest.mark.parametrize("method", ["get_or_create", "upsert"])
def test_an_index_on_an_expression_is_not_one_on_its_column(face: Face, method: str) -> None:
    data = {"email": "a@x", "rank": 1}
    with opened(face, "plain", Indexed) as (_session, rows):
        with pytest.raises(ValidationError, match="no unique constraint is on email; there are: id; rank, tenant_id"):
            face(getattr(rows, method), data, ["email"])
        face(getattr(rows, method), data, ["rank"])
        face(getattr(rows, method), data, ["rank"])
        assert face(rows.count) == 1


def test_hooks_constructors_and_validators(face: Face) -> None:
    base: Any = AsyncRepository if face.is_async else BaseRepository

    class Members(base):  # type: ignore[misc]  # the base depends on the face
        def values_for_create(self, values: dict[str, Any]) -> dict[str, Any]:
            return {**values, "email": values["email"].strip()}

    with face.session() as session:
        members = Members(session, Member, "a")
        assert face(members.get_or_create, MemberIn(email=" x"), ["email"])[1] is True
        row, created = face(members.get_or_create, MemberIn(email="x "), ["email"])
        assert (row.email, row.score, created) == ("x", 7, False)
        currencies = face.repository(session, Currency)
        assert face(currencies.get_or_create, {"code": "eur"}, ["code"])[1] is True
        row, created = face(currencies.get_or_create, {"code": "Eur"}, "code")
        assert (row.code, created) == ("EUR", False)


def test_an_overridden_create_is_used(face: Face) -> None:
    if face.is_async:

        class AsyncMembers(AsyncRepository[Member]):
            async def create(self, data: Any, user_id: str | None = None) -> Member:
                return await super().create({**data, "score": 9}, user_id)

        kind: Any = AsyncMembers
    else:

        class Members(BaseRepository[Member]):
            def create(self, data: Any, user_id: str | None = None) -> Member:
                return super().create({**data, "score": 9}, user_id)

        kind = Members
    with face.session() as session:
        assert face(kind(session, Member, "a").get_or_create, {"email": "x"}, ["email"])[0].score == 9


def test_the_statements(face: Face) -> None:
    with opened(face, "plain", Member) as (_session, members):
        for words in (["SELECT", "INSERT"], ["SELECT"]):
            with counted(face.engine) as sent:
                face(members.get_or_create, {"email": "x"}, ["email"])
            assert [each.split()[0] for each in sent if each not in ("BEGIN", "COMMIT", "ROLLBACK")] == words


TASKS = 20


@pytest.mark.parametrize("is_guarded", [False, True], ids=["plain", "guarded"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_many_at_once(face: Face, is_guarded: bool, boundary: str) -> None:
    """Twenty threads or tasks ask at once, each on its own session."""
    auto_commit, savepoints = boundary != "no auto_commit", boundary == "block"
    data = {"email": "x"}

    def ask(number: int) -> bool:
        maker: Any = sessionmaker(face.engine)
        with (guard_tenants(maker) if is_guarded else face.database.sessions)() as session:
            members = create_repository(session, Member, "a", auto_commit)
            if boundary.startswith("block"):
                with DatabaseTransaction.sync_transaction(session, savepoints=savepoints):
                    members.create({"email": f"other {number}"})
                    return members.get_or_create(data, ["email"])[1]
            created = members.get_or_create(data, ["email"])[1]
            session.commit()
            return created

    async def ask_async(number: int) -> bool:
        maker: Any = async_sessionmaker(face.database.async_engine)
        async with (guard_tenants(maker) if is_guarded else face.database.async_sessions)() as session:
            members = create_async_repository(session, Member, "a", auto_commit)
            if boundary.startswith("block"):
                async with DatabaseTransaction.async_transaction(session, savepoints=savepoints):
                    await members.create({"email": f"other {number}"})
                    return (await members.get_or_create(data, ["email"]))[1]
            created = (await members.get_or_create(data, ["email"]))[1]
            await session.commit()
            return created

    async def ask_all() -> list[bool]:
        return await asyncio.gather(*map(ask_async, range(TASKS)))

    if face.is_async:
        answers = face.runner.run(ask_all())
    else:
        with ThreadPoolExecutor(TASKS) as pool:
            answers = list(pool.map(ask, range(TASKS)))
    assert sorted(answers) == [False] * (TASKS - 1) + [True]
    assert many(face, Member) == (1 + TASKS if boundary.startswith("block") else 1)


@contextmanager
def inserting_before(face: Face, words: str) -> Iterator[None]:
    """Another session inserts and commits the row just before the first statement of this kind is sent."""
    inserted: list[bool] = []

    def insert(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not inserted and statement.startswith(words):
            inserted.append(True)
            with face.database.sessions() as other:
                create_repository(other, Member, "a").create({"email": "x"})

    event.listen(face.engine, "before_cursor_execute", insert)
    try:
        yield
    finally:
        event.remove(face.engine, "before_cursor_execute", insert)


@pytest.mark.parametrize("kind", ["plain", "guarded"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_row_that_appears_after_the_select(face: Face, kind: str, boundary: str) -> None:
    """Also on SQLite, where a transaction that has read can't write after another one has, it is found."""
    with opened(face, kind, Member, auto_commit=boundary != "no auto_commit") as (session, members):
        with inserting_before(face, "INSERT"), within(face, boundary, session):
            row, created = face(members.get_or_create, {"email": "x"}, ["email"])
            face(members.create, {"email": "y"})
        assert (row.email, created) == ("x", False)
        face(session.commit)
    assert many(face, Member) == 2


def test_a_transaction_that_has_read_is_run_again_on_sqlite(face: Face) -> None:
    """It can't write after another one has. The error is transient, so that `TransactionManager` runs it again."""
    runs: list[Any] = []

    def ask(session: Any) -> Any:
        members = face.repository(session, Member, "a")

        def sync() -> Any:
            runs.append(members.count())
            return members.get_or_create({"email": "x"}, ["email"])[1]

        async def asynchronous() -> Any:
            runs.append(await members.count())
            return (await members.get_or_create({"email": "x"}, ["email"]))[1]

        return asynchronous() if face.is_async else sync()

    maker = face.database.async_sessions if face.is_async else face.database.sessions
    manager = TransactionManager(maker, retry_delay=0.001)
    run = manager.async_execute_with_retry if face.is_async else manager.execute_with_retry
    with inserting_before(face, "INSERT"):
        assert face(run, ask) is False
    assert runs == ([0, 1] if face.engine.dialect.name == "sqlite" else [0])
    assert many(face, Member) == 1


def test_what_the_session_has_not_flushed_yet_is_written(face: Face) -> None:
    with opened(face, "plain", Member, auto_commit=False) as (session, members):
        session.add(Member(tenant_id="a", email="pending"))
        assert face(members.get_or_create, {"email": "x"}, ["email"])[1] is True
        face(session.commit)
    assert many(face, Member) == 2


def test_a_row_that_exists_leaves_the_transaction_as_it_is(face: Face) -> None:
    with face.session() as session:
        face(face.repository(session, Member, "a").create, {"email": "x"})
    with opened(face, "plain", Member, auto_commit=False) as (session, members), counted(face.engine) as sent:
        for _ in range(2):
            assert face(members.get_or_create, {"email": "x"}, ["email"])[1] is False
        face(session.commit)
    assert [each.split()[0] for each in sent if each not in ("BEGIN", "COMMIT", "ROLLBACK")] == ["SELECT"] * 2


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("boundary", BOUNDARIES[2:])
def test_a_row_that_the_transaction_can_not_see(face: Face, level: str, boundary: str) -> None:
    if face.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no isolation levels.")
    begin = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    options = TransactionOptions(isolation_level=level)

    def ask() -> Any:
        with face.session() as session:
            members = face.repository(session, Member, "a")
            with face.entered(begin(session, options, savepoints=boundary == "block")):
                return face(members.get_or_create, {"email": "x"}, ["email"])

    with inserting_before(face, "INSERT"):
        if level == "READ COMMITTED":
            assert ask()[1] is False
        else:
            with pytest.raises(TransactionError) as raised:
                ask()
            assert raised.value.transient
    assert ask()[1] is False
    assert many(face, Member) == 1


def test_of_a_mock(face: Face) -> None:
    members: Any = (AsyncMockRepository if face.is_async else MockRepository)(Member, tenant_id="t")
    assert face(members.get_or_create, {"email": "x"}, ["email"])[1] is True
    assert face(members.get_or_create, {"email": "x"}, ["email"])[1] is False
    assert face(members.count) == 1
