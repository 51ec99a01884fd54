"""Strict repositories: a lazy load is an error that says how to load the attribute.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import inspect, select

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    BaseRepository,
    DatabaseError,
    DatabaseTransaction,
    LazyLoadError,
    create_database,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted
from tests.models import Base, Post, Tag, User

KINDS = ("plain", "guarded", "all tenants", "expiring")


@contextmanager
def posts_of(face: Face, kind: str) -> Iterator[Any]:
    """A repository of posts on a session of this kind."""
    if kind == "guarded":
        with face.guarded() as session:
            yield face.repository(session, Post, "a")
        return
    with face.session(**({"expire_on_commit": True} if kind == "expiring" else {})) as session:
        yield face.repository(session, Post, ALL_TENANTS if kind == "all tenants" else "a")


@pytest.fixture
def key(face: Face) -> int:
    """The key of a post with an author and a tag."""
    with face.session() as session:
        author = face(face.repository(session, User, "a").create, {"name": "Ann"})
        posts = face.repository(session, Post, "a")
        tag = face(face.repository(session, Tag, "a").create, {"name": "t"})
        post = face(posts.create, {"title": "p", "author_id": author.id, "tags": [tag]})
        return int(post.id)


@contextmanager
def closed(face: Face) -> Iterator[None]:
    """Close the database at the end of the block."""
    try:
        yield
    finally:
        face.runner.run(face.database.dispose_async())


def filters(key: int) -> dict[str, Any]:
    return {"filters": [{"field": "id", "value": key}]}


READS: dict[str, Callable[[Face, Any, int, Any], Any]] = {
    "get_by_id": lambda f, r, k, names: f(r.get_by_id, k, relationships=names),
    "get_by_id_or_raise": lambda f, r, k, names: f(r.get_by_id_or_raise, k, relationships=names),
    "get_many": lambda f, r, k, names: f(r.get_many, [k], relationships=names)[0],
    "get_by_field": lambda f, r, _, names: f(r.get_by_field, "title", "p", relationships=names),
    "list_by_field": lambda f, r, _, names: f(r.list_by_field, "title", "p", relationships=names)[0],
    "first": lambda f, r, k, names: f(r.first, {**filters(k), "relationships": names}),
    "list": lambda f, r, k, names: f(r.list, {**filters(k), "relationships": names})[0],
    "page": lambda f, r, k, names: f(r.page, {**filters(k), "relationships": names}).items[0],
    "list_paginated": lambda f, r, k, names: f(r.list_paginated, {**filters(k), "relationships": names}).items[0],
    "cursor_paginate": lambda f, r, k, names: f(r.cursor_paginate, {**filters(k), "relationships": names}).items[0],
    "stream": lambda f, r, k, names: f(r.stream, {**filters(k), "relationships": names})[0],
}

WRITES: dict[str, Callable[[Face, Any, int], Any]] = {
    "create": lambda f, r, _: f(r.create, {"title": "n", "tenant_id": "a"}),
    "bulk_create": lambda f, r, _: f(r.bulk_create, [{"title": "n", "tenant_id": "a"}])[0],
    "upsert": lambda f, r, k: f(r.upsert, {"id": k, "title": "n", "tenant_id": "a"}, ["id"]),
    "bulk_upsert": lambda f, r, k: f(r.bulk_upsert, [{"id": k, "title": "n", "tenant_id": "a"}], ["id"])[0],
    "update": lambda f, r, k: f(r.update, k, {"title": "n"}),
    "restore": lambda f, r, k: f(r.restore, k),
}


def refused(entity: object, attribute: str, remedy: str) -> None:
    with pytest.raises(LazyLoadError) as error:
        getattr(entity, attribute)
    assert isinstance(error.value, DatabaseError)
    name = type(entity).__name__
    assert (error.value.model, error.value.attribute) == (name, attribute)
    assert f"{name}.{attribute}" in str(error.value)
    assert remedy in str(error.value)


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_read_did_not_load_is_refused(face: Face, kind: str, method: str, key: int) -> None:
    with posts_of(face, kind) as posts:
        before = face(posts.explain_route)
        with counted(face.engine) as usual:
            READS[method](face, posts, key, None)
        face(posts.db.rollback)
        with counted(face.engine) as sent:
            post = READS[method](face, posts.strict(), key, None)
            refused(post, "author", 'relationships=["author"]')
            refused(post, "tags", 'relationships=["tags"]')
        assert sent == usual
        face(posts.db.rollback)
        assert face(posts.explain_route) == face(posts.strict().explain_route) == before


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_read_loads_works_and_is_strict_too(face: Face, kind: str, method: str, key: int) -> None:
    with posts_of(face, kind) as posts:
        post = READS[method](face, posts.strict(), key, ["author", "tags"])
        assert (post.author.name, [tag.name for tag in post.tags]) == ("Ann", ["t"])
        refused(post.author, "posts", 'relationships=["posts"]')
        refused(post.tags[0], "posts", 'relationships=["posts"]')


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_write_returns_is_strict(face: Face, kind: str, method: str, key: int) -> None:
    with posts_of(face, kind) as posts, counted(face.engine) as sent:
        post = WRITES[method](face, posts.strict(), key)
        assert post.title in ("n", "p")
        many = len(sent)
        if "tags" not in inspect(post).dict:
            refused(post, "tags", 'relationships=["tags"]')
        refused(post, "replies", 'relationships=["replies"]')
        assert len(sent) == many


@pytest.mark.parametrize("kind", KINDS)
def test_plain_repositories_are_not_strict(face: Face, kind: str, key: int) -> None:
    if face.is_async:
        pytest.skip("a lazy load fails there in any case")
    with posts_of(face, kind) as posts:
        post = face(posts.get_by_id, key)
        assert post.author.name == "Ann"
        face(posts.strict().get_by_id, key)
        refused(post, "replies", 'relationships=["replies"]')
        face(posts.get_by_id, key)
        refused(post, "replies", 'relationships=["replies"]')


def test_a_loaded_target_is_no_load(face: Face, key: int) -> None:
    """A to-one relationship whose target the session holds sends nothing, so it is not refused."""
    with face.session() as session:
        post = face(face.repository(session, Post, "a").strict().get_by_id, key)
        author = face(face.repository(session, User, "a").get_by_id, post.author_id)
        assert post.author is author


def test_expired_columns(face: Face, key: int) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a").strict()
        post = face(posts.get_by_id, key)
        session.expire(post)
        refused(post, "title", "refresh")
        face(session.refresh, post)
        assert post.title == "p"
        face(session.refresh, post, ["author", "tags"])
        assert (post.author.name, len(post.tags)) == ("Ann", 1)
        session.expire(post)
        assert face(posts.get_by_id, key).title == "p"


def test_a_commit_that_expires(face: Face, key: int) -> None:
    with face.session(expire_on_commit=True) as session:
        posts = face.repository(session, Post, "a").strict()
        with face.entered(
            DatabaseTransaction.async_transaction(session)
            if face.is_async
            else DatabaseTransaction.sync_transaction(session)
        ):
            post = face(posts.get_by_id, key)
        assert post.title == "p"  # a repository's entities keep their values
        face(session.commit)
        session.expire_all()
        refused(post, "title", "refresh")
        face(session.refresh, post)
        assert post.title == "p"


@pytest.mark.parametrize("kind", ["plain", "guarded", "expiring"])
def test_units_of_work_load_what_they_need(face: Face, kind: str, key: int) -> None:
    with posts_of(face, kind) as posts:
        session = posts.db
        post = face(posts.strict().get_by_id, key)
        with pytest.raises(LazyLoadError):
            post.tags = []  # SQLAlchemy would load the members that it has to remove
        face(session.refresh, post, ["tags"])
        post.title = "changed"
        post.tags = []
        face(session.commit)
        assert face(posts.get_by_id, key, relationships=["tags"]).tags == []
        strict = face(posts.strict().get_by_id, key)
        merged = face(session.merge, Post(id=key, tenant_id="a", title="merged", tags=[]))
        assert merged is strict
        session.expire(strict, ["title"])
        face(session.delete, strict)
        face(session.commit)
        assert face(posts.get_by_id, key) is None


def test_writes_through_relationships(face: Face, key: int) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a").strict()
        face(posts.get_by_id, key)
        assert face(posts.update, key, {"tags": []}).tags == []
        assert face(posts.delete, key) is True


def test_callbacks_of_batches_are_the_users_code(face: Face, key: int) -> None:
    def work(batch: list[Any]) -> None:
        for post in batch:
            refused(post, "author", 'relationships=["author"]')

    with face.session() as session:
        assert face(face.repository(session, Post, "a").strict().in_batches, work) == 1


def test_copies_keep_it(face: Face, key: int) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "b").strict().with_tenant("a")
        refused(face(posts.get_by_id, key), "author", 'relationships=["author"]')
        assert face(posts.values("title").list) == [{"title": "p"}]


@pytest.mark.parametrize("strict_loading", [True, False])
def test_a_database_makes_it_the_rule(face: Face, strict_loading: bool, key: int) -> None:
    other = Face(face.name, create_database(face.database.url, strict_loading=strict_loading), face.runner)
    with closed(other), other.session(info={"own": 1}) as session:
        assert session.info["own"] == 1
        post = other(other.repository(session, Post, "a").get_by_id, key)
        if strict_loading:
            refused(post, "author", 'relationships=["author"]')
        elif not face.is_async:
            assert post.author.name == "Ann"
        user = next(iter(other(session.scalars, select(User).where(User.tenant_id == "a"))))
        if not face.is_async:
            assert user.posts == [post]  # a statement by hand is not strict


def test_mocks() -> None:
    posts = MockRepository(Post, "a").strict()
    post = posts.create({"title": "p"})
    refused(posts.get_by_id_or_raise(post.id), "tags", 'relationships=["tags"]')
    assert posts.get_by_id_or_raise(post.id, relationships=["tags"]).tags == []

    async def run() -> None:
        posts = AsyncMockRepository(Post, "a").strict()
        post = await posts.create({"title": "p"})
        refused(await posts.get_by_id_or_raise(post.id), "tags", 'relationships=["tags"]')

    asyncio.run(run())


def test_both_return_their_own_class() -> None:
    assert BaseRepository.strict is AsyncRepository.strict
    assert Base.metadata.tables
