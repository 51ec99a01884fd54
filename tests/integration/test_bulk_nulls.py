"""Rows of which some have no value for a column are still one statement, and defaults apply as they do to one row."""

from __future__ import annotations

from typing import Any

import pytest

from dotmac_database import Database, ValidationError
from tests.conftest import Face, counted
from tests.models import Post, Status, User


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


@pytest.mark.parametrize("many", [5, 101])
def test_rows_come_back_in_the_order_of_the_given_ones(face: Face, many: int) -> None:
    """Also where they are sent as arrays."""
    numbers = [7 * n % many for n in range(many)]
    with face.session() as session:
        made = face(face.repository(session, Post, "a").bulk_create, [{"id": n, "title": f"t{n}"} for n in numbers])
        assert [(post.id, post.title, post.tenant_id) for post in made] == [(n, f"t{n}", "a") for n in numbers]


MANY: dict[str, Any] = {
    "bulk_create": lambda posts, row: posts.bulk_create([row]),
    "bulk_create, no rows back": lambda posts, row: posts.bulk_create([row] * 40, returning=False),
    "bulk_upsert": lambda posts, row: posts.bulk_upsert([row], ["id"]),
    "upsert": lambda posts, row: posts.upsert(row, ["id"]),
}


@pytest.mark.parametrize("way", MANY)
def test_a_relationship_is_refused_by_name_where_columns_alone_are_written(face: Face, way: str) -> None:
    with face.session() as session:
        user = face(face.repository(session, User, "t").create, {"name": "a"})
        posts = face.repository(session, Post, "t")
        rows: list[Any] = [{"id": 1, "title": "x", "author": user}, {"id": 1, "title": "x", "tags": []}]
        for row in rows + [Post(**row) for row in rows]:
            with pytest.raises(ValidationError, match=r"Post\.(author|tags) can't be written so") as refused:
                face(MANY[way], posts, row)
            assert refused.value.field in ("author", "tags")
        session.expunge_all()
        assert face(posts.count) == 0
