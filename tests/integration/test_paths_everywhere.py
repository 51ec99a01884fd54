"""Paths through relationships, wherever a repository takes one, on plain and guarded sessions.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import QueryFilter, SortField, all_of, none_of
from dotmac_database.models import SoftDeleteMixin, TenantMixin
from tests.conftest import Face, counted

F = QueryFilter


class Base(DeclarativeBase):
    """The tables of this module."""


class Region(Base):
    """Belongs to no tenant."""

    __tablename__ = "regions"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Team(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    region_id: Mapped[int | None] = mapped_column(ForeignKey("regions.id"))
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    region: Mapped[Region | None] = relationship()
    lead: Mapped[Team | None] = relationship(remote_side=[id])
    members: Mapped[list[Member]] = relationship(back_populates="team", foreign_keys="Member.team_id")


class Member(TenantMixin, Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    rival_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    team: Mapped[Team | None] = relationship(foreign_keys=[team_id], back_populates="members")
    rival: Mapped[Team | None] = relationship(foreign_keys=[rival_id])


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(params=["plain", "guarded"])
def session(request: pytest.FixtureRequest, face: Face) -> Iterator[Any]:
    """A session over the rows of two tenants; member 4 is in a team of the other's, member 5 in one that is deleted."""
    with face.session() as plain:
        face(face.repository(plain, Region).create, {"id": 1, "name": "north"})
        for number, tenant, name in ((1, "a", "zebras"), (2, "a", "ants"), (3, "b", "bees"), (4, "a", "gone")):
            team = {"id": number, "name": name, "region_id": 1, "lead_id": 1, "is_deleted": number == 4}
            face(face.repository(plain, Team, tenant).bulk_create, [team])
        for number, team_id in ((1, 1), (2, 2), (3, None), (4, 3), (5, 4)):
            member = {"id": number, "team_id": team_id, "rival_id": 2}
            face(face.repository(plain, Member, "a").bulk_create, [member])
    with face.guarded() if request.param == "guarded" else face.session() as made:
        yield made


BY_TEAM = {"sorts": [SortField("team.name")]}
ORDER = [2, 1, 3, 4, 5]
READS: dict[str, tuple[Callable[[Face, Any], Any], Any]] = {
    "list": (lambda face, rows: face(rows.list, BY_TEAM), ORDER),
    "page": (lambda face, rows: face(rows.list_paginated, {**BY_TEAM, "pagination": {"per_page": 2}}).items, [2, 1]),
    "cursor": (lambda face, rows: face(rows.cursor_paginate, BY_TEAM).items, ORDER),
    "stream": (lambda face, rows: face(rows.stream, BY_TEAM, 2), ORDER),
    "first": (lambda face, rows: [face(rows.first, BY_TEAM)], [2]),
    "two at once": (
        lambda face, rows: face(rows.list, {"sorts": [SortField("rival.name"), SortField("team.name", "desc")]}),
        [5, 4, 3, 1, 2],
    ),
    "two steps": (lambda face, rows: face(rows.list, {"sorts": [SortField("team.region.name")]}), [1, 2, 3, 4, 5]),
    "two steps of one class": (
        lambda face, rows: face(rows.list, {"sorts": [SortField("team.lead.name"), SortField("team.name")]}),
        [2, 1, 3, 4, 5],
    ),
    "folded": (lambda face, rows: face(rows.list, {"sorts": [SortField("team.name", by="folded")]}), ORDER),
    "relevance": (
        lambda face, rows: face(
            rows.list,
            {"filters": [F("team.name", "search", "ants")], "sorts": [SortField("team.name", by="relevance")]},
        ),
        [2],
    ),
    "filter": (lambda face, rows: face(rows.list, {"filters": [F("team.name", "in", ["ants", "bees"])]}), [2]),
    "none of": (
        lambda face, rows: face(rows.list, {"filters": [none_of(F("team.name", "eq", "ants"))], **BY_TEAM}),
        [1, 3, 4, 5],
    ),
    "null": (
        lambda face, rows: face(rows.list, {"filters": [all_of(F("team", "is_null"))], **BY_TEAM}),
        [3, 4, 5],
    ),
}
VALUES: dict[str, tuple[Callable[[Face, Any], Any], Any]] = {
    "values": (lambda face, rows: face(rows.values("id").list, BY_TEAM), [{"id": number} for number in ORDER]),
    "group": (
        lambda face, rows: face(rows.aggregate, {"n": "count"}, group_by="team.name"),
        [{"team.name": "ants", "n": 1}, {"team.name": "zebras", "n": 1}, {"team.name": None, "n": 3}],
    ),
    "distinct": (lambda face, rows: face(rows.distinct_values, "team.name"), ["ants", "zebras", None]),
    "measure": (lambda face, rows: face(rows.aggregate, {"last": ("max", "team.name")}), [{"last": "zebras"}]),
    "count": (lambda face, rows: face(rows.count, [F("team.region.name", "eq", "north")]), 2),
    "update_where": (lambda face, rows: face(rows.update_where, [F("team.name", "eq", "bees")], {"rival_id": 1}), 0),
    "delete_where": (lambda face, rows: face(rows.delete_where, [F("team.name", "in", ["ants", "bees"])]), 1),
}


@pytest.mark.parametrize("name", READS)
def test_rows_come_by_a_path(face: Face, session: Any, name: str) -> None:
    read, expected = READS[name]
    assert [each.id for each in read(face, face.repository(session, Member, "a"))] == expected


@pytest.mark.parametrize("name", VALUES)
def test_values_come_by_a_path(face: Face, session: Any, name: str) -> None:
    read, expected = VALUES[name]
    assert read(face, face.repository(session, Member, "a")) == expected


@pytest.mark.parametrize("guarded", [False, True], ids=["plain", "guarded"])
def test_a_relationship_is_one_statement_for_many_parents(face: Face, guarded: bool) -> None:
    with face.session() as plain:
        teams = face.repository(plain, Team, "a")
        face(teams.bulk_create, [{"id": n, "name": f"t{n}"} for n in range(1, 1201)], returning=False)
        members = face.repository(plain, Member, "a")
        face(members.bulk_create, [{"id": n, "team_id": n} for n in range(1, 1201)], returning=False)
    with face.guarded() if guarded else face.session() as session, counted(face.engine) as sent:
        found = face(face.repository(session, Team, "a").list, {"relationships": ["members"]})
        assert len(found) == 1200
        assert all(len(each.members) == 1 for each in found)
        session.expunge_all()
        found = face(face.repository(session, Member, "a").list, {"relationships": ["team"]})
        assert all(each.team.id == each.id for each in found)
    assert len([each for each in sent if each.startswith("SELECT")]) == 4
