"""Sessions whose engine depends on the class: `Session(binds=…)`, and `get_bind` of the user's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlmodel import Field, SQLModel

from dotmac_database import (
    DatabaseTransaction,
    DuplicateEntityError,
    QueryFilter,
    SortField,
    TransactionError,
    ValidationError,
    async_once,
    create_database,
    guard_tenants,
    idempotency_metadata,
    on_commit,
    once,
)
from dotmac_database.models import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from tests.conftest import Face

F = QueryFilter


class Base(DeclarativeBase):
    """The classes of one database."""


class Row(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "bound_rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Other(Base):
    __tablename__ = "bound_others"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Gadget(SQLModel, table=True):
    __tablename__ = "bound_gadgets"
    id: int = Field(primary_key=True)
    name: str


Bound = Callable[[Any, Any], dict[str, Any]]


def _routing(base: type[Any]) -> type[Any]:
    """A session class that asks its own rule, as SQLAlchemy's documentation has it."""

    class Routing(base):  # type: ignore[misc]  # the class is known at run time only
        engines: tuple[Any, Any]

        def get_bind(self, mapper: Any = None, **_: Any) -> Any:
            if mapper is None:
                raise AssertionError("which class it is about was not said")
            first, second = self.info["engines"]
            return second if inspect(mapper).class_ is Other else first

    return Routing


SHAPES: dict[str, Bound] = {
    "by base": lambda one, two: {"binds": {Base: one, SQLModel: two}},
    "by class": lambda one, two: {"binds": {Row: one, Other: two, Gadget: one}},
    "by mapper": lambda one, two: {"binds": {inspect(Row): one, inspect(Other): two, inspect(Gadget): one}},
    "by table": lambda one, two: {"binds": {Row.__table__: one, Other.__table__: two, Gadget.__table__: one}},
    "by class, and one for the rest": lambda one, two: {"bind": one, "binds": {Other: two}},
    "a rule": lambda one, two: {"info": {"engines": (one, two)}},
}


