"""Notes with owners, in teams: rows that policies inside a tenant rule."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, validates

from dotmac_database import Policy, QueryFilter, SoftDeleteMixin, TenantMixin, VersionMixin, any_of


class Base(DeclarativeBase):
    pass


note_tags = sa.Table(
    "ruled_note_tags",
    Base.metadata,
    sa.Column("note_id", sa.ForeignKey("ruled_notes.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("ruled_tags.id"), primary_key=True),
)


class Team(TenantMixin, Base):
    __tablename__ = "ruled_teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    lead: Mapped[str]
    notes: Mapped[list[Note]] = relationship(back_populates="team")


class Tag(TenantMixin, Base):
    __tablename__ = "ruled_tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]


class Note(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "ruled_notes"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "slug"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str]
    owner: Mapped[str]
    state: Mapped[str] = mapped_column(default="open")
    text: Mapped[str | None]
    secret: Mapped[str | None]
    team_id: Mapped[int | None] = mapped_column(sa.ForeignKey("ruled_teams.id"))
    team: Mapped[Team | None] = relationship(back_populates="notes")
    tags: Mapped[list[Tag]] = relationship(secondary=note_tags)


class Checked(TenantMixin, Base):
    """As a note, but with a validator, so that the unit of work writes its rows."""

    __tablename__ = "ruled_checked"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "slug"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str]
    owner: Mapped[str]
    state: Mapped[str] = mapped_column(default="open")
    text: Mapped[str | None]

    @validates("text")
    def _checked(self, _: str, value: Any) -> Any:
        return value


class Actor(NamedTuple):
    id: str
    role: str = "member"


OWNER, MEMBER, AUDITOR, NOBODY = Actor("ann"), Actor("bob"), Actor("eve", "auditor"), Actor("zed", "none")
ACTORS = {"owner": OWNER, "member": MEMBER, "auditor": AUDITOR, "nobody": NOBODY}


def readable(actor: Actor) -> Any:
    if actor.role != "member":
        return actor.role == "auditor"
    return any_of(QueryFilter("owner", "eq", actor.id), QueryFilter("state", "eq", "shared"))


def own(actor: Actor) -> Any:
    return QueryFilter("owner", "eq", actor.id) if actor.role == "member" else False


def rules(model: Any, **changes: Any) -> Policy[Any]:
    return Policy(model, **{"read": readable, "create": own, "update": own, "delete": own, **changes})
