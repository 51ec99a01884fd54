"""`delete` where other rows refer to the deleted one: the relationship's word first, then the database's rule."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, event, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, configure_mappers, mapped_column, relationship

from dotmac_database import BaseRepository, ConstraintViolationError, QueryFilter, TenantIsolationError
from dotmac_database.engines import make_engine
from dotmac_database.models import TenantMixin
from dotmac_database.repositories import deleting
from dotmac_database.testing import MockRepository
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The tables of this module."""


RULES = ("CASCADE", "SET NULL", "RESTRICT", "NO ACTION", None)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "one-way": {},
    "passive": {"passive_deletes": True},
    "passive all": {"passive_deletes": "all"},
    "cascading": {"cascade": "all, delete-orphan"},
    "cascading passively": {"cascade": "all, delete-orphan", "passive_deletes": True},
    "viewonly": {"viewonly": True},
}
MODELS: dict[tuple[str | None, bool, str], tuple[Any, Any]] = {}


def _models(place: int, rule: str | None, nullable: bool, how: str) -> tuple[Any, Any]:
    parent = type(
        f"Parent{place}",
        (Base,),
        {
            "__tablename__": f"parents_{place}",
            "id": Column(Integer, primary_key=True),
            "children": relationship(f"Child{place}", **CONFIGURATIONS[how]),
        },
    )
    child = type(
        f"Child{place}",
        (Base,),
        {
            "__tablename__": f"children_{place}",
            "id": Column(Integer, primary_key=True),
            "parent_id": Column(ForeignKey(f"parents_{place}.id", ondelete=rule), nullable=nullable),
        },
    )
    return parent, child


for _rule in RULES:
    for _nullable in (True, False):
        for _how in CONFIGURATIONS:
            MODELS[_rule, _nullable, _how] = _models(len(MODELS), _rule, _nullable, _how)


links = Table(
    "links",
    Base.metadata,
    Column("left_id", ForeignKey("lefts.id", ondelete="CASCADE"), primary_key=True),
    Column("right_id", ForeignKey("rights.id"), primary_key=True),
)


class Left(Base):
    __tablename__ = "lefts"
    id: Mapped[int] = mapped_column(primary_key=True)
    rights: Mapped[list[Right]] = relationship(secondary=links, back_populates="lefts")


class Right(Base):
    __tablename__ = "rights"
    id: Mapped[int] = mapped_column(primary_key=True)
    lefts: Mapped[list[Left]] = relationship(secondary=links, back_populates="rights")


class Top(Base):
    """The first of a chain, whose rows a listener hears of."""

    __tablename__ = "tops"
    id: Mapped[int] = mapped_column(primary_key=True)
    middles: Mapped[list[Middle]] = relationship(back_populates="top")


class Middle(Base):
    __tablename__ = "middles"
    id: Mapped[int] = mapped_column(primary_key=True)
    top_id: Mapped[int] = mapped_column(ForeignKey("tops.id", ondelete="CASCADE"))
    top: Mapped[Top] = relationship(back_populates="middles")
    bottoms: Mapped[list[Bottom]] = relationship(back_populates="middle")


class Bottom(Base):
    __tablename__ = "bottoms"
    id: Mapped[int] = mapped_column(primary_key=True)
    middle_id: Mapped[int] = mapped_column(ForeignKey("middles.id", ondelete="CASCADE"))
    middle: Mapped[Middle] = relationship(back_populates="bottoms")


class Owner(TenantMixin, Base):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    things: Mapped[list[Thing]] = relationship(cascade="all")


class Thing(TenantMixin, Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))


@pytest.fixture(scope="module")
def tables() -> MetaData:
    configure_mappers()
    return Base.metadata


def _expected(rule: str | None, nullable: bool, how: str) -> str:
    """What becomes of the child: "deleted", "cleared" or "refused", the deletion with it."""
    if how == "cascading":
        return "deleted"
    if rule == "CASCADE":
        return "deleted"
    if rule == "SET NULL":
        return "cleared" if nullable else "refused"
    if how == "one-way" and rule in ("NO ACTION", None) and nullable:
        return "cleared"
    return "refused"


