"""A mock answers as the databases do: the same calls on both, and the answers compared."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    ALL_TENANTS,
    DatabaseError,
    DatabaseTransaction,
    TenantRequiredError,
    ValidationError,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face
from tests.models import Country, Post, Seat, Status, User

ROWS = [
    {
        "id": UUID(int=number),
        "name": name,
        "email": f"{number}@example.org",
        "status": status,
        "score": score,
        "balance": Decimal(number) / 4,
        "settings": {"theme": theme},
        "seen_at": datetime(2024, 1, number, 12, tzinfo=UTC) if seen else None,
    }
    for number, name, status, score, theme, seen in [
        (1, "Ann", Status.ACTIVE, 3, "dark", True),
        (2, "anna_b", Status.NEW, None, "light", False),
        (3, "Bo%b", Status.CLOSED, 7, "dark", True),
        (4, "Émile", Status.ACTIVE, 7, None, False),
        (5, "zoë", Status.NEW, -1, "light", True),
    ]
]

QUERIES: list[dict[str, Any]] = [
    {},
    {"filters": [{"field": "name", "operator": "ilike", "value": "ann"}]},
    {"filters": [{"field": "name", "operator": "like", "value": "A%"}]},
    {"filters": [{"field": "name", "operator": "contains", "value": "%"}]},
    {"filters": [{"field": "score", "operator": "ne", "value": 7}]},
    {"filters": [{"field": "score", "operator": "not_in", "value": [3]}]},
    {"filters": [{"field": "score", "operator": "is_null"}]},
    {"filters": [{"field": "balance", "operator": "between", "value": ["0.25", "0.75"]}]},
    {"filters": [{"field": "seen_at", "operator": "gte", "value": "2024-01-03"}]},
    {"filters": [{"field": "settings.theme", "value": "dark"}]},
    {"filters": [{"field": "posts.title", "operator": "starts_with", "value": "On"}]},
    {"sorts": [{"field": "score"}, {"field": "name", "order": "desc"}]},
    {"sorts": [{"field": "score", "order": "desc", "nulls": "last"}]},
    {"sorts": [{"field": "status"}, {"field": "balance", "order": "desc"}]},
    {"sorts": [{"field": "seen_at", "order": "desc"}], "pagination": {"page": 2, "per_page": 2}},
]

MISTAKES: list[Callable[[Any], Any]] = [
    lambda users: users.get_by_id_or_raise(UUID(int=99)),
    lambda users: users.create({"name": "Ann again", "email": "1@example.org"}),
    lambda users: users.create({"email": "6@example.org"}),
    lambda users: users.create({"name": "x", "nmae": "y"}),
    lambda users: users.create({"name": "x", "tenant_id": "other"}),
    lambda users: users.update(UUID(int=1), {"score": 1}, expected_version=9),
    lambda users: users.list({"filters": [{"field": "scroe"}]}),
    lambda users: users.list({"sorts": [{"field": "scroe"}]}),
    lambda users: users.list({"filters": [{"field": "score", "value": "many"}]}),
    lambda users: users.cursor_paginate({"cursor_pagination": {"cursor": "forged"}}),
    lambda users: users.delete_where([]),
]


def mock_of(face: Face, model: Any, tenant: Any = None) -> Any:
    return (AsyncMockRepository if face.is_async else MockRepository)(model, tenant)


def filled(face: Face, users: Any, posts: Any) -> None:
    face(users.bulk_create, ROWS)
    face(posts.bulk_create, [{"id": 1, "title": "One", "author_id": UUID(int=2)}, {"id": 2, "title": "Two"}])


def shown(user: User) -> tuple[Any, ...]:
    return (user.id, user.tenant_id, user.name, user.status, user.score, user.balance, user.settings, user.seen_at)


@pytest.fixture
def pair(face: Face) -> Any:
    """A repository on the database and a mock, with the same rows."""
    mock = mock_of(face, User, "a")
    mock_posts = face.repository(mock.db, Post, "a")
    filled(face, mock, mock_posts)
    with face.session() as session:
        real = face.repository(session, User, "a")
        filled(face, real, face.repository(session, Post, "a"))
        yield real, mock


def test_filters_orders_and_pages_are_a_databases(face: Face, pair: Any) -> None:
    real, mock = pair
    for query in QUERIES:
        answers = []
        for users in (real, mock):
            page = face(users.list_paginated, query)
            cursor = face(users.cursor_paginate, {**query, "pagination": None, "cursor_pagination": {"limit": 2}})
            after = cursor.next_cursor and face(
                users.cursor_paginate,
                {**query, "pagination": None, "cursor_pagination": {"limit": 2, "cursor": cursor.next_cursor}},
            )
            answers.append(
                (
                    [shown(user) for user in face(users.list, query)],
                    [user.name for user in page.items],
                    (page.total, page.pages, page.has_next, page.has_prev),
                    [user.name for user in cursor.items],
                    after and [user.name for user in after.items],
                    [user.name for user in face(users.stream, {**query, "pagination": None}, batch_size=2)],
                )
            )
        assert answers[0] == answers[1], query


def test_errors_are_a_databases(face: Face, pair: Any) -> None:
    for mistake in MISTAKES:
        told = []
        for users in pair:
            with pytest.raises(DatabaseError) as caught:
                face(mistake, users)
            told.append(
                (type(caught.value), getattr(caught.value, "fields", None), getattr(caught.value, "field", None))
            )
            assert face(users.count) == len(ROWS)
        assert told[0] == told[1]


def test_writes_are_a_databases(face: Face, pair: Any) -> None:
    told = []
    for users in pair:
        one = UUID(int=1)
        assert face(users.update, one, {"score": 8}, "admin").version == 2
        assert face(users.delete, one, user_id="admin")
        assert face(users.get_by_id, one) is None
        assert face(users.restore, one).is_deleted is False
        face(users.upsert, {"name": "Up", "email": "3@example.org"}, ["email"])
        face(users.update_where, [{"field": "score", "value": 7}], {"score": 70})
        told.append([(user.name, user.score, user.version) for user in face(users.list)])
    assert told[0] == told[1]


class Searched(DeclarativeBase):
    pass


class Page(Searched):
    __tablename__ = "pages"

    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[Any] = mapped_column(TSVECTOR)


@pytest.mark.parametrize("kind", [MockRepository, AsyncMockRepository])
def test_a_model_that_sqlite_cannot_have_is_refused(kind: Any) -> None:
    with pytest.raises(ValidationError, match=r"Page can't be mocked: .*TSVECTOR"):
        kind(Page)


@pytest.mark.parametrize("kind", [MockRepository, AsyncMockRepository])
def test_mock_data_are_rows(kind: Any) -> None:
    countries = kind(Country)
    added = countries.add_mock_data([{"code": "NO", "name": "Norway"}, {"code": "IS", "name": "Iceland"}])
    assert [country.name for country in added] == ["Norway", "Iceland"]
    assert waited(countries.list({"sorts": [{"field": "name"}]})) == added[::-1]


@pytest.mark.parametrize("kind", [MockRepository, AsyncMockRepository])
def test_each_mock_is_alone(kind: Any) -> None:
    one, other = kind(Country), kind(Country)
    one.add_mock_data([{"code": "NO", "name": "Norway"}])
    assert waited(one.count()) == 1
    assert waited(other.count()) == 0


@pytest.mark.parametrize("kind", [MockRepository, AsyncMockRepository])
def test_tenants_are_kept_apart(kind: Any) -> None:
    with pytest.raises(TenantRequiredError):
        kind(User)
    ann = kind(User, "a")
    ann.add_mock_data([{"name": "Ann"}])
    other = ann.with_tenant("b")
    other.add_mock_data([{"name": "Bob"}])
    assert [user.name for user in waited(ann.list())] == ["Ann"]
    assert [user.name for user in waited(other.list())] == ["Bob"]
    assert waited(ann.with_tenant(ALL_TENANTS).count()) == 2


def test_a_composite_key() -> None:
    seats = MockRepository(Seat, 1)
    seats.add_mock_data([{"number": 7, "holder": "Ann"}])
    assert seats.get_by_id((1, 7)).holder == "Ann"


def test_foreign_keys_lead_nowhere_and_relationships_somewhere() -> None:
    posts = MockRepository(Post, "a")
    posts.add_mock_data([{"id": 1, "title": "Orphan", "author_id": UUID(int=5), "parent_id": 9}])
    assert posts.get_by_id(1, relationships=["author", "tags"]).author is None


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_transactions_hold() -> None:
    users = AsyncMockRepository(User, "a")

    async def undone() -> None:
        async with DatabaseTransaction.async_transaction(users.db):
            await users.create({"name": "Undone"})
            raise KeyError

    with pytest.raises(KeyError):
        await undone()
    async with DatabaseTransaction.async_transaction(users.db):
        await users.create({"name": "Done"})
    assert [user.name for user in await users.list()] == ["Done"]


class Shouting(AsyncMockRepository[Country]):
    async def get_by_id(self, entity_id: Any, include_deleted: bool = False, relationships: Any = None) -> Any:
        return await super().get_by_id(entity_id.upper(), include_deleted, relationships)


def test_an_override_takes_effect() -> None:
    countries = Shouting(Country)
    countries.add_mock_data([{"code": "NO", "name": "Norway"}])
    assert waited(countries.get_by_id_or_raise("no")).name == "Norway"


def waited(answer: Any) -> Any:
    """The answer of either face; what is awaited needs no event loop."""
    if not hasattr(answer, "__await__"):
        return answer
    with pytest.raises(StopIteration) as done:
        answer.send(None)
    return done.value.value


def test_a_mock_that_is_dropped_leaves_no_connection_behind() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (MockRepository, AsyncMockRepository):
            kind(Country).add_mock_data([{"code": "NO", "name": "Norway"}])
        gc.collect()


def test_the_mocks_need_no_async_driver(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            for name in ("aiosqlite", "asyncpg", "psycopg", "fastapi", "sqlmodel", "pytest"):
                sys.modules[name] = None
            from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
            from dotmac_database.testing import AsyncMockRepository, MockRepository

            class Base(DeclarativeBase): pass

            class Thing(Base):
                __tablename__ = "things"
                id: Mapped[int] = mapped_column(primary_key=True)

            assert MockRepository(Thing).create({"id": 1}).id == 1
            try:
                AsyncMockRepository(Thing).create({"id": 2}).send(None)
            except StopIteration as done:
                assert done.value.id == 2
        """)
    )
    done = subprocess.run([sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
