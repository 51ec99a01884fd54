"""Columns that are loaded only when they are asked for, in every method that writes and reads.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, UniqueConstraint, func, select, text
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, undefer, validates

from dotmac_database import (
    CursorPaginationParams,
    LazyLoadError,
    QueryFilter,
    QueryOptions,
    SoftDeleteMixin,
    SortField,
    SortOrder,
    TenantMixin,
    create_database,
)
from dotmac_database.models import VersionMixin
from dotmac_database.testing import InMemoryDatabase
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """Classes with deferred columns."""


class Lazy(TenantMixin, SoftDeleteMixin):
    """Each way to put a column off."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    body: Mapped[str | None] = mapped_column(deferred=True)
    kind: Mapped[str] = mapped_column(deferred=True, default="plain")
    made: Mapped[int] = mapped_column(deferred=True, server_default=text("7"))
    first: Mapped[str | None] = mapped_column(deferred=True, deferred_group="names")
    last: Mapped[str | None] = mapped_column(deferred=True, deferred_group="names")
    secret: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)


class Page(Lazy, Base):
    __tablename__ = "lazy_pages"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)


class Counted(Lazy, VersionMixin, Base):
    __tablename__ = "lazy_counted"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)


class Checked(Lazy, Base):
    """A class that the unit of work must write."""

    __tablename__ = "lazy_checked"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    @validates("body")
    def checked(self, _key: str, value: Any) -> Any:
        return value


class Computing(Lazy, Base):
    __tablename__ = "lazy_computing"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)


Computing.letters = column_property(func.length(Computing.name), deferred=True)


class Parent(Lazy, Base):
    __tablename__ = "lazy_parents"
    __mapper_args__ = {"polymorphic_on": "sort", "polymorphic_identity": "parent"}  # noqa: RUF012
    sort: Mapped[str] = mapped_column(String(20))


class Child(Parent):
    __tablename__ = "lazy_children"
    __mapper_args__ = {"polymorphic_identity": "child"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("lazy_parents.id"), primary_key=True)
    inner: Mapped[str | None] = mapped_column(deferred=True)


MODELS = (Page, Counted, Checked, Computing, Child)
GIVEN = {"name": "n", "body": "b", "first": "f", "secret": "s"}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def model(request: pytest.FixtureRequest) -> Any:
    return request.param


def create(face: Face, repository: Any) -> Any:
    return face(repository.create, dict(GIVEN))


def row_to_change(face: Face, repository: Any) -> int:
    made = create(face, repository)
    key: int = made.id
    repository.db.expunge_all()
    return key


def update(face: Face, repository: Any) -> Any:
    return face(repository.update, row_to_change(face, repository), {"body": "c"})


def update_of_what_is_held(face: Face, repository: Any) -> Any:
    return face(repository.update, create(face, repository).id, {"first": "g"})


def update_of_nothing(face: Face, repository: Any) -> Any:
    return face(repository.update, row_to_change(face, repository), {})


def update_of_a_plain_column(face: Face, repository: Any) -> Any:
    return face(repository.update, row_to_change(face, repository), {"name": "m"})


def restore(face: Face, repository: Any) -> Any:
    key = row_to_change(face, repository)
    face(repository.delete, key)
    return face(repository.restore, key)


def bulk_create(face: Face, repository: Any) -> Any:
    return face(repository.bulk_create, [{**GIVEN, "name": f"n{n}"} for n in range(3)])[0]


def bulk_create_of_many(face: Face, repository: Any) -> Any:
    return face(repository.bulk_create, [{**GIVEN, "name": f"n{n}"} for n in range(30)])[7]


def bulk_create_with_keys(face: Face, repository: Any) -> Any:
    return face(repository.bulk_create, [{**GIVEN, "id": n + 1, "name": f"n{n}"} for n in range(30)])[7]


def upsert_of_a_new_row(face: Face, repository: Any) -> Any:
    return face(repository.upsert, dict(GIVEN), ["name"])


def upsert_of_an_old_row(face: Face, repository: Any) -> Any:
    row_to_change(face, repository)
    return face(repository.upsert, {"name": "n", "body": "c"}, ["name"])


def bulk_upsert(face: Face, repository: Any) -> Any:
    create(face, repository)
    return face(repository.bulk_upsert, [{"name": f"n{n or ''}", "body": "c"} for n in range(30)], ["name"])[0]


WRITES: tuple[Callable[[Face, Any], Any], ...] = (
    *(create, update, update_of_what_is_held, update_of_nothing, update_of_a_plain_column, restore),
    *(bulk_create, bulk_create_of_many, bulk_create_with_keys),
    *(upsert_of_a_new_row, upsert_of_an_old_row, bulk_upsert),
)


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_what_a_write_gives_back_is_readable_without_another_statement(
    face: Face, model: Any, write: Callable[[Face, Any], Any]
) -> None:
    if "upsert" in write.__name__ and model is Child:
        pytest.skip("A class of several tables has no upsert.")
    with face.session() as session:
        with counted(face.engine) as sent:
            entity = write(face, face.repository(session, model, "a"))
        # The columns that are put off take no statement each.
        assert (
            "bulk" in write.__name__ or len([each for each in sent if each not in ("BEGIN", "COMMIT", "ROLLBACK")]) <= 9
        ), sent
        with counted(face.engine) as sent:
            held = {each.key: getattr(entity, each.key) for each in sa_inspect(model).column_attrs}
        assert sent == []
    with face.session() as session:
        every = [undefer(getattr(model, each.key)) for each in sa_inspect(model).column_attrs]
        again = face(session.get, model, entity.id, options=every)
        assert held == {key: getattr(again, key) for key in held}
    assert (held["kind"], held["made"], held["tenant_id"]) == ("plain", 7, "a")