def _outcome(face: Face, parent: Any, child: Any, how: str) -> tuple[str, int]:
    with face.database.engine.begin() as connection:
        connection.execute(insert(parent.__table__), [{"id": 1}, {"id": 2}])
        connection.execute(insert(child.__table__), [{"id": 1, "parent_id": 1}, {"id": 2, "parent_id": 2}])
    with face.session() as session:
        parents = face.repository(session, parent)
        with counted(face.engine) as sent:
            try:
                assert face(parents.delete, 1)
                result = ""
            except ConstraintViolationError as refused:
                told = str(child.__table__.name) if face.engine.dialect.name == "postgresql" else parent.__name__
                result = "refused" if told in str(refused) else str(refused)
    with face.database.engine.begin() as connection:
        left = dict(map(tuple, connection.execute(select(child.id, child.parent_id)).all()))
        assert left.pop(2) == 2
        there = connection.execute(select(parent.id)).scalars().all()
        assert sorted(there) == ([1, 2] if result else [2])
    result = result or ("deleted" if not left else "cleared" if left == {1: None} else "orphaned")
    return result, len([each for each in sent if each.split()[0] not in ("BEGIN", "COMMIT", "ROLLBACK")])


def test_each_rule_and_relationship(face: Face) -> None:
    wrong: list[Any] = []
    for (rule, nullable, how), (parent, child) in MODELS.items():
        found, statements = _outcome(face, parent, child, how)
        wanted = _expected(rule, nullable, how)
        by_orm = how == "cascading" or (how == "one-way" and rule in ("NO ACTION", None) and nullable)
        if found != wanted or (not by_orm and statements != 1):
            wrong.append((rule, nullable, how, found, wanted, statements))
    assert wrong == []


def test_many_to_many_goes_with_the_row(face: Face) -> None:
    with face.database.engine.begin() as connection:
        connection.execute(insert(Left), {"id": 1})
        connection.execute(insert(Right), {"id": 1})
        connection.execute(insert(links), {"left_id": 1, "right_id": 1})
    with face.session() as session, counted(face.engine) as sent:
        assert face(face.repository(session, Left).delete, 1)
    assert len([each for each in sent if "DELETE" in each or "SELECT" in each]) == 1
    with face.database.engine.begin() as connection:
        assert connection.execute(select(links)).all() == []


@pytest.fixture
def chain(face: Face) -> Face:
    with face.database.engine.begin() as connection:
        connection.execute(insert(Top), [{"id": 1}, {"id": 2}])
        connection.execute(insert(Middle), [{"id": 1, "top_id": 1}, {"id": 2, "top_id": 2}])
        connection.execute(insert(Bottom), [{"id": 1, "middle_id": 1}, {"id": 2, "middle_id": 2}])
    return face


@pytest.mark.parametrize("held", ["middles and bottoms", "bottoms"])
@pytest.mark.parametrize("by", ["key", "filter"])
def test_held_objects_of_a_chain_follow(chain: Face, held: str, by: str) -> None:
    with chain.session() as session:
        middles = chain(chain.repository(session, Middle).list, {}) if held != "bottoms" else []
        bottoms = chain(chain.repository(session, Bottom).list, {})
        tops = chain.repository(session, Top)
        if by == "key":
            assert chain(tops.delete, 1)
        else:
            assert chain(tops.delete_where, [QueryFilter("id", "eq", 1)]) == 1
        gone = [each for each in (*middles, *bottoms) if each.id == 1]
        kept = [each for each in (*middles, *bottoms) if each.id == 2]
        assert gone
        assert kept
        assert not any(each in session for each in gone)
        assert all(each in session for each in kept)


