"""Relationships that are filtered, sorted and limited within each parent.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import ForeignKey, ForeignKeyConstraint, MetaData, func, inspect, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import (
    ALL_TENANTS,
    Count,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    TenantMixin,
    ValidationError,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted
from tests.models import Base, Post, Tag, User, post_tags

KINDS = ("plain", "guarded", "all tenants")
NEWEST = SortField("words", SortOrder.DESC)


class Shelves(DeclarativeBase):
    """Composite keys, and joined inheritance on both sides."""


class Shelf(TenantMixin, Shelves):
    __tablename__ = "within_shelves"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shelf"}  # noqa: RUF012 - SQLAlchemy's form
    room: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    books: Mapped[list[Book]] = relationship(back_populates="shelf")


class Tall(Shelf):
    __tablename__ = "within_tall"
    __mapper_args__ = {"polymorphic_identity": "tall"}  # noqa: RUF012
    __table_args__ = (ForeignKeyConstraint(["room", "number"], ["within_shelves.room", "within_shelves.number"]),)
    room: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    height: Mapped[int]


class Book(TenantMixin, Shelves):
    __tablename__ = "within_books"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "book"}  # noqa: RUF012
    __table_args__ = (ForeignKeyConstraint(["room", "number"], ["within_shelves.room", "within_shelves.number"]),)
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    room: Mapped[int]
    number: Mapped[int]
    shelf: Mapped[Shelf] = relationship(back_populates="books")


class Atlas(Book):
    __tablename__ = "within_atlases"
    __mapper_args__ = {"polymorphic_identity": "atlas"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("within_books.id"), primary_key=True)
    maps: Mapped[int]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    both = MetaData()
    for metadata in (Base.metadata, Shelves.metadata):
        for table in metadata.tables.values():
            table.to_metadata(both)
    return both


@contextmanager
def repository_of(face: Face, kind: str, model: Any) -> Iterator[Any]:
    if kind == "guarded":
        with face.guarded() as session:
            yield face.repository(session, model, "a")
        return
    with face.session() as session:
        yield face.repository(session, model, ALL_TENANTS if kind == "all tenants" else "a")


def fill(face: Face, authors: int = 3, posts: int = 5) -> None:
    """Authors with posts, of which one is deleted and one is another tenant's; all would be among the newest."""
    with face.session() as session:
        users = face(face.repository(session, User, "a").bulk_create, [{"name": f"u{n:04}"} for n in range(authors)])
        rows = [
            {"title": f"p{n}", "words": n, "author_id": user.id, "is_deleted": n == 90}
            for user in users
            for n in (*range(posts), 90)
        ]
        face(face.repository(session, Post, "a").bulk_create, rows)
        foreign = [{"title": "foreign", "words": 91, "author_id": user.id} for user in users]
        face(face.repository(session, Post, "b").bulk_create, foreign)


@pytest.fixture
def filled(face: Face) -> None:
    fill(face)


def one(face: Face, reads: Any) -> Any:
    return face(reads.first, {"sorts": [SortField("name")]}).id


READS: dict[str, Callable[[Face, Any, Any], list[Any]]] = {
    "get_by_id": lambda f, r, names: [f(r.get_by_id, one(f, r), relationships=names)],
    "get_by_id_or_raise": lambda f, r, names: [f(r.get_by_id_or_raise, one(f, r), relationships=names)],
    "get_many": lambda f, r, names: f(r.get_many, [one(f, r)], relationships=names),
    "get_by_field": lambda f, r, names: [f(r.get_by_field, "name", "u0001", relationships=names)],
    "list_by_field": lambda f, r, names: f(r.list_by_field, "name", "u0001", relationships=names),
    "first": lambda f, r, names: [f(r.first, {"relationships": names})],
    "list": lambda f, r, names: f(r.list, {"relationships": names}),
    "page": lambda f, r, names: f(r.page, {"relationships": names}).items,
    "list_paginated": lambda f, r, names: f(r.list_paginated, {"relationships": names}).items,
    "cursor_paginate": lambda f, r, names: f(r.cursor_paginate, {"relationships": names}).items,
    "stream": lambda f, r, names: f(r.stream, {"relationships": names}, 2),
}


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("filled")
def test_each_read_limits_within_each_parent(face: Face, kind: str, method: str) -> None:
    with repository_of(face, kind, User) as users:
        options = {"filters": [{"field": "words", "operator": "ne", "value": 3}], "sorts": [NEWEST]}
        names = {"posts": {**options, "pagination": {"per_page": 3}}, "posts.author": None}
        entities = READS[method](face, users.strict(), names)
        assert len(entities) == (3 if method in ("list", "page", "list_paginated", "cursor_paginate", "stream") else 1)
        for user in entities:
            words = [91, 4, 2] if kind == "all tenants" else [4, 2, 1]
            assert [post.words for post in user.posts] == words
            assert all(post.author is user for post in user.posts)
        session = users.db.sync_session if face.is_async else users.db
        assert not session.dirty


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_statements_for_any_number_of_parents(face: Face, kind: str) -> None:
    numbers = set()
    for authors in (1, 1000):
        fill(face, authors, 2)
        with repository_of(face, kind, User) as users, counted(face.engine) as sent:
            names = {
                "posts": {"sorts": [NEWEST], "pagination": {"per_page": 1}},
                "posts.tags": {"sorts": [SortField("name")]},
            }
            found = face(users.list, {"relationships": names})
            assert {post.words for user in found for post in user.posts} == {91 if kind == "all tenants" else 1}
        assert len(found) >= authors
        numbers.add(len([each for each in sent if each.startswith("SELECT")]))
    assert numbers == {3}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("filled")
