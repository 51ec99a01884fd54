"""`delete` of a tenant's row to which others refer: whatever the rule and the key, no other tenant's row changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    UniqueConstraint,
    insert,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, backref, configure_mappers, mapped_column, relationship

from dotmac_database import ConstraintViolationError, StaleEntityError, tenant_foreign_key
from dotmac_database.models import TenantMixin, VersionMixin
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The tables of this module."""


RULES = ("CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", None)
KEYS = ("of the row", "of the tenant and the row")
RELATIONSHIPS: dict[str, dict[str, Any]] = {
    "one-way": {},
    "both ways": {"backref": True},
    "cascading": {"cascade": "all, delete-orphan"},
}
CELLS = list(product(RULES, KEYS, (True, False), RELATIONSHIPS))


def _models(place: int, rule: str | None, key: str, nullable: bool, how: str) -> tuple[Any, Any]:
    options = dict(RELATIONSHIPS[how])
    if options.pop("backref", False):
        options["backref"] = backref("owner")
    parent = type(
        f"Owner{place}",
        (TenantMixin, VersionMixin, Base),
        {
            "__tablename__": f"owners_{place}",
            "__table_args__": (UniqueConstraint("tenant_id", "id"),),
            "id": Column(Integer, primary_key=True),
            "things": relationship(f"Thing{place}", **options),
        },
    )
    default = {"server_default": "9"} if rule == "SET DEFAULT" else {}
    if key == "of the row":
        column, extra = Column(ForeignKey(f"owners_{place}.id", ondelete=rule), nullable=nullable, **default), ()
    else:
        column = Column(Integer, nullable=nullable, **default)
        extra = (tenant_foreign_key("owner_id", f"owners_{place}.id", ondelete=rule),)
    child = type(
        f"Thing{place}",
        (TenantMixin, Base),
        {
            "__tablename__": f"things_{place}",
            "__table_args__": extra,
            "id": Column(Integer, primary_key=True),
            "owner_id": column,
        },
    )
    return parent, child


def _can_be(rule: str | None, key: str) -> bool:
    """SQLite knows no list of columns after SET NULL."""
    return key == "of the row" or rule is None or not rule.startswith("SET")


MODELS = {cell: _models(place, *cell) for place, cell in enumerate(CELLS) if _can_be(cell[0], cell[1])}


class Place(TenantMixin, Base):
    """A tree."""

    __tablename__ = "places"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="")
    above_id: Mapped[int | None] = mapped_column(ForeignKey("places.id", ondelete="CASCADE"))
    below: Mapped[list[Place]] = relationship(back_populates="above")
    above: Mapped[Place | None] = relationship(back_populates="below", remote_side=[id])


@pytest.fixture(scope="module")
def tables() -> MetaData:
    configure_mappers()
    return Base.metadata


def _expected(rule: str | None, key: str, nullable: bool, how: str) -> str:
    if how == "cascading" or rule == "CASCADE":
        return "deleted"
    if rule == "SET NULL":
        return "cleared" if nullable else "refused"
    if rule == "SET DEFAULT":
        return "defaulted"
    # A key with the tenant in it can't be cleared by the ORM, which would clear all of it.
    return "cleared" if _is_cleared(rule, key, nullable) else "refused"


def _is_cleared(rule: str | None, key: str, nullable: bool) -> bool:
    return rule is None and nullable and key == "of the row"


@contextmanager
def _session(face: Face, ring: str) -> Iterator[Any]:
    with face.session() if ring == "unguarded" else face.guarded() as session:
        yield session


def _outcome(face: Face, ring: str, expected_version: int | None, parent: Any, child: Any) -> tuple[str, int]:
    with face.database.engine.begin() as connection:
        owners = [(1, "a"), (9, "a"), (2, "b")]
        connection.execute(insert(parent.__table__), [{"id": i, "tenant_id": t, "version": 1} for i, t in owners])
        things = [(1, "a", 1), (2, "b", 2)]
        connection.execute(insert(child.__table__), [{"id": i, "tenant_id": t, "owner_id": o} for i, t, o in things])
    with _session(face, ring) as session:
        repository = face.repository(session, parent, "a")
        assert not face(repository.delete, 2)  # another tenant's
        with counted(face.engine) as sent:
            try:
                assert face(repository.delete, 1, expected_version=expected_version)
                result = ""
            except ConstraintViolationError:
                result = "refused"
    with face.database.engine.begin() as connection:
        left = dict(map(tuple, connection.execute(select(child.id, child.owner_id)).all()))
        assert left.pop(2) == 2, "another tenant's row has changed"
        assert set(connection.execute(select(parent.id)).scalars()) == ({1, 2, 9} if result else {2, 9})
        connection.execute(child.__table__.delete())
        connection.execute(parent.__table__.delete())
    if not result:
        result = "deleted" if not left else {None: "cleared", 9: "defaulted"}.get(left[1], "orphaned")
    return result, len([each for each in sent if each.split()[0] in ("SELECT", "UPDATE", "DELETE")])


@pytest.mark.parametrize("ring", ["unguarded", "guarded"])
def test_each_rule_and_key(face: Face, ring: str) -> None:
    wrong: list[Any] = []
    for place, ((rule, key, nullable, how), (parent, child)) in enumerate(MODELS.items()):
        found, statements = _outcome(face, ring, (None, 1)[place % 2], parent, child)
        wanted = _expected(rule, key, nullable, how)
        by_orm = how == "cascading" or _is_cleared(rule, key, nullable)
        if found != wanted or (not by_orm and statements != 1):
            wrong.append((rule, key, nullable, how, found, wanted, statements))
    assert wrong == []


@pytest.mark.parametrize("ring", ["unguarded", "guarded"])
def test_a_stale_version_deletes_nothing(face: Face, ring: str) -> None:
    wrong: list[Any] = []
    for cell, (parent, child) in MODELS.items():
        with face.database.engine.begin() as connection:
            connection.execute(insert(parent.__table__), [{"id": 1, "tenant_id": "a", "version": 3}])
            connection.execute(insert(child.__table__), [{"id": 1, "tenant_id": "a", "owner_id": 1}])
        with _session(face, ring) as session:
            try:
                face(face.repository(session, parent, "a").delete, 1, expected_version=2)
                wrong.append((cell, "no error"))
            except StaleEntityError:
                pass
        with face.database.engine.begin() as connection:
            if connection.execute(select(parent.id, child.owner_id).join_from(parent, child)).all() != [(1, 1)]:
                wrong.append((cell, "changed"))
            connection.execute(child.__table__.delete())
            connection.execute(parent.__table__.delete())
    assert wrong == []


@pytest.mark.parametrize("ring", ["unguarded", "guarded"])
def test_a_tree_goes_from_its_row_down(face: Face, ring: str) -> None:
    with face.database.engine.begin() as connection:
        rows = [(1, "a", None), (2, "a", 1), (3, "a", 2), (4, "a", None), (5, "b", None), (6, "b", 5)]
        connection.execute(
            insert(Place.__table__), [{"id": i, "tenant_id": t, "name": "", "above_id": u} for i, t, u in rows]
        )
    with _session(face, ring) as session:
        places = face.repository(session, Place, "a")
        held = face(places.list, {})
        with counted(face.engine) as sent:
            assert face(places.delete, 2)
        assert len([each for each in sent if "DELETE" in each]) == 1
        assert face(places.get_by_id, 3) is None
        assert face(places.get_by_id, 1) in held
    with face.database.engine.begin() as connection:
        assert sorted(connection.execute(select(Place.id)).scalars()) == [1, 4, 5, 6]