@pytest.fixture(scope="module")
def other(_runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A second database: SQLite, beside either."""
    database = create_database(f"sqlite:///{tmp_path_factory.mktemp('other')}/other.db")
    Base.metadata.create_all(database.engine)
    SQLModel.metadata.create_all(database.engine, tables=[Gadget.__table__])
    yield database
    if "async_engine" in database.__dict__:
        _runner.run(database.async_engine.dispose())
    database.dispose()


@pytest.fixture(scope="module")
def tables() -> Any:
    Gadget.__table__.to_metadata(Base.metadata) if "bound_gadgets" not in Base.metadata.tables else None
    return Base.metadata


@pytest.fixture(autouse=True)
def _emptied(other: Any) -> Iterator[None]:
    yield
    with other.engine.begin() as connection:
        for table in (Row.__table__, Other.__table__, Gadget.__table__):
            connection.execute(table.delete())


@pytest.fixture(params=SHAPES)
def maker(request: pytest.FixtureRequest, face: Face, other: Any) -> Any:
    """Makes sessions of one shape."""
    engines = (face.database.engine, other.engine)
    if face.is_async:
        engines = (face.database.async_engine, other.async_engine)
        if request.param == "a rule":
            engines = tuple(each.sync_engine for each in engines)
    options = SHAPES[request.param](*engines)
    if request.param == "a rule":
        if face.is_async:
            return async_sessionmaker(sync_session_class=_routing(Session), expire_on_commit=False, **options)
        return sessionmaker(class_=_routing(Session), expire_on_commit=False, **options)
    if face.is_async:
        return async_sessionmaker(class_=AsyncSession, expire_on_commit=False, **options)
    return sessionmaker(expire_on_commit=False, **options)


def _everything(face: Face, session: Any, model: type[Any], tenant: Any = None) -> None:
    """Every method of a repository, on one session."""
    rows = face.repository(session, model, tenant)
    versioned = rows.traits.version is not None
    assert face(rows.create, {"id": 1, "name": "one"}).name == "one"
    assert len(face(rows.bulk_create, [{"id": n, "name": f"n{n}"} for n in range(2, 6)])) == 4
    assert face(rows.bulk_create, [{"id": n, "name": f"n{n}"} for n in range(10, 700)], returning=False) == 690
    if versioned:
        assert face(rows.upsert, {"id": 7, "name": "one"}, ["name"]).id == 1
        assert face(rows.update, 1, {"name": "uno"}, expected_version=2).version == 3
        assert len(face(rows.bulk_upsert, [{"id": 8, "name": "n2"}, {"id": 9, "name": "n3"}], ["name"])) == 2
        with pytest.raises(DuplicateEntityError):
            face(rows.create, {"id": 1, "name": "again"})
    assert face(rows.update, 1, {"name": "uno"}).name == "uno"
    assert face(rows.bulk_update, [{"id": 2, "name": "two"}, {"id": 3, "name": "three"}]) == 2
    assert face(rows.update_where, [F("id", "lt", 4)], {"name": "x"} if not versioned else {"is_deleted": False}) == 3
    assert len(face(rows.list, {"pagination": {"page": 1, "per_page": 3}})) == 3
    assert face(rows.list_paginated, {"sorts": [SortField("id", "desc")]}).total == 695
    assert len(face(rows.cursor_paginate).items) == 20
    assert len(face(rows.stream)) == 695
    assert len(face(rows.get_many, [1, 2, 3])) == 3
    assert face(rows.get_by_id, 1) is not None
    assert face(rows.get_by_field, "id", 2) is not None
    assert face(rows.exists, 1)
    assert face(rows.count) == 695
    assert len(face(rows.distinct_values, "id")) == 695
    assert face(rows.aggregate, {"n": "count"})[0]["n"] == 695
    assert face(rows.in_batches, lambda batch: None, batch_size=400) == 695
    face(rows.explain)
    assert face(rows.delete, 1)
    if versioned:
        assert face(rows.restore, 1).id == 1
    assert face(rows.delete, 5, soft_delete=False)
    assert face(rows.delete_where, [F("id", "gte", 10)]) == 690


@pytest.mark.parametrize("model", [Row, Other, Gadget])
def test_every_method_goes_to_the_engine_of_its_class(face: Face, maker: Any, model: Any) -> None:
    session = maker()
    try:
        _everything(face, session, model, "a" if model is Row else None)
    finally:
        face(session.close)


def _transaction(face: Face, session: Any) -> Any:
    made = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    return face.entered(made(session))


def _undone(face: Face, session: Any, number: int) -> None:
    with _transaction(face, session):
        face(face.repository(session, Other).create, {"id": number, "name": "undone"})
        face(face.repository(session, Row, "a").create, {"id": number, "name": "undone"})
        _ = 1 / 0


def test_transactions_and_savepoints_hold_both(face: Face, maker: Any) -> None:
    session, called = maker(), list[str]()
    rows, others = face.repository(session, Row, "a"), face.repository(session, Other)
    try:
        with _transaction(face, session):
            on_commit(session, lambda: called.append("committed"))
            face(rows.create, {"id": 1, "name": "one"})
            face(others.create, {"id": 1, "name": "one"})
            with pytest.raises(ZeroDivisionError):
                _undone(face, session, 2)
            with pytest.raises(DuplicateEntityError):
                face(others.create, {"id": 1, "name": "again"})
            with _transaction(face, session):
                face(rows.create, {"id": 3, "name": "three"})
        assert called == ["committed"]
        with pytest.raises(ZeroDivisionError), _transaction(face, session):
            _undone(face, session, 4)
        assert [each.id for each in face(rows.list)] == [1, 3]
        assert [each.id for each in face(others.list)] == [1]
    finally:
        face(session.close)


def test_a_guarded_session_is_confined_on_both(face: Face, maker: Any) -> None:
    guarded = guard_tenants(maker)
    for tenant, number in (("a", 1), ("b", 2)):
        session = guarded()
        face(face.repository(session, Row, tenant).create, {"id": number, "name": tenant})
        face(session.close)
    session = guarded()
    try:
        rows = face.repository(session, Row, "a")
        assert [each.id for each in face(rows.list)] == [1]
        assert [each.id for each in face(rows.get_many, [1, 2])] == [1]
        assert face(rows.delete, 2) is False
        run = session.run_sync if face.is_async else lambda work: work(session)
        assert face(run, lambda s: [each.id for each in s.scalars(select(Row))]) == [1]
        face(face.repository(session, Other).create, {"id": 1, "name": "one"})
    finally:
        face(session.close)


def test_what_is_about_no_class_takes_the_only_engine_there_is(face: Face, maker: Any, other: Any) -> None:
    """Keys and options of transactions; where there are several engines, it is said so."""
    idempotency_metadata.create_all(face.database.engine)
    idempotency_metadata.create_all(other.engine)
    session = maker()
    work = async_once if face.is_async else once
    try:
        with _transaction(face, session):
            if maker.kw.get("bind") is not None:
                assert face(work, session, "key").first
            elif maker.kw.get("binds"):
                with pytest.raises(TransactionError, match="several engines"):
                    face(work, session, "key")
    finally:
        face(session.close)
        idempotency_metadata.drop_all(face.database.engine)


def test_one_engine_for_every_class_is_enough(face: Face) -> None:
    idempotency_metadata.create_all(face.database.engine)
    engine = face.database.async_engine if face.is_async else face.database.engine
    session = (async_sessionmaker if face.is_async else sessionmaker)(binds={Base: engine})()
    try:
        with _transaction(face, session):
            assert face(async_once if face.is_async else once, session, "key").first
            with pytest.raises(ValidationError):
                face(async_once if face.is_async else once, session, "key", tenant_id=["a"])
    finally:
        face(session.close)
        idempotency_metadata.drop_all(face.database.engine)
