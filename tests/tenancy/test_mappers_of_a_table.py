"""A table that several classes are mapped on: the guard goes by what all of them tell, whatever their order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Integer, String, Table, delete, insert, join, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, sessionmaker

from dotmac_database import TenantIsolationError, UnscopedStatementError, bind_tenant, create_database, guard_tenants
from dotmac_database.tenancy.rls.policies import protected_tables

_SCRIPT = """
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from dotmac_database import TenantIsolationError, bind_tenant, create_repository, guard_tenants

class Base(DeclarativeBase):
    pass

class Ticket(Base):
    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[str] = mapped_column("tenant_id")
    size: Mapped[int]
    __tenant_column__ = "org"

columns = Ticket.__table__.c
for number in range(12):
    type(f"Open{number}", (Base,), {"__table__": select(*columns).where(columns.size > number).subquery()})

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with guard_tenants(sessionmaker(engine))() as session:
    tickets = create_repository(session, Ticket, "a")
    key = tickets.create({"size": 3}).id
    assert tickets.update_where([], {"size": 4}, allow_all=True) == 1
    session.execute(update(Ticket).values(size=5))
    session.commit()
    assert tickets.get_by_id(key).size == 5
    try:
        session.execute(update(Ticket).values(org="b"))
    except TenantIsolationError:
        print("right")
"""


@pytest.mark.parametrize("seed", range(3))
def test_writes_of_the_ordinary_class_do_not_depend_on_the_order_of_a_set(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("right\n", 0), done.stderr


class Base(DeclarativeBase):
    """Tables below a join and a select, which no other class has."""


_owners = Table("m_owner", Base.metadata, Column("id", Integer, primary_key=True), Column("org", String))
_details = Table(
    "m_detail", Base.metadata, Column("owner_id", ForeignKey("m_owner.id"), primary_key=True), Column("note", String)
)


class Joined(Base):
    __table__ = join(_owners, _details)
    __tenant_column__ = "org"
    id = column_property(_owners.c.id, _details.c.owner_id)


_notes = Table(
    "m_note", Base.metadata, Column("id", Integer, primary_key=True), Column("org", String), Column("text", String)
)


class Selected(Base):
    __table__ = select(_notes).subquery("m_selected")
    __tenant_column__ = "org"


class Plain(Base):
    __tablename__ = "m_plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]


@pytest.fixture
def engine() -> Iterator[Engine]:
    database = create_database("sqlite://")
    Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        for number, org in enumerate("ab", 1):
            connection.execute(insert(_owners), {"id": number, "org": org})
            connection.execute(insert(_details), {"owner_id": number, "note": org})
            connection.execute(insert(_notes), {"id": number, "org": org, "text": org})
    yield database.engine
    database.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with guard_tenants(sessionmaker(engine))() as made:
        bind_tenant(made, "a")
        yield made


def test_the_rows_of_a_class_on_a_select_and_on_a_join_are_the_tenants(session: Session) -> None:
    assert [each.note for each in session.scalars(select(Joined))] == ["a"]
    assert [each.text for each in session.scalars(select(Selected))] == ["a"]


@pytest.mark.parametrize("table", [_owners, _details, _notes], ids=lambda table: table.name)
def test_the_tables_below_are_tenants_tables(table: Table, session: Session) -> None:
    for statement in (select(table), update(table).values({list(table.c)[-1]: "mine"}), delete(table)):
        with pytest.raises(UnscopedStatementError):
            session.execute(statement)


def test_what_a_class_on_a_join_writes_is_the_tenants(session: Session, engine: Engine) -> None:
    held = session.scalars(select(Joined)).one()
    held.note = "new"
    session.add(Joined(id=7, note="seven"))
    session.commit()
    session.add(Joined(id=8, org="b", note="forged"))
    with pytest.raises(TenantIsolationError):
        session.flush()
    with engine.connect() as connection:
        assert connection.execute(select(_details)).all() == [(1, "new"), (2, "b"), (7, "seven")]
        assert connection.execute(select(_owners)).all() == [(1, "a"), (2, "b"), (7, "a")]


def test_row_level_security_protects_the_tables_below() -> None:
    found = protected_tables(Base.metadata)
    assert {table.name: None if column is None else column.name for table, column in found.items()} == {
        "m_detail": None,
        "m_note": "org",
        "m_owner": "org",
        "m_plain": "tenant_id",
    }


_UNREADABLE = """
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from dotmac_database import DatabaseError, bind_tenant, guard_tenants

class Base(DeclarativeBase):
    pass

class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]

class Wrong(Base):
    __tablename__ = "wrong"
    __tenant_column__ = "missing"
    id: Mapped[int] = mapped_column(primary_key=True)

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Row(tenant_id="b"))
    session.commit()
for _ in range(3):
    with guard_tenants(sessionmaker(engine))() as session:
        bind_tenant(session, "a")
        try:
            print(session.scalars(select(Row)).all())
        except DatabaseError as error:
            print(type(error).__name__)
"""


def test_a_class_that_can_not_be_read_makes_every_statement_fail_rather_than_go_unconfined() -> None:
    done = subprocess.run([sys.executable, "-c", _UNREADABLE], capture_output=True, text=True, check=False)
    assert done.stdout == "MisuseError\n" * 3, done.stdout + done.stderr