def test_a_strict_repository_refuses_the_loads_of_deferred_columns(face: Face, model: Any) -> None:
    with face.session() as session:
        repository = face.repository(session, model, "a").strict()
        for write in WRITES:
            if "upsert" in write.__name__ and model is Child:
                continue
            entity = write(face, repository)
            with counted(face.engine) as sent:
                for each in sa_inspect(model).column_attrs:
                    getattr(entity, each.key)
            assert sent == []
            face(repository.delete_where, [], soft_delete=False, allow_all=True)
        key = create(face, repository).id
    for undeferred in ((), ("body",)):
        with face.session() as session:
            repository = face.repository(session, model, "a").strict()
            if undeferred:
                repository = repository.undefer(*undeferred)
            entity = face(repository.get_by_id, key)
            with counted(face.engine) as sent:
                if undeferred:
                    assert entity.body == "b"
                else:
                    with pytest.raises(LazyLoadError, match=r'body .*undefer\("body"\)'):
                        entity.body  # noqa: B018 - the use loads it
                with pytest.raises(LazyLoadError, match=r'first .*undefer\("first"\)'):
                    entity.first  # noqa: B018
            assert sent == []


def test_reads_leave_out_what_is_put_off_and_use_it_all_the_same(face: Face, model: Any) -> None:
    with face.session() as session:
        repository = face.repository(session, model, "a")
        face(repository.bulk_create, [{"name": f"n{n}", "body": f"b{n % 3}", "secret": f"s{n}"} for n in range(7)])
    with face.session() as session:
        repository = face.repository(session, model, "a")
        found = face(repository.first, {"filters": [QueryFilter("secret", value="s3")]})
        assert "body" in sa_inspect(found).unloaded
        for field in ("body", "secret", "made", "first"):
            for ascending in (True, False):
                names: list[str] = []
                cursor = None
                while True:
                    page = CursorPaginationParams(2, cursor, field, ascending)
                    with counted(face.engine) as sent:
                        result = face(repository.cursor_paginate, QueryOptions(cursor_pagination=page))
                    assert len([each for each in sent if each.startswith("SELECT")]) <= 2, sent
                    names += [each.name for each in result.items]
                    cursor = result.next_cursor
                    if cursor is None:
                        break
                assert sorted(names) == [f"n{n}" for n in range(7)], (field, ascending)
            listed = face(repository.list, {"sorts": [SortField(field)]})
            assert len(listed) == 7
            session.expunge_all()
            streamed = face(repository.stream, {"sorts": [SortField(field, SortOrder.DESC)]}, 2)
            assert sorted(each.name for each in streamed) == [f"n{n}" for n in range(7)]
        values = face(
            repository.values("name", "body", "secret").list, {"sorts": [SortField("secret", SortOrder.DESC)]}
        )
        assert values[0] == {"name": "n6", "body": "b0", "secret": "s6"}
        assert face(repository.distinct_values, "body") == ["b0", "b1", "b2"]
        assert face(repository.update_where, [QueryFilter("body", value="b0")], {"secret": "x"}) == 3


# The driver leaves a coroutine behind where it can't await one, and warns of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine 'Connection.cursor' was never awaited:RuntimeWarning")
def test_a_memory_database_outlives_a_lazy_load_outside_of_its_loop() -> None:
    """The load fails; the connection, and with it the database, stays."""

    async def work() -> None:
        async with InMemoryDatabase(Base.metadata) as session:
            session.add(Page(tenant_id="a", name="n", body="b"))
            await session.commit()
            session.expunge_all()
            for commit in (False, True, False):
                page = (await session.scalars(select(Page))).one()
                if commit:
                    await session.commit()
                with pytest.raises(SQLAlchemyError, match=r"greenlet|can be awaited"):
                    page.body  # noqa: B018 - that it is asked for is the point
                await session.rollback()
                session.expunge_all()
            assert (await session.scalars(select(Page))).one().name == "n"

    asyncio.run(work())
    gc.collect()  # the warnings are this test's


def test_a_memory_database_outlives_a_cancelled_statement() -> None:
    async def work() -> None:
        database = create_database("sqlite://")
        async with database.async_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with database.async_sessions() as session:
            session.add(Page(tenant_id="a", name="n", body="b"))
            await session.commit()
        count = text(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000000) SELECT sum(x) FROM n"
        )

        async def cancelled() -> None:
            async with database.async_sessions() as session:
                session.add(Page(tenant_id="a", name="lost", body="b"))
                await session.flush()
                await session.execute(count)
                await session.commit()

        for _ in range(2):
            task = asyncio.create_task(cancelled())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with database.async_sessions() as session:
                assert [page.name for page in await session.scalars(select(Page))] == ["n"]
        await database.dispose_async()

    asyncio.run(work())
