"""The driver outside of a transaction, after the types of a table have changed, on a plain session."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.conftest import DRIVERS, Face, Faces
from tests.ways import block, create_tables, way_of

pytestmark = pytest.mark.fast_way("driver")


class Base(DeclarativeBase):
    """The table that changes."""


class Thing(Base):
    __tablename__ = "stale_things"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int]


PREPARED_AFTER = 8
"""After so many calls, each driver has prepared the statement: psycopg does it at the sixth."""


@pytest.fixture(params=[name for name, (_, scheme) in DRIVERS.items() if scheme != "sqlite"])
def face(request: pytest.FixtureRequest, faces: Faces) -> Iterator[Face]:
    face = faces[request.param]
    create_tables(face, Base.metadata)
    yield face
    create_tables(face, Base.metadata)  # closes the connections


def read(face: Face) -> int:
    with face.session(expire_on_commit=False) as session:
        thing = face(face.repository(session, Thing).get_by_id, 1)
    return int(thing.size)


def written(face: Face, number: int) -> int:
    with face.session(expire_on_commit=False) as session:
        thing = face(face.repository(session, Thing).update, 1, {"size": number})
    return int(thing.size)


def change_type(url: str, name: str) -> None:
    with psycopg.connect(url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True) as connection:
        connection.execute(f"ALTER TABLE stale_things ALTER COLUMN size TYPE {name}".encode())


def prepare(face: Face) -> None:
    with face.session() as session:
        face(face.repository(session, Thing).create, {"id": 1, "size": 1})
    for number in range(PREPARED_AFTER):
        assert written(face, number) == number
        assert read(face) == number


def test_the_next_statements_of_the_connection(face: Face, postgres_url: str) -> None:
    with way_of(face.engine, "driver"):
        prepare(face)
        change_type(postgres_url, "bigint")
        assert written(face, 50) == 50
        assert read(face) == 50


def test_another_connection_of_the_pool(face: Face, postgres_url: str) -> None:
    """It forgets its plans before its next statement, because the first connection has noticed the change."""
    with way_of(face.engine, "driver"), face.session(expire_on_commit=False) as session:
        prepare(face)
        change_type(postgres_url, "bigint")
        with block(face, session):
            assert face(face.repository(session, Thing).get_by_id, 1).size == PREPARED_AFTER - 1
            assert read(face) == PREPARED_AFTER - 1
        assert written(face, 60) == 60
