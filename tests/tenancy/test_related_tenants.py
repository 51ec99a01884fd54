"""Whose row it is, known from the objects that it is related to, for who works across all tenants."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, MetaData, Table, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, WriteOnlyMapped, mapped_column, relationship

from dotmac_database import (
    ALL_TENANTS,
    ConstraintViolationError,
    TenantIsolationError,
    TenantRequiredError,
    bind_tenant,
    unscoped,
)
from dotmac_database.models import TenantMixin
from tests.conftest import Face, counted, empty
from tests.conftest import database as database  # this module's tables, not those of the tests beside it


class Base(DeclarativeBase):
    """The tables of this module."""


class Holder(TenantMixin, Base):
    __tablename__ = "holders"
    id: Mapped[int] = mapped_column(primary_key=True)
    belongings: Mapped[list[Belonging]] = relationship(back_populates="holder", foreign_keys="Belonging.holder_id")


class Belonging(TenantMixin, Base):
    __tablename__ = "belongings"
    id: Mapped[int] = mapped_column(primary_key=True)
    holder_id: Mapped[int | None] = mapped_column(ForeignKey("holders.id"))
    maker_id: Mapped[int | None] = mapped_column(ForeignKey("holders.id"))
    holder: Mapped[Holder | None] = relationship(back_populates="belongings", foreign_keys=[holder_id])
    maker: Mapped[Holder | None] = relationship(foreign_keys=[maker_id])


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.mark.parametrize("way", ["object", "dict"])
@pytest.mark.parametrize("related", ["persistent", "pending"])
def test_the_tenant_is_that_of_the_related(face: Face, way: str, related: str) -> None:
    with face.session() as session:
        holder = Holder(tenant_id="a")
        if related == "persistent":
            holder = face(face.repository(session, Holder, ALL_TENANTS).create, {"tenant_id": "a"})
        data: Any = Belonging(holder=holder) if way == "object" else {"holder": holder}
        if way == "object" and data in session:
            (session.sync_session if face.is_async else session).expunge(data)
        made = face(face.repository(session, Belonging, ALL_TENANTS).create, data)
        assert made.tenant_id == "a"


def test_the_tenant_is_that_of_the_children(face: Face) -> None:
    with face.session() as session:
        data = {"belongings": [Belonging(tenant_id="a")]}
        assert face(face.repository(session, Holder, ALL_TENANTS).create, data).tenant_id == "a"


def test_related_objects_of_two_tenants_are_refused(face: Face) -> None:
    with face.session() as session:
        belongings = face.repository(session, Belonging, ALL_TENANTS)
        two = {"holder": Holder(tenant_id="a"), "maker": Holder(tenant_id="b")}
        with pytest.raises(TenantIsolationError):
            face(belongings.create, two)
        with pytest.raises(TenantIsolationError):
            face(belongings.create, {"holder": Holder(tenant_id="a"), "tenant_id": "b"})
        with pytest.raises(TenantRequiredError):
            face(belongings.create, {"holder": Holder()})


peers = Table(
    "node_peers",
    Base.metadata,
    Column("node_id", ForeignKey("nodes.id"), primary_key=True),
    Column("peer_id", ForeignKey("nodes.id"), primary_key=True),
)


class Node(TenantMixin, Base):
    """Relationships of every direction, in pairs and alone."""

    __tablename__ = "nodes"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    sponsor_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    warden_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    parent: Mapped[Node | None] = relationship(
        back_populates="children", foreign_keys=[parent_id], remote_side="Node.id"
    )
    children: Mapped[list[Node]] = relationship(back_populates="parent", foreign_keys=[parent_id])
    sponsor: Mapped[Node | None] = relationship(foreign_keys=[sponsor_id], remote_side="Node.id")
    wards: Mapped[list[Node]] = relationship(foreign_keys=[warden_id])
    peers: Mapped[list[Node]] = relationship(
        secondary=peers, primaryjoin="Node.id == node_peers.c.node_id", secondaryjoin="Node.id == node_peers.c.peer_id"
    )


LINKS: dict[str, tuple[str, bool]] = {
    "parent": ("parent", False),
    "sponsor": ("sponsor", False),
    "children": ("children", False),
    "peers": ("peers", False),
    "child of": ("children", True),
    "ward of": ("wards", True),
    "peer of": ("peers", True),
}
"""How a new node is related to the one before it: by which attribute, and whether that is the other one's."""

WAYS = ("add", "cascade", "merge", "dict", "object")
KINDS = ("persistent", "pending", "nobody's", "two")