def test_many_to_many_and_self_referential(face: Face, kind: str) -> None:
    with face.session() as session:
        posts, tags = face.repository(session, Post, "a"), face.repository(session, Tag, "a")
        foreign = face(face.repository(session, Tag, "b").create, {"name": "z"})
        mine = [face(tags.create, {"name": name}) for name in "abcd"]
        root = face(posts.create, {"title": "root", "tags": mine})
        with face.database.engine.begin() as connection:  # a link that should not exist
            connection.execute(post_tags.insert().values(post_id=root.id, tag_id=foreign.id))
        for n in range(4):
            reply = face(posts.create, {"title": f"r{n}", "words": n, "parent_id": root.id})
            for m in range(3):
                face(posts.create, {"title": f"r{n}{m}", "words": m, "parent_id": reply.id})
    with repository_of(face, kind, Post) as repository:
        names = {
            "tags": {"sorts": [SortField("name", SortOrder.DESC)], "pagination": {"per_page": 2}},
            "replies": {"sorts": [NEWEST], "filters": [QueryFilter("words", "lt", 3)]},
            "replies.replies": {"sorts": [NEWEST], "pagination": {"page": 2, "per_page": 1}},
        }
        found = face(repository.get_by_id, root.id, relationships=names)
        assert [tag.name for tag in found.tags] == (["z", "d"] if kind == "all tenants" else ["d", "c"])
        assert [reply.title for reply in found.replies] == ["r2", "r1", "r0"]
        assert [[each.title for each in reply.replies] for reply in found.replies] == [["r21"], ["r11"], ["r01"]]
    with repository_of(face, kind, Tag) as repository:
        for tag in face(repository.list, {"relationships": {"posts": {"filters": [QueryFilter("title", value="no")]}}}):
            assert tag.posts == []


@pytest.mark.parametrize("kind", KINDS)
def test_composite_keys_and_inheritance(face: Face, kind: str) -> None:
    with face.session() as session:
        shelves, tall = face.repository(session, Shelf, "a"), face.repository(session, Tall, "a")
        books, atlases = face.repository(session, Book, "a"), face.repository(session, Atlas, "a")
        face(shelves.create, {"room": 1, "number": 1})
        face(tall.create, {"room": 1, "number": 2, "height": 3})
        for number in (1, 2):
            for n in range(3):
                row = {"title": f"{number}{n}", "room": 1, "number": number}
                face(books.create, row)
                face(atlases.create, {**row, "title": f"{number}{n}x", "maps": n})
    with repository_of(face, kind, Shelf) as repository:
        names = {"books": {"sorts": [SortField("title", SortOrder.DESC)], "pagination": {"per_page": 2}}}
        found = face(repository.list, {"relationships": names})
        assert [type(each) for each in found] == [Shelf, Tall]
        assert [[book.title for book in each.books] for each in found] == [["12x", "12"], ["22x", "22"]]
        assert type(found[0].books[0]) is Atlas
    with repository_of(face, kind, Tall) as repository:
        found = face(repository.get_by_id, (1, 2), relationships=names)
        assert [book.title for book in found.books] == ["22x", "22"]
    for model, number in ((Shelf, 2), (Tall, 1)):
        with repository_of(face, kind, model) as repository:
            some = Count("books", filters=[QueryFilter("title", "ends_with", "x"), QueryFilter("shelf.room", value=1)])
            reads = repository.values("number", all=Count("books"), some=some)
            rows = face(reads.list, {"sorts": [SortField("all"), SortField("some"), SortField("number")]})
            assert rows == [{"number": each, "all": 6, "some": 3} for each in (1, 2)[-number:]]
    with repository_of(face, kind, Atlas) as repository:
        rows = face(repository.values("title", n=Count("shelf")).list, {"sorts": [SortField("n"), SortField("title")]})
        assert [row["n"] for row in rows] == [1] * 6
        names = {"shelf": {"filters": [QueryFilter("number", value=2)]}}
        found = face(repository.list, {"relationships": names, "sorts": [SortField("title")]})
        assert [each.shelf and type(each.shelf) for each in found] == [None] * 3 + [Tall] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("filled")
