"""`select` gives a statement that stays confined, whatever is added to it and whichever session runs it.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import func, select, union_all
from sqlalchemy.orm import aliased

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    BaseRepository,
    MisuseError,
    QueryFilter,
    QueryOptions,
    SortField,
    TenantIsolationError,
    ValidationError,
    all_of,
    any_of,
    none_of,
    unscoped,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted
from tests.models import Post, Tag, User

KINDS = ["plain", "guarded", "all tenants", "all tenants, guarded"]
"""The kinds of session and repository."""


@pytest.fixture
def seeded(face: Face) -> Face:
    """Two tenants with the same rows: three users, one of them deleted, and posts that refer across tenants too."""
    with face.session() as session:
        users = {}
        for tenant in "ab":
            repository = face.repository(session, User, tenant)
            for name in ("Ann", "Ben", "Cid"):
                users[tenant, name] = face(repository.create, {"name": name, "score": ord(name[0])})
            face(repository.delete, users[tenant, "Cid"].id)
        posts, tags = face.repository(session, Post, ALL_TENANTS), face.repository(session, Tag, ALL_TENANTS)
        for tenant, other in (("a", "a"), ("b", "b"), ("b", "a")):
            values = {"tenant_id": tenant, "title": f"{tenant} to {other}", "author_id": users[other, "Ann"].id}
            face(posts.create, values)
            face(tags.create, {"tenant_id": tenant, "name": tenant})
    return face


@contextmanager
def opened(face: Face, kind: str, model: Any = User) -> Iterator[tuple[Any, Any]]:
    """A session of this kind, and a repository on it."""
    tenant = ALL_TENANTS if kind.startswith("all") else "a"
    with face.guarded() if "guarded" in kind else face.session() as session:
        if kind == "all tenants, guarded":
            with unscoped(session, reason="test"):
                yield session, face.repository(session, model, tenant)
        else:
            yield session, face.repository(session, model, tenant)


ROWS: dict[str, tuple[Callable[[Any], Any], list[str], list[str]]] = {
    "as it is": (lambda users: users.select(), ["Ann", "Ben"], ["Ann", "Ann", "Ben", "Ben"]),
    "options": (
        lambda users: users.select({"filters": [QueryFilter("score", "lt", 66)], "sorts": [SortField("name")]}),
        ["Ann"],
        ["Ann", "Ann"],
    ),
    "a list of values": (
        lambda users: users.select({"filters": [QueryFilter("name", "in", ["Ann", "Cid", "x"])]}),
        ["Ann"],
        ["Ann", "Ann"],
    ),
    "with deleted": (
        lambda users: users.select({"include_deleted": True}),
        ["Ann", "Ben", "Cid"],
        ["Ann", "Ann", "Ben", "Ben", "Cid", "Cid"],
    ),
    "a path": (
        lambda users: users.select({"filters": [QueryFilter("posts.title", "eq", "b to a")]}),
        [],
        ["Ann"],
    ),
    "where": (lambda users: users.select().where(User.score > 65), ["Ben"], ["Ben", "Ben"]),
    "where true": (
        lambda users: users.select().where((User.score > 0) | (User.tenant_id == "b")),
        ["Ann", "Ben"],
        ["Ann", "Ann", "Ben", "Ben"],
    ),
    "another tenant": (lambda users: users.select().where(User.tenant_id == "b"), [], ["Ann", "Ben"]),
    "join": (lambda users: users.select().join(User.posts), ["Ann"], ["Ann", "Ann", "Ann"]),
    "join, where": (
        lambda users: users.select().join(User.posts).where(Post.title.like("b%")),
        [],
        ["Ann", "Ann"],
    ),
    "any": (lambda users: users.select().where(User.posts.any(Post.title.like("b%"))), [], ["Ann", "Ann"]),
    "outer join": (
        lambda users: users.select().outerjoin(User.posts).where(Post.title.is_(None)),
        ["Ben"],
        ["Ben", "Ben"],
    ),
    "limit": (
        lambda users: users.select({"sorts": [SortField("name"), SortField("tenant_id")]}).limit(1),
        ["Ann"],
        ["Ann"],
    ),
    "page, other limit": (
        lambda users: users.select({"sorts": [SortField("name")], "pagination": {"skip": 1, "limit": 1}}).limit(10),
        ["Ben"],
        ["Ann", "Ben", "Ben"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ROWS)
def test_the_rows(seeded: Face, kind: str, case: str) -> None:
    face = seeded
    make, own, everyone = ROWS[case]
    with opened(face, kind) as (session, users):
        assert users.db is session
        names = [each.name for each in face(lambda: session.scalars(make(users)))]
        assert sorted(names) == (everyone if kind.startswith("all") else own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_and_the_page_are_those_of_list(seeded: Face, kind: str) -> None:
    face = seeded
    for options in (
        {"sorts": [{"field": "score", "order": "desc"}]},
        {"sorts": [{"field": "name"}], "pagination": {"page": 2, "per_page": 1}},
        {"pagination": {"skip": 1, "limit": 2}},
    ):
        with opened(face, kind) as (session, users):
            listed = [each.id for each in face(users.list, options)]
            assert [each.id for each in face(session.scalars, users.select(options))] == listed


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_part_of_another_statement(seeded: Face, kind: str) -> None:
    face = seeded
    with opened(face, kind) as (session, users):
        many = 4 if kind.startswith("all") else 2
        one = users.select()
        counted_rows = select(func.count()).select_from(one.order_by(None).subquery())
        assert face(lambda: session.scalar(counted_rows)) == many
        both = union_all(one.order_by(None), users.select().order_by(None)).subquery()
        assert face(lambda: session.scalar(select(func.count()).select_from(both))) == 2 * many
        other = aliased(User, users.select().order_by(None).subquery())
        assert len(list(face(session.scalars, select(other)))) == many


def test_the_statements_of_two_tenants_do_not_share_a_parameter(seeded: Face) -> None:
    face = seeded
    with face.session() as session:
        parts = [face.repository(session, User, tenant).select().order_by(None).subquery() for tenant in "ab"]
        one, other = parts
        statement = select(one.c.tenant_id, other.c.tenant_id).join(other, one.c.name == other.c.name)
        assert {tuple(row) for row in face(lambda: session.execute(statement))} == {("a", "b")}


def test_the_statement_of_another_tenant_gives_nothing_on_a_guarded_session(seeded: Face) -> None:
    face = seeded
    with face.session() as session, face.guarded() as guarded:
        statement = face.repository(session, User, "b").select()
        face.repository(guarded, User, "a").select()
        assert list(face(guarded.scalars, statement)) == []
        with pytest.raises(TenantIsolationError):
            face.repository(guarded, User, "b").select()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_relationships_are_loaded_within_the_scope(seeded: Face, kind: str) -> None:
    face = seeded
    with opened(face, kind) as (session, users):
        statement = users.select({"relationships": ["posts"], "filters": [QueryFilter("name", value="Ann")]})
        with counted(face.engine) as sent:
            (ann,) = face(session.scalars, statement)
            assert [post.title for post in ann.posts] == ["a to a"]
        assert len([each for each in sent if each.startswith("SELECT")]) == 2


FILTERS: list[Any] = [
    QueryFilter("name", "eq", "Ann"),
    QueryFilter("name", "ne", "Ann"),
    QueryFilter("score", "gte", 66),
    QueryFilter("score", "between", (65, 66)),
    QueryFilter("score", "in", list(range(3000))),
    QueryFilter("name", "not_in", ["Ann"]),
    QueryFilter("name", "like", "An"),
    QueryFilter("name", "not_ilike", "a%"),
    QueryFilter("name", "starts_with", "B"),
    QueryFilter("name", "search", "ann"),
    QueryFilter("email", "is_null"),
    QueryFilter("status", "eq", "new"),
    QueryFilter("balance", "lte", "0.00"),
    QueryFilter("ratio", "eq", 0.1),
    QueryFilter("created_at", "gt", "2020-01-01"),
    QueryFilter("settings.theme", "eq", "dark"),
    QueryFilter("settings.sizes", "contains", [1]),
    QueryFilter("posts.title", "starts_with", "a"),
    QueryFilter("posts.author.name", "eq", "Ann"),
    any_of(QueryFilter("name", value="Ann"), all_of(QueryFilter("score", "gt", 65), QueryFilter("active", value=True))),
    none_of(QueryFilter("name", value="Ann")),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("each", FILTERS, ids=lambda each: f"{getattr(each, 'field', each)}")
def test_each_filter_as_in_list(seeded: Face, kind: str, each: Any) -> None:
    face = seeded
    with opened(face, kind) as (session, users):
        first = face(users.first).id
        values = {"settings": {"theme": "dark", "sizes": [1, 2]}, "ratio": 0.1}
        face(users.update, first, values)
        options = {"filters": [each], "sorts": [{"field": "name"}]}
        listed = [row.id for row in face(users.list, options)]
        assert [row.id for row in face(session.scalars, users.select(options))] == listed
        assert len(listed) == face(users.count, [each])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sort_by_relevance_and_by_a_path(seeded: Face, kind: str) -> None:
    face = seeded
    with opened(face, kind, Post) as (session, posts):
        for options in (
            {"filters": [QueryFilter("title", "search", "to")], "sorts": [{"field": "title", "by": "relevance"}]},
            {"sorts": [{"field": "author.name", "order": "desc"}, {"field": "title"}]},
        ):
            listed = [row.id for row in face(posts.list, options)]
            assert listed
            assert [row.id for row in face(session.scalars, posts.select(options))] == listed


def test_nothing_is_sent(face: Face) -> None:
    with face.session() as session, counted(face.engine) as sent:
        face.repository(session, User, "a").select(QueryOptions(filters=[QueryFilter("name", value="x")]))
        assert not session.in_transaction()
    assert sent == []


def test_what_is_refused(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        with pytest.raises(MisuseError, match="cursor"):
            users.select({"cursor_pagination": {"limit": 1}})
        with pytest.raises(ValidationError, match="did you mean 'name'"):
            users.select({"filters": [QueryFilter("nam", value="x")]})


def test_the_conditions_of_a_repository_hold(face: Face) -> None:
    base: Any = AsyncRepository if face.is_async else BaseRepository

    class Tags(base):  # type: ignore[misc]  # the base depends on the face
        def conditions(self) -> Any:
            return [Tag.name != "hidden"]

    with face.session() as session:
        tags = Tags(session, Tag, "t")
        face(tags.bulk_create, [{"name": "hidden"}, {"name": "shown"}])
        assert [each.name for each in face(lambda: session.scalars(tags.select()))] == ["shown"]


def test_of_a_mock(face: Face) -> None:
    tags: Any = (AsyncMockRepository if face.is_async else MockRepository)(Tag, tenant_id="t")
    tags.add_mock_data([{"name": "x"}, {"name": "y"}])
    assert [each.name for each in face(lambda: tags.db.scalars(tags.select().where(Tag.name > "x")))] == ["y"]


def test_with_a_lock(face: Face) -> None:
    with face.session() as session:
        statement = face.repository(session, Tag, "t").for_update().select()
        assert "FOR UPDATE" in str(statement)
