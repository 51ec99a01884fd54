"""A session that only reads: no way of writing passes, and all ways of reading work.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import MetaData, String, delete, func, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dotmac_database import (
    Database,
    DatabaseTransaction,
    MisuseError,
    RowLevelSecurity,
    SoftDeleteMixin,
    TenantIsolationError,
    create_repository,
    guard_tenants,
    restrict_to_reads,
)


class Base(DeclarativeBase):
    pass


class Person(SoftDeleteMixin, Base):
    __tablename__ = "restricted_person"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)


TABLE: Any = Person.__table__
Way = Callable[[Session], object]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(params=["guarded", "rls"])
def maker(request: pytest.FixtureRequest, database: Database) -> sessionmaker[Session]:
    rls = RowLevelSecurity(Base.metadata) if request.param == "rls" else None
    return guard_tenants(sessionmaker(database.engine), rls=rls)


@pytest.fixture(autouse=True)
def ada(database: Database) -> None:
    with Session(database.engine) as session:
        session.add_all([Person(name="ada"), Person(name="bob", is_deleted=True)])
        session.commit()


def rows(session: Session) -> Any:
    return create_repository(session, Person)


def flushed(change: Callable[[Session], object]) -> Way:
    def way(session: Session) -> None:
        change(session)
        session.flush()

    return way


def changed(session: Session) -> None:
    session.scalars(select(Person)).first().name = "eve"  # type: ignore[union-attr]


def in_transaction(way: Way) -> Way:
    def inside(session: Session) -> None:
        with DatabaseTransaction.sync_transaction(session):
            way(session)

    return inside


NEW = {"name": "eve"}
WRITES: dict[str, Way] = {
    "create": lambda session: rows(session).create(NEW),
    "bulk_create": lambda session: rows(session).bulk_create([NEW]),
    "bulk_create of many": lambda session: rows(session).bulk_create(
        [{"name": str(number)} for number in range(600)], returning=False
    ),
    "upsert": lambda session: rows(session).upsert(NEW, ["name"]),
    "bulk_upsert": lambda session: rows(session).bulk_upsert([NEW], ["name"]),
    "get_or_create": lambda session: rows(session).get_or_create(NEW, ["name"]),
    "update": lambda session: rows(session).update(1, NEW),
    "bulk_update": lambda session: rows(session).bulk_update([{"id": 1, **NEW}]),
    "update_where": lambda session: rows(session).update_where([], NEW, allow_all=True),
    "delete": lambda session: rows(session).delete(1),
    "delete for good": lambda session: rows(session).delete(1, soft_delete=False),
    "delete_where": lambda session: rows(session).delete_where([], allow_all=True),
    "restore": lambda session: rows(session).restore(2),
    "add": flushed(lambda session: session.add(Person(name="eve"))),
    "change": flushed(changed),
    "session.delete": flushed(lambda session: session.delete(session.scalars(select(Person)).first())),
    "insert": lambda session: session.execute(insert(Person).values(name="eve")),
    "update by a statement": lambda session: session.execute(update(Person).values(name="eve").where(Person.id == 1)),
    "delete by a statement": lambda session: session.execute(delete(Person)),
    "a table's insert": lambda session: session.execute(insert(TABLE).values(name="eve")),
    "a table's update": lambda session: session.connection().execute(update(TABLE).values(name="eve")),
    "raw SQL": lambda session: session.execute(text("DELETE FROM restricted_person")),
    "the driver's SQL": lambda session: session.connection().exec_driver_sql("DELETE FROM restricted_person"),
    "bulk_save_objects": lambda session: session.bulk_save_objects([Person(name="eve")]),
}
CTES: dict[str, Way] = {
    "a command in a CTE": lambda session: session.execute(
        select(func.count()).select_from(delete(TABLE).returning(TABLE.c.id).cte("gone"))
    ),
}
READS: dict[str, Way] = {
    "get_by_id": lambda session: rows(session).get_by_id(1).name,
    "list": lambda session: next(each.name for each in rows(session).list()),
    "get_by_field": lambda session: rows(session).get_by_field("name", "ada").name,
    "values": lambda session: rows(session).values("name").list()[0]["name"],
    "stream": lambda session: next(iter(rows(session).stream())).name,
    "select": lambda session: session.scalars(select(Person.name).where(Person.id == 1)).one(),
    "table": lambda session: session.execute(select(TABLE.c.name).where(TABLE.c.id == 1)).scalar_one(),
    "a CTE": lambda session: session.execute(
        select(select(TABLE.c.name).where(TABLE.c.id == 1).cte("one").c.name)
    ).scalar_one(),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("way", [*WRITES, *CTES])
def test_no_way_writes(maker: sessionmaker[Session], database: Database, way: str, inside: bool) -> None:
    if way in CTES and database.engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL alone has commands in a CTE")
    write = {**WRITES, **CTES}[way]
    with maker() as session:
        restrict_to_reads(session)
        with pytest.raises((MisuseError, TenantIsolationError)) as refused:
            (in_transaction(write) if inside else write)(session)
        session.rollback()
    assert "eve" not in str(refused.value)
    with Session(database.engine) as session:
        assert session.execute(select(TABLE.c.name, TABLE.c.is_deleted).order_by("id")).all() == [
            ("ada", False),
            ("bob", True),
        ]


@pytest.mark.parametrize("way", READS)
def test_all_ways_read(maker: sessionmaker[Session], way: str) -> None:
    with maker() as session:
        restrict_to_reads(session)
        assert READS[way](session) == "ada"


def test_a_session_that_is_not_guarded_is_refused(database: Database) -> None:
    with Session(database.engine) as session, pytest.raises(TenantIsolationError):
        restrict_to_reads(session)