def test_a_filtered_collection_is_never_written(face: Face, kind: str) -> None:
    with repository_of(face, kind, User) as users:
        every = face(users.list, {"relationships": ["posts"]})
        before = {user.id: len(user.posts) for user in every}
        names = {"posts": {"sorts": [NEWEST], "pagination": {"per_page": 1}}}
        again = face(users.list, {"relationships": names})
        assert all(each is other for each, other in zip(every, again, strict=True))
        assert [len(user.posts) for user in again] == [1, 1, 1]  # fresh, though the whole collection was loaded
        session = users.db
        first, second, third = again
        ids = [user.id for user in again]
        first.posts.append(Post(title="new", words=50, tenant_id="a"))
        second.posts.remove(second.posts[0])
        third.name = "renamed"
        face(session.commit)
    with face.session() as session:
        by_author = select(Post.author_id, func.count()).where(Post.author_id.is_not(None)).group_by(Post.author_id)
        totals = dict(iter(face(session.execute, by_author)))
    extra = 1 if kind == "all tenants" else 2  # the deleted post, and the other tenant's
    assert [totals[each] - before[each] - extra for each in ids] == [1, -1, 0]


@pytest.mark.usefixtures("filled")
def test_a_parent_with_a_filtered_collection_can_be_deleted(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = face(users.first, {"relationships": {"posts": {"pagination": {"per_page": 1}}}})
        face(face.repository(session, Post, "b").delete_where, [], soft_delete=False, allow_all=True)
        assert len(user.posts) == 1
        assert face(users.delete, user.id, soft_delete=False)
        assert face(face.repository(session, Post, "a").count, [QueryFilter("author_id", "is_null")], True) == 6


@pytest.mark.usefixtures("filled")
def test_pending_changes_stay(face: Face) -> None:
    with face.session(autoflush=False) as session:
        users = face.repository(session, User, "a")
        user = face(users.first, {"relationships": ["posts"]})
        new = Post(title="new", tenant_id="a")
        user.posts.append(new)
        session.expunge(new)
        face(users.first, {"relationships": {"posts": {"pagination": {"per_page": 1}}}})
        assert new in user.posts
        assert "posts" in inspect(user).committed_state


@pytest.mark.usefixtures("filled")
def test_filters_of_to_one_relationships(face: Face) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        names = {
            "author": {
                "filters": [QueryFilter("name", value="u0001")],
                "relationships": {"posts": {"pagination": {"per_page": 1}}},
            }
        }
        found = face(posts.list, {"relationships": names})
        assert {post.author.name for post in found if post.author} == {"u0001"}
        assert len([post for post in found if post.author is None]) == 10
        assert {len(post.author.posts) for post in found if post.author} == {1}
        face(session.commit)
        assert face(posts.count, [QueryFilter("author", "is_not_null")]) == 15


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"author": {"sorts": [SortField("name")]}}, "author leads to one row"),
        ({"author": {"pagination": {"per_page": 2}}}, "author leads to one row"),
        ({"tags": {"cursor_pagination": {"limit": 2}}}, "tags: related rows have no cursors"),
        ({"tgas": {}}, "no relationship 'tgas'; did you mean 'tags'"),
        ({"tags.psots": {}}, "no relationship 'psots'"),
        ({"tags": {"filters": [QueryFilter("nmae")]}}, "did you mean 'name'"),
        ({"tags": {"sorts": [SortField("nmae")]}}, "did you mean 'name'"),
        ({"tags": {"pagination": {"per_page": 0}}}, "per_page"),
    ],
)
def test_what_makes_no_sense_is_refused(face: Face, names: Any, message: str) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        face(posts.create, {"title": "p"})
        with pytest.raises(ValidationError, match=message):
            face(posts.list, {"relationships": names})
        with pytest.raises(ValidationError, match=message):
            face(posts.get_many, [1], relationships=names)


@pytest.mark.usefixtures("filled")
def test_a_dict_without_options_is_the_list_of_its_paths(face: Face) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        with counted(face.engine) as sent:
            found = face(posts.list, QueryOptions(relationships={"author": None, "tags": None}))
        assert {post.author.name for post in found} == {"u0000", "u0001", "u0002"}
        assert len([each for each in sent if each.startswith("SELECT")]) == 3
        assert "author" in str(face(posts.explain, {"relationships": {"author": None}})) or True
        face(posts.explain_route, {"relationships": {"tags": {"pagination": {"per_page": 1}}}})


def test_mocks(face: Face) -> None:
    names = {"replies": {"sorts": [NEWEST], "pagination": {"per_page": 1}}}
    rows = [{"id": 1, "title": "root"}, *({"title": f"r{n}", "words": n, "parent_id": 1} for n in range(3))]
    posts = MockRepository(Post, "a")
    posts.add_mock_data(rows)
    assert [each.title for each in posts.get_by_id_or_raise(1, relationships=names).replies] == ["r2"]
    others = AsyncMockRepository(Post, "a")
    others.add_mock_data(rows)
    assert [each.title for each in face.runner.run(others.get_by_id_or_raise(1, relationships=names)).replies] == ["r2"]