@dataclass(frozen=True)
class Cell:
    way: str
    link: str
    depth: int
    kind: str

    @property
    def exists(self) -> bool:
        """Whether the way can be gone: a cascade, a merge and a repository begin where the relationship is."""
        by_other = LINKS[self.link][1]
        if (self.way, self.link) == ("object", "children") and self.kind in ("persistent", "two"):
            return False  # SQLAlchemy warns: the object is a stored one's parent, and another is made of it
        return by_other if self.way == "cascade" else not by_other or self.way in ("add", "merge")


CELLS = [cell for cell in (Cell(*each) for each in product(WAYS, LINKS, (1, 2, 3), KINDS)) if cell.exists]


def node(tenant: str | None = None) -> Node:
    """A node whose collections need no load."""
    return Node(children=[], wards=[], peers=[], **({} if tenant is None else {"tenant_id": tenant}))


def related(cell: Cell, session: Any, first: Node, tenant: str | None) -> list[Node]:
    """A chain of new nodes that begins at ``first``."""
    key, by_other = LINKS[cell.link]
    chain = [first]
    for _ in range(cell.depth):
        if first in session and cell.way in ("dict", "object"):
            session.add(chain[-1])  # else the flush before a repository's savepoint leaves it out, with a warning
        new = node(tenant)
        one, other = (chain[-1], new) if by_other else (new, chain[-1])
        if isinstance(getattr(one, key), list):
            getattr(one, key).append(other)
        else:
            setattr(one, key, other)
        chain.append(new)
    return chain


def write(face: Face, session: Any, cell: Cell, chain: list[Node]) -> None:
    """Write the chain in the cell's way."""
    key, by_other = LINKS[cell.link]
    last = chain[-1]
    if cell.way in ("dict", "object"):
        given = {name: getattr(last, name) for name in {key, "parent", "sponsor", "tenant_id"}}
        data: Any = last if cell.way == "object" else {name: each for name, each in given.items() if each is not None}
        if cell.way == "dict":
            data = {name: list(each) if isinstance(each, list) else each for name, each in data.items()}
            last.parent, last.children = None, []  # the dict is of another row
        face(face.repository(session, Node, ALL_TENANTS).create, data)
    elif cell.way == "merge":
        face(session.merge, chain[0] if by_other else last)
    elif cell.way == "cascade":
        session.add(chain[0])
    else:
        session.add_all(chain)
    face(session.commit)


def run(face: Face, cell: Cell, tenant: str | None) -> tuple[list[str], list[str]]:
    """Who owns the new rows of a cell, and the kinds of statement that were sent; new nodes name ``tenant``."""
    with face.guarded() as session, unscoped(session, reason="the matrix", level=logging.DEBUG):
        first = node(None if cell.kind == "nobody's" else "a")
        other = node("b")
        if cell.kind in ("persistent", "two"):
            session.add_all([first, other])
            face(session.flush)
        if cell.way == "merge":
            session.expunge_all()  # objects from elsewhere are what is merged
        chain = related(cell, session, first, tenant)
        if cell.kind == "two":
            chain[-1].sponsor = other
            if cell.link == "sponsor":
                chain[-1].parent, chain[-1].sponsor = other, chain[-2]
        with counted(face.engine) as sent:
            write(face, session, cell, chain)
        owners = face(session.scalars, select(Node.tenant_id).order_by(Node.id))
        return list(owners), [statement.partition(" ")[0] for statement in sent]


def wrong(face: Face, cells: list[Cell]) -> list[str]:
    """What is wrong with the cells."""
    found = []
    for cell in cells:
        try:
            owners, sent = run(face, cell, None)
        except (TenantIsolationError, TenantRequiredError, IntegrityError, ConstraintViolationError) as error:
            wanted: tuple[type[Exception], ...] = (TenantIsolationError,)
            if cell.kind == "nobody's":
                wanted = (TenantRequiredError, IntegrityError, ConstraintViolationError)
            if cell.kind in ("persistent", "pending") or not isinstance(error, wanted):
                found.append(f"{cell}: {type(error).__name__} {error}")
        else:
            if cell.kind not in ("persistent", "pending"):
                found.append(f"{cell}: written for {owners}")
            elif set(owners) - {"b"} != {"a"} or owners.count("a") != cell.depth + 1:
                found.append(f"{cell}: {owners}")
            elif sent != run(face, cell, "a")[1]:
                found.append(f"{cell}: {sent}")
        empty(face.database, Base.metadata)
    return found


def test_new_objects_are_of_the_tenant_of_the_related(face: Face) -> None:
    cells = [cell for cell in CELLS if cell.depth == 2]
    assert wrong(face, cells if face.engine.dialect.name == "sqlite" else cells[::9]) == []


@pytest.mark.matrix
def test_new_objects_are_of_the_tenant_of_the_related_at_any_depth(face: Face) -> None:
    assert wrong(face, CELLS) == []


