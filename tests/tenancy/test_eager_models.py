"""Classes that load their relationships of their own accord: a repository's statement says nothing of those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, func, insert, literal_column, select
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from dotmac_database import TenantMixin, bind_tenant
from tests.conftest import Face

from .conftest import Guarded


class Base(DeclarativeBase):
    """Eager by default."""


class Owner(TenantMixin, Base):
    __tablename__ = "eager_owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    shout: Mapped[str] = column_property(literal_column("upper(eager_owners.name) || '!'"))


class Thing(TenantMixin, Base):
    __tablename__ = "eager_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    joined_id: Mapped[int | None] = mapped_column(ForeignKey("eager_owners.id"))
    selected_id: Mapped[int | None] = mapped_column(ForeignKey("eager_owners.id"))
    joined: Mapped[Owner | None] = relationship(foreign_keys=[joined_id], lazy="joined")
    selected: Mapped[Owner | None] = relationship(foreign_keys=[selected_id], lazy="selectin")


class Counted(TenantMixin, Base):
    __tablename__ = "eager_counted"

    id: Mapped[int] = mapped_column(primary_key=True)
    owners: Mapped[int] = column_property(select(func.count(Owner.id)).correlate_except(Owner).scalar_subquery())


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def guarded(face: Face) -> Iterator[Guarded]:
    with face.database.engine.begin() as connection:
        for tenant, key in (("a", 1), ("b", 2)):
            connection.execute(insert(Owner.__table__).values(tenant_id=tenant, id=key, name=f"{tenant} owner"))
        stray = {"tenant_id": "a", "id": 1, "joined_id": 2, "selected_id": 2}
        connection.execute(insert(Thing.__table__), [stray, {**stray, "id": 2, "joined_id": 1, "selected_id": 1}])
        connection.execute(insert(Counted.__table__).values(tenant_id="a", id=1))
    made = Guarded(face)
    yield made
    made.close()


def test_default_eager_loads_of_a_repository_are_confined(guarded: Guarded) -> None:
    """A row that points at another tenant's gives nothing for it; an own one is there."""
    things = guarded.face.repository(guarded.session(), Thing, "a")
    for find in (things.get_by_id, things.get_by_id_or_raise):
        stray, own = guarded.face(find, 1), guarded.face(find, 2)
        assert (stray.joined, stray.selected) == (None, None)
        assert (own.joined.name, own.selected.name) == ("a owner", "a owner")


def test_a_subquery_of_the_mapping_is_confined(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    assert guarded.run(session, lambda s: s.scalars(select(Counted)).one().owners) == 1
    counted = guarded.face.repository(guarded.session(), Counted, "a")
    found: Any = guarded.face(counted.get_by_id, 1)
    assert found.owners == 1


def test_the_mappings_own_text_is_let_through(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    assert guarded.run(session, lambda s: list(s.scalars(select(Owner.shout).select_from(Owner)))) == ["A OWNER!"]
