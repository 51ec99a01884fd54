"""UUID keys that ``new_id`` of the database makes: in each method that inserts rows, for each form of the column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import String, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import TenantMixin, ValidationError, create_database, tenant_unique
from tests.conftest import Face


class Base(DeclarativeBase):
    pass


class Thing(TenantMixin, Base):
    __tablename__ = "things"
    __table_args__ = (tenant_unique("name"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))


class Written(TenantMixin, Base):
    __tablename__ = "written"
    __table_args__ = (tenant_unique("name"),)

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    name: Mapped[str] = mapped_column(String(20))


class Own(TenantMixin, Base):
    """Its column has a default, which comes before ``new_id``."""

    __tablename__ = "own"
    __table_args__ = (tenant_unique("name"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=lambda: UUID(int=uuid4().int | 1 << 127))
    name: Mapped[str] = mapped_column(String(20))


@pytest.fixture(scope="module")
def tables() -> Any:
    return Base.metadata


@pytest.fixture
def own_ids(face: Face) -> Iterator[tuple[Face, list[UUID]]]:
    """A face of a database whose keys are counted from 1, and the keys that were made."""
    made: list[UUID] = []

    def new_id() -> UUID:
        made.append(UUID(int=len(made) + 1))
        return made[-1]

    database = create_database(face.database.url, new_id=new_id)
    yield Face(face.name, database, face.runner), made
    face.runner.run(database.dispose_async())


GIVEN = UUID(int=77)
METHODS: dict[str, Callable[[Face, Any], list[Any]]] = {
    "create": lambda face, things: [face(things.create, {"name": "a"})],
    "bulk_create": lambda face, things: face(things.bulk_create, [{"name": "a"}, {"name": "b"}]),
    "bulk_create, one given": lambda face, things: face(
        things.bulk_create, [{"name": "a"}, {"name": "given", "id": GIVEN}, {"name": "c", "id": None}]
    ),
    "upsert": lambda face, things: [face(things.upsert, {"name": "a"}, ["name"])],
    "bulk_upsert": lambda face, things: face(things.bulk_upsert, [{"name": "a"}, {"name": "b"}], ["name"]),
    "get_or_create": lambda face, things: [face(things.get_or_create, {"name": "a"}, ["name"])[0]],
}


@pytest.mark.parametrize("model", [Thing, Written])
@pytest.mark.parametrize("method", METHODS)
def test_each_new_row_has_a_key_of_new_id(own_ids: tuple[Face, list[UUID]], method: str, model: type[Any]) -> None:
    face, made = own_ids
    with face.session() as session:
        rows = METHODS[method](face, face.repository(session, model, "t"))
        keys = [UUID(str(row.id)) for row in rows if row.name != "given"]
        stored = face(face.repository(session, model, "t").list)
    # get_or_create makes a key before it knows whether it needs one.
    assert keys
    assert keys == made[-len(keys) :]
    assert {UUID(str(row.id)) for row in stored} == {*keys, *(GIVEN for row in rows if row.name == "given")}


@pytest.mark.parametrize("method", METHODS)
def test_a_default_of_the_column_comes_first(own_ids: tuple[Face, list[UUID]], method: str) -> None:
    face, made = own_ids
    with face.session() as session:
        rows = METHODS[method](face, face.repository(session, Own, "t"))
        assert all(row.id.int >> 127 for row in rows if row.name != "given")
    assert made == []


def test_without_it_they_are_of_version_7(face: Face) -> None:
    with face.session() as session:
        things = face.repository(session, Thing, "t")
        assert face(things.create, {"name": "a"}).id.version == 7
        assert {row.id.version for row in face(things.bulk_create, [{"name": "b"}, {"name": "c"}])} == {7}


def test_what_is_no_uuid_is_refused(face: Face) -> None:
    database = create_database(face.database.url, new_id=lambda: "no uuid")  # type: ignore[arg-type,return-value]
    other = Face(face.name, database, face.runner)
    with other.session() as session, pytest.raises(ValidationError, match=r"Thing\.id"):
        other(other.repository(session, Thing, "t").create, {"name": "a"})
    face.runner.run(database.dispose_async())
