"""Classes whose rows belong to a class by an SQL expression, which is no attribute of the class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData, case, literal_column
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import QueryFilter
from tests.conftest import Face


class Base(DeclarativeBase):
    """The tables of this module."""


class Parcel(Base):
    __tablename__ = "computed_parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    weight: Mapped[int]
    note: Mapped[str | None]
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy's form
        "polymorphic_on": case((literal_column("computed_parcels.weight") > 10, "heavy"), else_="light"),
        "polymorphic_identity": "light",
    }


class HeavyParcel(Parcel):
    __mapper_args__ = {"polymorphic_identity": "heavy"}  # noqa: RUF012 - as above


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def parcels(face: Face) -> Iterator[Any]:
    with face.session() as session:
        repository = face.repository(session, Parcel)
        face(repository.bulk_create, [{"id": n, "weight": n * 5} for n in (1, 2, 3)])
        yield repository


def test_every_write_of_such_a_class(face: Face, parcels: Any) -> None:
    assert type(face(parcels.get_by_id, 3)) is HeavyParcel
    assert face(parcels.update, 1, {"note": "one"}).note == "one"
    assert face(parcels.update_where, [QueryFilter("id", "gte", 2)], {"note": "more"}) == 2
    assert face(parcels.bulk_update, [{"id": 3, "note": "three"}]) == 1
    assert face(parcels.create, {"id": 4, "weight": 1}).id == 4
    assert face(parcels.upsert, {"id": 4, "weight": 2}, ["id"]).weight == 2
    assert face(parcels.delete, 4)
    assert [each.note for each in face(parcels.list)] == ["one", "more", "three"]
    assert face(parcels.delete_where, [QueryFilter("id", "gt", 0)]) == 3
