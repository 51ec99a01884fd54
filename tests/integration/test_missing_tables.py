"""A table or a column that the database lacks: the error says so, and asks for the migrations, on each driver."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import DatabaseError
from tests.conftest import DRIVERS, Face, Faces


class Base(DeclarativeBase): ...


class Absent(Base):
    __tablename__ = "absent"

    id: Mapped[int] = mapped_column(primary_key=True)


class Older(Base):
    """Its table was made before the column ``note``."""

    __tablename__ = "older"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(String(10))


class Elsewhere(Base):
    __tablename__ = "elsewhere"
    __table_args__ = {"schema": "nowhere"}  # noqa: RUF012 - SQLAlchemy's own form

    id: Mapped[int] = mapped_column(primary_key=True)


CALLS: dict[str, Any] = {
    "list": lambda face, repository: face(repository.list),
    "delete": lambda face, repository: face(repository.delete, 1),
    "get": lambda face, repository: face(repository.get_by_id, 1),
    "create": lambda face, repository: face(repository.create, {"note": "x"}),
    "bulk_create": lambda face, repository: face(repository.bulk_create, [{"note": "x"}]),
}


@pytest.fixture
def face(faces: Faces, request: pytest.FixtureRequest) -> Face:
    face = faces[request.param]
    with face.database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS older (id INTEGER PRIMARY KEY)"))
    return face


@pytest.mark.every_cell
@pytest.mark.parametrize(
    ("model", "what", "call"),
    [
        *((model, "table", call) for model in (Absent, Elsewhere) for call in ("delete", "get", "list")),
        *((Older, "column", call) for call in ("get", "list", "create", "bulk_create")),
    ],
)
@pytest.mark.parametrize("face", DRIVERS, indirect=True)
def test_what_is_missing_is_named(face: Face, call: str, model: type, what: str) -> None:
    with face.session() as session, pytest.raises(DatabaseError) as caught:
        CALLS[call](face, face.repository(session, model))
    assert type(caught.value) is DatabaseError
    assert f"{model.__name__}: the database has no such {what}" in str(caught.value)
    assert str(caught.value).endswith("Were all migrations run?")
