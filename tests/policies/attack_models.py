"""Papers with owners and secrets, and their notes: rows for attacks on the policies."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import HistoryMixin, Policy, QueryFilter, TenantMixin, any_of


class Base(DeclarativeBase):
    """The tables of the attacks."""


class Paper(TenantMixin, Base):
    __tablename__ = "attacked_papers"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    level: Mapped[int] = mapped_column(default=0)
    label: Mapped[str | None]
    code: Mapped[str | None] = mapped_column(unique=True)
    secret: Mapped[int | None]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("attacked_papers.id"))
    parent: Mapped[Paper | None] = relationship(remote_side=id, back_populates="children")
    children: Mapped[list[Paper]] = relationship(back_populates="parent", order_by="Paper.id")
    notes: Mapped[list[Note]] = relationship(back_populates="paper", order_by="Note.id")


class Note(TenantMixin, Base):
    __tablename__ = "attacked_notes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    paper_id: Mapped[int | None] = mapped_column(sa.ForeignKey("attacked_papers.id"))
    paper: Mapped[Paper | None] = relationship(back_populates="notes")


class HistoryBase(DeclarativeBase):
    """The tables with a history, which can't be emptied by DELETE."""


class Contract(HistoryMixin, TenantMixin, HistoryBase):
    __tablename__ = "attacked_contracts"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    secret: Mapped[int | None]


class Actor(NamedTuple):
    id: str
    level: int = 0


ANN, BOB, ADMIN = Actor("ann"), Actor("bob", 1), Actor("admin", 9)


def readable(actor: Actor) -> Any:
    own = QueryFilter("owner", "eq", actor.id)
    return True if actor == ADMIN else any_of(own, QueryFilter("label", "eq", "shared"))


def own(actor: Actor) -> Any:
    return True if actor == ADMIN else [QueryFilter("owner", "eq", actor.id)]


def unseen(actor: Actor) -> Any:
    return () if actor == ADMIN else ("secret",)


PAPERS = Policy(Paper, read=readable, create=own, update=own, delete=own, hidden=unseen)
NOTES = Policy(Note, read=own, create=own, update=own, delete=own)
CONTRACTS = Policy(Contract, read=own, create=own, update=own, delete=own, hidden=unseen)
POLICIES = (PAPERS, NOTES, CONTRACTS)


def rows_of(tenant: str, base: int) -> list[Any]:
    """The objects to insert for a tenant."""
    papers = [
        Paper(id=base + 1, owner="ann", secret=11, code=f"c{base + 1}"),
        Paper(id=base + 2, owner="bob", secret=22, label="shared", code=f"c{base + 2}", parent_id=base + 1),
        Paper(id=base + 3, owner="bob", secret=33, level=1, code=f"c{base + 3}", parent_id=base + 2),
        Paper(id=base + 4, owner="ann", secret=44, level=2, label="shared", parent_id=base + 3),
        Paper(id=base + 5, owner="cat", secret=55, level=1),
    ]
    notes = [
        Note(id=base + place, owner=owner, paper_id=base + paper)
        for place, (owner, paper) in enumerate((("ann", 1), ("bob", 1), ("bob", 2), ("ann", 3), ("cat", 4)), 1)
    ]
    for each in (*papers, *notes):
        each.tenant_id = tenant
    return [*papers, *notes]
