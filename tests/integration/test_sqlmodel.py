"""SQLModel classes are treated as declarative ones: the mixins, objects as data, relationships and filters.

Without ``from __future__ import annotations``: SQLModel reads a relationship's class from the annotation itself.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import DateTime, MetaData, UniqueConstraint
from sqlmodel import Field, Relationship, SQLModel

from dotmac_database import (
    DuplicateEntityError,
    StaleEntityError,
    TenantIsolationError,
    TenantRequiredError,
    ValidationError,
    acting_as,
    traits_of,
)
from dotmac_database.sqlmodel import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from tests.conftest import Face

METADATA = MetaData()


class Model(SQLModel):
    metadata = METADATA


class Team(Model, table=True):
    __tablename__ = "sqlmodel_teams"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    heroes: list["Hero"] = Relationship(back_populates="team")


class HeroBase(Model):
    name: str
    email: str | None = None
    fee: Decimal = Field(default=Decimal("1.50"), max_digits=10, decimal_places=2)
    team_id: int | None = Field(default=None, foreign_key="sqlmodel_teams.id")


class Hero(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, HeroBase, table=True):
    __tablename__ = "sqlmodel_heroes"
    __table_args__ = (UniqueConstraint("tenant_id", "email"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    seen_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    team: Team | None = Relationship(back_populates="heroes")


class HeroUpdate(SQLModel):
    name: str | None = None
    email: str | None = None


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return METADATA


@pytest.fixture
def heroes(face: Face) -> Any:
    with face.session() as session:
        yield face.repository(session, Hero, "a")


def test_the_mixins_are_found() -> None:
    traits = traits_of(Hero)
    assert traits.tenant == "tenant_id"
    assert {"created_at", "updated_at", "created_by", "updated_by", "is_deleted", "deleted_at", "version"} <= set(
        traits.columns
    )


def test_what_was_not_set_is_left_to_the_defaults(face: Face, heroes: Any) -> None:
    with acting_as("alice"):
        made = face(heroes.create, HeroBase(name="Ann"))
    assert made.tenant_id == "a"
    assert (made.fee, made.version, made.is_deleted, made.created_by) == (Decimal("1.50"), 1, False, "alice")
    assert made.created_at.utcoffset().total_seconds() == 0
    changed = face(heroes.update, made.id, HeroUpdate(email="ann@example.org"), "bob")
    assert (changed.name, changed.email, changed.version, changed.updated_by) == ("Ann", "ann@example.org", 2, "bob")


def test_rows_may_be_objects_of_the_model_itself(face: Face, heroes: Any) -> None:
    given = Hero(name="Ann", email="ann@example.org")
    made = face(heroes.create, given)
    assert face(heroes.get_by_id, made.id).name == "Ann"
    assert given.tenant_id is None or given.tenant_id == "a"
    face(heroes.bulk_create, [HeroBase(name=f"Hero {number}") for number in range(3)])
    assert face(heroes.count) == 4


def test_its_errors_are_the_toolkits(face: Face, heroes: Any) -> None:
    key = face(heroes.create, {"name": "Ann", "email": "ann@example.org"}).id
    with pytest.raises(DuplicateEntityError) as caught:
        face(heroes.create, {"name": "Ann", "email": "ann@example.org"})
    assert "email" in caught.value.fields
    with pytest.raises(StaleEntityError):
        face(heroes.update, key, {"name": "x"}, expected_version=7)
    with pytest.raises(ValidationError, match="nmae"):
        face(heroes.create, {"nmae": "x"})
    with pytest.raises(TenantIsolationError):
        face(heroes.create, {"name": "x", "tenant_id": "b"})
    with pytest.raises(TenantRequiredError):
        face.repository(heroes.db, Hero)
    assert face(heroes.with_tenant("b").count) == 0
    assert face(heroes.get_by_id, key).version == 1


def test_paths_orders_and_eager_loads(face: Face, heroes: Any) -> None:
    teams = face.repository(heroes.db, Team, "a")
    red = face(teams.create, {"name": "Red"})
    names = {"Bo": red.id, "Ann": red.id, "Cid": None}
    face(heroes.bulk_create, [{"name": name, "team_id": team} for name, team in names.items()])
    found = face(
        heroes.list,
        {
            "filters": [{"field": "team.name", "value": "Red"}],
            "sorts": [{"field": "name"}],
            "relationships": ["team"],
        },
    )
    assert [(hero.name, hero.team.name) for hero in found] == [("Ann", "Red"), ("Bo", "Red")]
    assert [team.name for team in face(teams.list, {"filters": [{"field": "heroes.name", "value": "Bo"}]})] == ["Red"]


def test_a_deleted_hero_comes_back(face: Face, heroes: Any) -> None:
    made = face(heroes.create, {"name": "Ann", "seen_at": "2024-01-01T12:00:00+02:00"})
    assert face(heroes.delete, made.id)
    assert face(heroes.get_by_id, made.id) is None
    assert face(heroes.get_by_id, made.id, include_deleted=True).deleted_at is not None
    assert face(heroes.restore, made.id).seen_at.isoformat() == "2024-01-01T10:00:00+00:00"