class Keyed(Base):
    """The tenant is in its key, as a number; it has one relationship that is never loaded."""

    __tablename__ = "keyed"
    __tenant_column__ = "org"
    org: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    named: WriteOnlyMapped[Named] = relationship(overlaps="keyed")


class Shared(Base):
    """Of no tenant."""

    __tablename__ = "shared"
    id: Mapped[int] = mapped_column(primary_key=True)
    named: Mapped[list[Named]] = relationship(back_populates="shared")


class Named(TenantMixin, Base):
    """Its tenant is a text."""

    __tablename__ = "named"
    id: Mapped[int] = mapped_column(primary_key=True)
    keyed_org: Mapped[int | None]
    keyed_id: Mapped[int | None]
    shared_id: Mapped[int | None] = mapped_column(ForeignKey("shared.id"))
    kind: Mapped[str] = mapped_column(default="named")
    keyed: Mapped[Keyed | None] = relationship(overlaps="named")
    shared: Mapped[Shared | None] = relationship(back_populates="named")
    __table_args__ = (ForeignKeyConstraint(["keyed_org", "keyed_id"], ["keyed.org", "keyed.id"]),)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "named"}


class Child(Named):
    """A joined child, whose tenant is in its parent's table."""

    __tablename__ = "named_children"
    id: Mapped[int] = mapped_column(ForeignKey("named.id"), primary_key=True)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "child"}


@contextmanager
def unbound(face: Face) -> Iterator[Any]:
    with face.guarded() as session, unscoped(session, reason="a test", level=logging.DEBUG):
        yield session


@pytest.mark.parametrize("model", [Named, Child])
def test_the_tenant_of_a_key_is_known_of_an_expired_object_and_in_another_type(face: Face, model: type[Any]) -> None:
    with unbound(face) as session:
        keyed = Keyed(org=7, id=1)
        session.add(keyed)
        face(session.commit)
        session.expire_all()
        new = model(keyed=keyed)
        session.add(new)
        with counted(face.engine) as sent:
            face(session.flush)
        assert new.tenant_id == "7"
        assert sum("SELECT" in statement for statement in sent) <= 1  # the flush itself reads the key that it copies


def test_a_relationship_that_is_never_loaded_tells_what_was_added(face: Face) -> None:
    with unbound(face) as session:
        keyed, new = Keyed(org=7, id=1), Named()
        session.add(keyed)
        face(session.flush)
        keyed.named.add(new)
        face(session.flush)
        assert new.tenant_id == "7"


def test_what_belongs_to_no_tenant_passes_none_on(face: Face) -> None:
    with unbound(face) as session:
        session.add(Shared(named=[Named(tenant_id="a"), Named()]))
        with pytest.raises(IntegrityError):
            face(session.flush)


def test_a_new_object_that_names_its_tenant_is_taken_at_its_word(face: Face) -> None:
    with unbound(face) as session:
        holder, named = Holder(tenant_id="a"), Belonging(tenant_id="b")
        given = Belonging(tenant_id=func.lower("C"))
        holder.belongings = [named, given]
        session.add(holder)
        face(session.commit)
        assert sorted(face(session.scalars, select(Belonging.tenant_id))) == ["b", "c"]


def test_a_conflict_writes_nothing_and_leaves_the_session_usable(face: Face) -> None:
    with unbound(face) as session:
        session.add(Belonging(holder=Holder(tenant_id="a"), maker=Holder(tenant_id="b")))
        with pytest.raises(TenantIsolationError, match="Belonging: the related objects belong to several tenants"):
            face(session.flush)
        face(session.rollback)
        assert list(face(session.scalars, select(Belonging))) == []


@pytest.mark.parametrize("tenant", ["a", ALL_TENANTS])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_repository_stamps_the_new_children_of_a_new_row(face: Face, tenant: Any, guarded: bool) -> None:
    opened = unbound(face) if guarded else face.session()
    with opened as session:
        holder = Holder(tenant_id="a", belongings=[Belonging(), Belonging()])
        face(face.repository(session, Holder, tenant).create, holder)
        assert list(face(session.scalars, select(Belonging.tenant_id))) == ["a", "a"]


def test_a_tenants_repository_refuses_what_leads_to_another_tenant(face: Face) -> None:
    with face.session() as session:
        far = node()
        far.sponsor = node("b")
        with pytest.raises(TenantIsolationError):
            face(face.repository(session, Node, "a").create, {"sponsor": far})


def test_a_session_that_serves_a_tenant_stamps_that_tenant_still(face: Face) -> None:
    with face.guarded() as session:
        bind_tenant(session, "a")
        session.add(Holder(belongings=[Belonging()]))
        face(session.commit)
        assert list(face(session.scalars, select(Belonging.tenant_id))) == ["a"]