def test_many_held_objects_are_each_looked_at_a_few_times(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is not compared with all that is held: the work grows as it does."""
    looked: list[int] = []
    stored = deleting._stored

    def counting(*args: Any) -> Any:
        looked[-1] += 1
        return stored(*args)

    monkeypatch.setattr(deleting, "_stored", counting)
    for many in (50, 200):
        with face.database.engine.begin() as connection:
            rows = range(1, many + 1)
            connection.execute(Top.__table__.delete())
            connection.execute(insert(Top), [{"id": 1}, {"id": 2}])
            connection.execute(insert(Middle), [{"id": i, "top_id": 1 + i % 2} for i in rows])
            connection.execute(insert(Bottom), [{"id": i, "middle_id": i} for i in rows])
        with face.session() as session:
            middles = face(face.repository(session, Middle).list, {})
            bottoms = face(face.repository(session, Bottom).list, {})
            looked.append(0)
            assert face(face.repository(session, Top).delete, 1)
            assert sum(each in session for each in (*middles, *bottoms)) == many
    assert 0 < looked[1] <= 5 * looked[0]


def test_a_rollback_brings_held_objects_back(chain: Face) -> None:
    with chain.session() as session:
        middle = chain(chain.repository(session, Middle).get_by_id, 1)
        tops = chain.repository(session, Top, auto_commit=False)
        assert chain(tops.delete, 1)
        assert middle not in session
        chain(session.rollback)
        assert middle in session


def test_a_listener_to_the_parent_leaves_the_rule_as_it_is(chain: Face) -> None:
    heard: list[int] = []

    def hear(_mapper: Any, _connection: Any, target: Any) -> None:
        heard.append(len(target.middles))

    event.listen(Top, "before_delete", hear)
    try:
        with chain.session() as session:
            assert chain(chain.repository(session, Top).delete, 1)
    finally:
        event.remove(Top, "before_delete", hear)
    assert heard == [1]
    with chain.database.engine.begin() as connection:
        assert connection.execute(select(Bottom.id)).scalars().all() == [2]


def test_hooks_of_children_run_where_the_orm_is_asked(face: Face) -> None:
    parent, child = MODELS["CASCADE", False, "cascading"]
    heard: list[int] = []

    def hear(_mapper: Any, _connection: Any, target: Any) -> None:
        heard.append(target.id)

    with face.database.engine.begin() as connection:
        connection.execute(insert(parent.__table__), {"id": 1})
        connection.execute(insert(child.__table__), {"id": 7, "parent_id": 1})
    event.listen(child, "before_delete", hear)
    try:
        with face.session() as session:
            assert face(face.repository(session, parent).delete, 1)
    finally:
        event.remove(child, "before_delete", hear)
    assert heard == [7]


def test_the_orm_touches_no_other_tenants_children(face: Face) -> None:
    with face.database.engine.begin() as connection:
        connection.execute(insert(Owner), {"id": 1, "tenant_id": "a"})
        connection.execute(insert(Thing), {"id": 1, "tenant_id": "b", "owner_id": 1})
    with face.session() as session, pytest.raises(TenantIsolationError):
        face(face.repository(session, Owner, "a").delete, 1)
    with face.database.engine.begin() as connection:
        assert connection.execute(select(Thing.owner_id)).scalars().all() == [1]


@pytest.mark.parametrize("rule", ["CASCADE", "SET NULL", "RESTRICT", None])
@pytest.mark.parametrize("nullable", [True, False])
def test_where_the_database_does_not_act_the_rule_is_carried_out(rule: str | None, nullable: bool) -> None:
    parent, child = MODELS[rule, nullable, "one-way"]
    engine = make_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([parent(id=1), child(id=1, parent_id=1)])
        session.commit()
        session.close()
        session.connection().exec_driver_sql("ROLLBACK")
        session.connection().exec_driver_sql("PRAGMA foreign_keys = OFF")
        session.connection().exec_driver_sql("BEGIN")
        parents = BaseRepository(session, parent)
        if rule == "RESTRICT" or (not nullable and rule != "CASCADE"):
            with pytest.raises(ConstraintViolationError):
                parents.delete(1)
            return
        assert parents.delete(1)
        session.flush()
        left = session.execute(text(f"SELECT parent_id FROM {child.__table__.name}")).all()
        assert left == ([] if rule == "CASCADE" else [(None,)])


def test_a_mock_deletes_what_the_database_would() -> None:
    parent, _ = MODELS["CASCADE", False, "one-way"]
    mock: Any = MockRepository(parent)
    mock.create({"id": 1})
    assert mock.delete(1)
    assert mock.count() == 0
