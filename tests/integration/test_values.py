"""Reads of columns alone: the same rows as dicts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    AsyncRepository,
    BaseRepository,
    PaginationResult,
    QueryFilter,
    SortField,
    SortOrder,
    ValidationError,
)
from tests.conftest import Face, counted
from tests.models import Status, User

COLUMNS = tuple(column.key for column in User.__table__.columns)


class Shapes(DeclarativeBase):
    """Classes that share tables."""


class Animal(Shapes):
    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - SQLAlchemy's form

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]


class Dog(Animal):
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Bird(Animal):
    __tablename__ = "birds"
    __mapper_args__ = {"polymorphic_identity": "bird"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    wings: Mapped[int]


@pytest.fixture(autouse=True)
def filled(face: Face) -> None:
    rows = [
        {
            "name": f"u{n:02}",
            "email": f"{n}@x" if n % 3 else None,
            "status": list(Status)[n % 3],
            "score": n % 4 if n % 5 else None,
            "ratio": n / 3,
            "balance": Decimal(n) / 4,
            "settings": {"n": n, "list": [1, "x", None]},
            "seen_at": datetime(2024, 1, 1, 12, 0, n, n, tzinfo=UTC),
            "born": date(2000, 1, 1) + timedelta(days=n),
            "wakes": time(6, n),
            "patience": timedelta(seconds=n),
            "avatar": bytes([n]),
            "active": bool(n % 2),
        }
        for n in range(20)
    ]
    with face.session() as session:
        face(face.repository(session, User, "a").bulk_create, rows)
        face(face.repository(session, User, "b").create, {"name": "foreign"})


@pytest.fixture
def users(face: Face) -> Iterator[Any]:
    with face.session() as session:
        yield face.repository(session, User, "a")


ORDERS: list[list[SortField]] = [
    [],
    [SortField("status", SortOrder.DESC), SortField("name")],
    [SortField("score"), SortField("email", nulls="first")],
    [SortField("seen_at", SortOrder.DESC)],
    [SortField("settings.n")],
]


@pytest.mark.parametrize("sorts", ORDERS)
def test_they_are_the_objects_values_in_their_order(face: Face, users: Any, sorts: list[SortField]) -> None:
    options = {"sorts": sorts, "filters": [QueryFilter("ratio", "gt", 0.5)]}
    expected = [{key: getattr(user, key) for key in COLUMNS} for user in face(users.list, options)]
    values = users.values(*COLUMNS)
    assert face(values.list, options) == expected
    assert face(values.first, options) == expected[0]
    assert face(values.stream, options, 7) == expected
    paged = face(values.list_paginated, {**options, "pagination": {"page": 2, "per_page": 5}})
    assert (paged.items, paged.total) == (expected[5:10], len(expected))
    assert {key: type(value) for key, value in paged.items[0].items()} == {
        key: type(value) for key, value in expected[5].items()
    }


@pytest.mark.parametrize("sorts", ORDERS)
def test_cursors_lead_on_in_either_kind_of_read(face: Face, users: Any, sorts: list[SortField]) -> None:
    names = [user.name for user in face(users.list, {"sorts": sorts})]
    values, found, cursor = users.values("name"), [], None
    for turn in range(5):
        asked = {"sorts": sorts, "cursor_pagination": {"limit": 4, "cursor": cursor}}
        if turn % 2:
            page = face(users.cursor_paginate, asked)
            found += [user.name for user in page.items]
        else:
            page = face(values.cursor_paginate, asked)
            found += [row["name"] for row in page.items]
        cursor = page.next_cursor
    assert found == names
    assert cursor is None
    back = face(values.cursor_paginate, {"sorts": sorts, "cursor_pagination": {"limit": 4, "cursor": page.prev_cursor}})
    assert [row["name"] for row in back.items] == names[12:16]


@pytest.mark.fast_way("page-totals")
def test_one_statement_reads_what_is_named_and_the_session_holds_nothing(face: Face, users: Any) -> None:
    with counted(face.engine) as sent:
        rows = face(users.values("name", "score", "name").list_paginated, {"pagination": {"per_page": 3}}).items
    selects = [each for each in sent if each.startswith("SELECT")]
    assert [list(row) for row in rows] == [["name", "score"]] * 3
    assert len(selects) == 1
    assert "email" not in selects[0]
    session = users.db.sync_session if face.is_async else users.db
    assert not len(session.identity_map)


def test_a_guarded_session_confines_them(face: Face) -> None:
    with face.guarded() as session:
        assert face(face.repository(session, User, "b").values("name").list) == [{"name": "foreign"}]


@pytest.mark.parametrize(
    ("fields", "named"), [((), "Name"), (("nmae",), "name"), (("posts",), "posts"), (("settings.n",), "settings.n")]
)
def test_what_is_no_column_is_refused(users: Any, fields: tuple[str, ...], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        users.values(*fields)


def test_relationships_are_refused(face: Face, users: Any) -> None:
    with pytest.raises(ValidationError, match="relationships"):
        face(users.values("name").list, {"relationships": ["posts"]})


def test_locks_and_tenants_go_with_them(face: Face, users: Any) -> None:
    assert face(users.with_tenant("b").values("name").list) == [{"name": "foreign"}]
    assert not users._fields


def test_an_override_is_used(face: Face) -> None:
    class Named(BaseRepository[User]):
        def list_paginated(self, options: Any = None) -> PaginationResult[User]:
            return PaginationResult(super().list_paginated(options).items[:1], 1, 1, 1)

    class AsyncNamed(AsyncRepository[User]):
        async def list_paginated(self, options: Any = None) -> PaginationResult[User]:
            return PaginationResult((await super().list_paginated(options)).items[:1], 1, 1, 1)

    with face.session() as session:
        users = (AsyncNamed if face.is_async else Named)(session, tenant_id="b")
        assert face(users.values("name").list_paginated) == PaginationResult([{"name": "foreign"}], 1, 1, 1)


def test_classes_that_share_tables(face: Face) -> None:
    engine = face.database.engine
    Shapes.metadata.create_all(engine)
    try:
        with face.session() as session:
            face(face.repository(session, Dog, "a").create, {"id": 1, "name": "rex"})
            face(face.repository(session, Bird, "a").create, {"id": 2, "name": "tweety", "wings": 2})
            face(face.repository(session, Bird, "b").create, {"id": 3, "name": "other", "wings": 2})

        def read(model: Any, *fields: str) -> Any:
            with face.session() as session:
                return face(face.repository(session, model, "a").values(*fields).list)

        assert read(Dog, "name", "kind") == [{"name": "rex", "kind": "dog"}]
        assert read(Bird, "name", "wings") == [{"name": "tweety", "wings": 2}]
        assert read(Animal, "name") == [{"name": "rex"}, {"name": "tweety"}]
    finally:
        Shapes.metadata.drop_all(engine)
