"""The history of tables that are not plain: partitioned, with a schema, emptied, and of SQLModel's classes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import Field, SQLModel

from dotmac_database import Database, HistoryMixin, acting_as, create_database, create_repository
from dotmac_database.sqlmodel import HistoryMixin as SQLModelHistoryMixin
from dotmac_database.sqlmodel import SoftDeleteMixin, TenantMixin
from dotmac_database.types import utc_now


class Base(DeclarativeBase):
    """The tables of these tests."""


class Reading(HistoryMixin, Base):
    __tablename__ = "history_readings"
    __table_args__ = ({"postgresql_partition_by": "RANGE (day)"},)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    day: Mapped[date] = mapped_column(primary_key=True)
    value: Mapped[int]


class Ship(HistoryMixin, Base):
    __tablename__ = "ships"
    __table_args__ = ({"schema": "history_harbour"},)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    crew: Mapped[list[Sailor]] = relationship(order_by="Sailor.id")


class Sailor(HistoryMixin, Base):
    __tablename__ = "sailors"
    __table_args__ = ({"schema": "history_harbour"},)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    ship_id: Mapped[int] = mapped_column(ForeignKey("history_harbour.ships.id"))


class Lease(SQLModelHistoryMixin, TenantMixin, SoftDeleteMixin, table=True):
    __tablename__ = "history_leases"

    id: int | None = Field(default=None, primary_key=True)
    title: str
    iban: str | None = Field(default=None, sa_column_kwargs={"info": {"private": True}})


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> Iterator[Database]:
    database = create_database(postgres_url)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA history_harbour"))
        Base.metadata.create_all(connection)
        for year in (2025, 2026):
            connection.execute(
                text(
                    f"CREATE TABLE history_readings_{year} PARTITION OF history_readings "
                    f"FOR VALUES FROM ('{year}-01-01') TO ('{year + 1}-01-01')"
                )
            )
    yield database
    with database.engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.execute(text("DROP SCHEMA history_harbour CASCADE"))
    database.dispose()


def test_a_partitioned_table(postgres: Database) -> None:
    """By the parent, by a partition, and by a move from one partition to another."""
    with postgres.sessions() as session:
        readings = create_repository(session, Reading)
        with acting_as("alice"):
            readings.create({"id": 1, "day": date(2025, 5, 1), "value": 1})
            readings.update((1, date(2025, 5, 1)), {"value": 2})
        then = utc_now()
        time.sleep(0.003)
        session.execute(text("UPDATE history_readings_2025 SET value = 3"))
        session.execute(text("UPDATE history_readings SET day = '2026-05-01'"))
        session.commit()
        operations = [(each.operation, each.actor) for each in readings.history((1, date(2025, 5, 1)))]
        assert operations == [("create", "alice"), ("update", "alice"), ("update", None), ("delete", None)]
        assert [each.operation for each in readings.history((1, date(2026, 5, 1)))] == ["create"]
        [past] = readings.as_of(then).list()
        assert (past.day, past.value) == (date(2025, 5, 1), 2)
        session.execute(text("TRUNCATE history_readings"))
        session.commit()
        assert [each.operation for each in readings.history((1, date(2026, 5, 1)))] == ["create", "delete"]


def test_tables_with_a_schema_that_are_emptied(postgres: Database) -> None:
    with postgres.sessions() as session:
        ships, sailors = create_repository(session, Ship), create_repository(session, Sailor)
        ships.create({"id": 1, "name": "Argo"})
        sailors.create({"id": 1, "name": "Iason", "ship_id": 1})
        then = utc_now()
        time.sleep(0.003)
        session.execute(text("TRUNCATE history_harbour.ships CASCADE"))
        session.commit()
        assert ships.list() == []
        assert [each.operation for each in sailors.history(1)] == ["create", "delete"]
        name = {"field": "crew.name", "operator": "eq", "value": "Iason"}
        [ship] = ships.as_of(then).list({"filters": [name], "relationships": ["crew"], "sorts": ["-name"]})
        assert (ship.name, [each.name for each in ship.crew]) == ("Argo", ["Iason"])


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_class_of_sqlmodel(kind: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/leases.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    database = create_database(url)
    tables = [SQLModel.metadata.tables[name] for name in ("history_leases", "history_leases_history")]
    SQLModel.metadata.create_all(database.engine, tables=tables)
    with database.sessions() as session:
        leases = create_repository(session, Lease, "acme")
        with acting_as("alice"):
            made = leases.create({"title": "Rent", "iban": "DE02"})
            leases.create({"title": "Other"})
            leases.update(made.id, {"iban": "DE03"})  # of a private column alone: no entry
            leases.update(made.id, {"title": "Rent 2026", "iban": "DE04"})
        then = utc_now()
        time.sleep(0.003)
        leases.bulk_update([{"id": made.id, "title": "Rent 2027"}])
        leases.delete(made.id)
        entries = leases.history(made.id)
        assert [each.operation for each in entries] == ["create", "update", "update", "soft_delete"]
        assert all("iban" not in {**(each.before or {}), **(each.after or {})} for each in entries)
        assert {each.title for each in leases.as_of(then).list()} == {"Rent 2026", "Other"}
        assert {each.title for each in leases.list()} == {"Other"}
    SQLModel.metadata.drop_all(database.engine, tables=tables)
    database.dispose()


@pytest.mark.parametrize("width", [49, 50, 200])
def test_sqlite_records_tables_of_any_width(width: int) -> None:
    """A function of SQLite takes at most 127 arguments by default."""
    base: Any = type("Base", (DeclarativeBase,), {})
    names = [f"c{number}" for number in range(width)]
    columns = {name: mapped_column() for name in names}
    kinds: dict[str, Any] = {"id": Mapped[int], **dict.fromkeys(names, Mapped[float | None])}
    model: Any = type("Wide", (HistoryMixin, base), {
        "__tablename__": "history_wide", "__annotations__": kinds, "id": mapped_column(primary_key=True), **columns,
    })  # fmt: skip
    database = create_database("sqlite://")
    base.metadata.create_all(database.engine)
    with database.sessions() as session:
        wide = create_repository(session, model)
        values = {name: number / 2 if number % 3 else None for number, name in enumerate(names)}
        wide.create({"id": 1, **values})
        wide.delete(1)
        created, deleted = wide.history(1)
    database.dispose()
    assert created.after == deleted.before == {"id": 1, **values}
