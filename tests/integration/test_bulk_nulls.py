"""Rows of which some have no value for a column are still one statement, and defaults apply as they do to one row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import CHAR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import Database, TenantMixin
from tests.conftest import Face, counted
from tests.models import Post, Status, User


class Own(DeclarativeBase):
    """A table of this module."""


class Padded(TenantMixin, Own):
    __tablename__ = "padded"

    code: Mapped[str] = mapped_column(CHAR(6), primary_key=True)
    title: Mapped[str]


@pytest.fixture
def padded(face: Face) -> Iterator[None]:
    Own.metadata.create_all(face.database.engine)
    yield
    Own.metadata.drop_all(face.database.engine)


@pytest.mark.parametrize("returning", [True, False])
@pytest.mark.parametrize("size", [6, 60])
def test_missing_values_split_no_statement(face: Face, database: Database, returning: bool, size: int) -> None:
    rows = [{"name": f"n{n}", "score": n if n % 2 else None, "ratio": None if n % 3 else 0.5} for n in range(size)]
    with face.session() as session, counted(face.engine) as sent:
        face(face.repository(session, User, "t").bulk_create, rows, returning=returning)
    assert len([each for each in sent if each.startswith("INSERT")]) == 1
    with face.session() as session:
        users = {user.name: user for user in face(face.repository(session, User, "t").list)}
    assert {name: (user.score, user.ratio) for name, user in users.items()} == {
        row["name"]: (row["score"], row["ratio"]) for row in rows
    }


@pytest.mark.parametrize("returning", [True, False])
@pytest.mark.parametrize("size", [2, 40])
def test_none_leaves_a_column_to_its_default(face: Face, database: Database, returning: bool, size: int) -> None:
    row = {"name": "a", "status": None, "active": None, "score": None}
    with face.session() as session:
        users = face.repository(session, User, "t")
        one = face(users.create, row)
        face(users.bulk_create, [row] * size, returning=returning)
    with face.session() as session:
        found = face(face.repository(session, User, "t").list)
    assert len(found) == size + 1
    assert {(user.status, user.active, user.score) for user in found} == {(one.status, one.active, one.score)}
    assert one.status is Status.NEW


def test_an_upsert_writes_none_over_a_value(face: Face, database: Database) -> None:
    with face.session() as session:
        users = face.repository(session, User, "t")
        face(users.create, {"name": "a", "email": "a@x", "score": 3})
        rows = [{"name": "b", "email": "a@x", "score": None}, {"name": "c", "email": "c@x", "score": 4}]
        changed = face(users.bulk_upsert, rows, ["email"])
    assert [(user.name, user.score) for user in changed] == [("b", None), ("c", 4)]


@pytest.mark.usefixtures("padded")
@pytest.mark.parametrize("model", [Post, Padded])
def test_many_rows_come_back_in_the_order_of_the_given_ones(face: Face, model: Any) -> None:
    """Also where they are sent as arrays, and where a key comes back padded."""
    numbers = [7 * n % 101 for n in range(101)]
    with face.session() as session:
        rows = face.repository(session, model, "a")
        key = "id" if model is Post else "code"
        given = [{key: n if model is Post else f"{n}", "title": f"t{n}"} for n in numbers]
        made = face(rows.bulk_create, given)
        assert [row.title for row in made] == [f"t{n}" for n in numbers]
        assert all(row.tenant_id == "a" for row in made)
