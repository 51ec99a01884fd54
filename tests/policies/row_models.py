"""Notes of two tenants that look alike, whose rules lead to columns, to values of the actor, and to related rows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ForeignKey, String, insert, or_
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import Policy, QueryFilter, SoftDeleteMixin, TenantMixin


class Base(DeclarativeBase):
    """The tables of this folder's tests of row-level security."""


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Team(TenantMixin, Base):
    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    lead_id: Mapped[int | None]


class Note(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int | None]
    title: Mapped[str] = mapped_column(String(10), default="new")
    level: Mapped[Level] = mapped_column(default=Level.LOW)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    team: Mapped[Team | None] = relationship()


class Remark(TenantMixin, Base):
    """A row without a rule, which refers to a note."""

    __tablename__ = "remarks"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    note_id: Mapped[int] = mapped_column(ForeignKey("notes.id", ondelete="CASCADE"))


@dataclass
class Actor:
    id: int
    role: str = "member"
    team_ids: list[int] = field(default_factory=list)
    level: Level = Level.LOW
    name: str | None = None


ACTORS: dict[str, Actor | None] = {
    "owner": Actor(1),
    "other": Actor(2),
    "auditor": Actor(3, role="auditor"),
    "nobody": None,
}

POLICY = Policy(
    Note,
    read=lambda a: or_(Note.owner_id == a.id, a.role == "auditor"),
    create=lambda a: [QueryFilter("owner_id", "eq", a.id)],
    update=lambda a: [QueryFilter("owner_id", "eq", a.id)],
    delete=lambda a: [QueryFilter("owner_id", "eq", a.id), QueryFilter("title", "ne", "kept")],
)


def note(tenant: str, number: int, owner: int | None, title: str = "x", **more: Any) -> dict[str, Any]:
    """A row; tenant b's have other keys, and are otherwise the same."""
    shift = 0 if tenant == "a" else 100
    row = {"level": Level.LOW, "team_id": None, "is_deleted": False, **more}
    if row["team_id"] is not None:
        row["team_id"] += shift
    return {"id": number + shift, "tenant_id": tenant, "owner_id": owner, "title": title, **row}


NOTES = [
    each
    for tenant in "ab"
    for each in (
        note(tenant, 1, 1, team_id=1),
        note(tenant, 2, 2, team_id=2),
        note(tenant, 3, 1, "kept", level=Level.HIGH, team_id=1),
        note(tenant, 4, 1, "gone", is_deleted=True),
        note(tenant, 5, None, "nobody's"),
    )
]
TEAMS = [
    {"id": number + shift, "tenant_id": tenant, "lead_id": lead}
    for tenant, shift in (("a", 0), ("b", 100))
    for number, lead in ((1, 2), (2, 1))
]


def fill(connection: Any) -> None:
    connection.execute(insert(Team.__table__), TEAMS)
    connection.execute(insert(Note.__table__), NOTES)
