"""Reads of columns as objects of a class, and counts of related rows beside them.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any
from uuid import UUID

import pydantic
import pytest
from pydantic import ConfigDict
from sqlmodel import SQLModel

from dotmac_database import (
    ALL_TENANTS,
    Count,
    CursorPaginationResult,
    InvalidCursorError,
    PaginationResult,
    QueryFilter,
    SortField,
    SortOrder,
    ValidationError,
    any_of,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted
from tests.models import Post, Status, Tag, User


@dataclass
class Card:
    """A plain dataclass."""

    id: UUID
    name: str
    status: Status
    posts: int
    note: str = "none"
    tags: list[str] = field(default_factory=list)


class Model(pydantic.BaseModel):
    """A Pydantic class with an alias."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str = pydantic.Field(alias="userName")
    status: Status
    posts: int
    note: str = "none"


class Plain(SQLModel):
    """A SQLModel class without a table."""

    id: UUID
    name: str
    status: Status
    posts: int
    note: str = "none"


@pydantic.dataclasses.dataclass
class Checked:
    """A Pydantic dataclass."""

    id: UUID
    name: str
    status: Status
    posts: int
    note: str = pydantic.Field(default="none")


CLASSES = (None, Card, Model, Plain, Checked)
KINDS = ("plain", "guarded", "all tenants")
POSTS = {"u0": 3, "u1": 0, "u2": 1, "u3": 3, "u4": 2}


@contextmanager
def repository_of(face: Face, kind: str, model: Any) -> Iterator[Any]:
    if kind == "guarded":
        with face.guarded() as session:
            yield face.repository(session, model, "a")
        return
    with face.session() as session:
        yield face.repository(session, model, ALL_TENANTS if kind == "all tenants" else "a")


@pytest.fixture(autouse=True)
def filled(face: Face) -> None:
    with face.session() as session:
        users, posts, tags = (face.repository(session, each, "a") for each in (User, Post, Tag))
        # Of another tenant and soft-deleted: neither is counted.
        foreign = face.repository(session, Post, "b")
        tag = face(tags.create, {"name": "t"})
        for name, many in POSTS.items():
            user = face(users.create, {"name": name})
            for n in range(many):
                face(posts.create, {"title": f"{name}-{n}", "author_id": user.id, "words": n, "tags": [tag] * (n == 0)})
            gone = face(posts.create, {"title": "gone", "author_id": user.id, "words": 0})
            face(posts.delete, gone.id)
            face(foreign.create, {"title": "foreign", "words": 0, "author_id": user.id})


def as_pairs(rows: Any) -> list[tuple[Any, Any]]:
    return [(row["name"], row["posts"]) if isinstance(row, dict) else (row.name, row.posts) for row in rows]


def expected(kind: str) -> dict[str, int]:
    extra = 1 if kind == "all tenants" else 0
    return {name: many + extra for name, many in POSTS.items()}


def pages(face: Face, reads: Any, options: dict[str, Any]) -> list[Any]:
    """The items of all cursor pages forward, which must be the same backwards."""
    items: list[Any] = []
    cursor: str | None = None
    while True:
        page = face(reads.cursor_paginate, {**options, "cursor_pagination": {"limit": 2, "cursor": cursor}})
        assert isinstance(page, CursorPaginationResult)
        if cursor is not None:
            limit = {"limit": 2, "cursor": page.prev_cursor}
            before = face(reads.cursor_paginate, {**options, "cursor_pagination": limit})
            assert as_pairs(before.items) == as_pairs(items[-2:])
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items


def numbered(face: Face, reads: Any, options: dict[str, Any]) -> list[Any]:
    items: list[Any] = []
    for number in (1, 2, 3):
        page = face(reads.list_paginated, {**options, "pagination": {"page": number, "per_page": 2}})
        assert isinstance(page, PaginationResult)
        assert (page.total, page.pages) == (5, 3)
        items += page.items
    return items


READS: dict[str, Callable[[Face, Any, dict[str, Any]], list[Any]]] = {
    "list": lambda face, reads, options: list(face(reads.list, options)),
    "first": lambda face, reads, options: [face(reads.first, options)],
    "page": lambda face, reads, options: list(face(reads.page, options).items),
    "list_paginated": numbered,
    "cursor_paginate": pages,
    "stream": lambda face, reads, options: list(face(reads.stream, options, 2)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize("class_", CLASSES, ids=lambda each: "dict" if each is None else each.__name__)
def test_rows_are_objects_with_counts(face: Face, kind: str, method: str, class_: Any) -> None:
    with repository_of(face, kind, User) as users:
        posts = Count("posts")
        reads = (
            users.values("id", "name", "status", posts=posts) if class_ is None else users.values(class_, posts=posts)
        )
        ordered = sorted(expected(kind).items())
        by_count = sorted(ordered, key=lambda pair: (-pair[1], pair[0]))
        for sorts, pairs in (
            (["name"], ordered),
            ([SortField("posts", SortOrder.DESC), SortField("name")], by_count),
            ([SortField("posts"), SortField("name", SortOrder.DESC)], by_count[::-1]),
        ):
            options = {"sorts": [SortField(each) if isinstance(each, str) else each for each in sorts]}
            rows = READS[method](face, reads, options)
            assert as_pairs(rows) == (pairs[:1] if method == "first" else pairs)
            assert all(type(row) is (class_ or dict) for row in rows)
            for row in rows:
                given = row if isinstance(row, dict) else vars(row)
                assert isinstance(given["id"], UUID)
                assert given["status"] is Status.NEW
                assert type(given["posts"]) is int
                assert given.get("note", "none") == "none"


@pytest.mark.parametrize("kind", KINDS)
def test_one_statement_reads_only_what_the_class_names(face: Face, kind: str) -> None:
    with repository_of(face, kind, User) as users:
        with counted(face.engine) as sent:
            face(users.values(Card, posts=Count("posts")).list)
        selects = [each for each in sent if each.startswith("SELECT")]
        assert len(selects) == 1
        assert "email" not in selects[0]
        assert "balance" not in selects[0]
        session = users.db.sync_session if face.is_async else users.db
        assert not len(session.identity_map)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("model", "relationship", "found"),
    [
        (Post, "tags", {0: 1, 1: 0, 2: 0}),
        (Post, "replies", {0: 0, 1: 0, 2: 0}),
        (Post, "parent", {0: 0, 1: 0, 2: 0}),
        (Post, "author", {0: 1, 1: 1, 2: 1}),
        (Tag, "posts", None),
    ],
)
def test_each_kind_of_relationship(face: Face, kind: str, model: Any, relationship: str, found: Any) -> None:
    with repository_of(face, kind, model) as repository:
        reads = repository.values("id", n=Count(relationship))
        rows = face(reads.list, {"sorts": [SortField("n"), SortField("id")]})
        if model is Tag:
            assert [row["n"] for row in rows] == [4]  # tags belong to one tenant
            return
        for row in rows:
            post = face(repository.get_by_id, row["id"])
            if post.title not in ("gone", "foreign"):
                assert row["n"] == found[post.words]


def test_replies_count_themselves_apart(face: Face) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        root = face(posts.create, {"title": "root"})
        for n in range(3):
            face(posts.create, {"title": f"reply{n}", "parent_id": root.id, "words": n})
        row = {"filters": [QueryFilter("title", value="root")]}
        assert face(posts.values("title", n=Count("replies")).list, row) == [{"title": "root", "n": 3}]
        some = Count("replies", filters=[QueryFilter("words", "gte", 1), QueryFilter("parent.title", value="root")])
        assert face(posts.values("title", n=some).list, row) == [{"title": "root", "n": 2}]


@pytest.mark.parametrize("kind", KINDS)
def test_filters_of_a_count(face: Face, kind: str) -> None:
    with repository_of(face, kind, User) as users:
        first = Count("posts", filters=[any_of(QueryFilter("words", value=0), QueryFilter("title", "ends_with", "-1"))])
        tagged = Count("posts", filters=[{"field": "tags.name", "value": "t"}])  # type: ignore[list-item]  # a dict
        reads = users.values("name", first=first, tagged=tagged)
        options = {
            "sorts": [SortField("first", SortOrder.DESC), SortField("name")],
            "filters": [QueryFilter("name", "ne", "u4")],
        }
        rows = [(row["name"], row["first"], row["tagged"]) for row in face(reads.list, options)]
        extra = 1 if kind == "all tenants" else 0
        assert rows == [
            ("u0", 2 + extra, 1),
            ("u3", 2 + extra, 1),
            ("u2", 1 + extra, 1),
            ("u1", 0 + extra, 0),
        ]


def test_deleted_rows_are_counted_with_the_others_if_the_options_say_so(face: Face) -> None:
    with face.session() as session:
        reads = face.repository(session, User, "a").values("name", posts=Count("posts"))
        rows = face(reads.list, {"include_deleted": True, "sorts": [SortField("name")]})
        assert as_pairs(rows) == [(name, many + 1) for name, many in sorted(POSTS.items())]


def test_a_cursor_belongs_to_its_count(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        options = {"sorts": [SortField("n")], "cursor_pagination": {"limit": 2}}
        page = face(users.values("name", n=Count("posts")).cursor_paginate, options)
        other = users.values("name", n=Count("posts", filters=[QueryFilter("words", value=0)]))
        options["cursor_pagination"] = {"limit": 2, "cursor": page.next_cursor}  # type: ignore[assignment]  # a dict
        with pytest.raises(InvalidCursorError):
            face(other.cursor_paginate, options)


@dataclass
class Misspelled:
    name: str
    scoer: int


@dataclass
class WithoutCount:
    name: str
    posts: int


@dataclass
class Defaults:
    name: str
    scoer: int = 5
    posts: int = 0


class Strict(pydantic.BaseModel):
    name: int


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "a misspelled field": ((Misspelled,), {}, "'scoer'; did you mean 'score'"),
    "a relationship": ((WithoutCount,), {}, "'posts'"),
    "a count without a field": ((Misspelled,), {"nmae": Count("posts")}, "'nmae'.* did you mean 'name'"),
    "an unknown relationship": (("name",), {"n": Count("psots")}, "'psots'; did you mean 'posts'"),
    "a column": (("name",), {"n": Count("score")}, "no relationship 'score'"),
    "a name in use": (("name",), {"score": Count("posts")}, "User.score is a field already"),
    "no count": (("name",), {"n": "posts"}, "n: a Count was expected, not str"),
    "an unknown field of a filter": (("name",), {"n": Count("posts", filters=[QueryFilter("tilte")])}, "'title'"),
    "a mapped class": ((Post,), {}, "Post can't hold"),
    "another class": ((int,), {}, "int can't hold"),
    "a class and a name": ((Defaults, "name"), {}, "or one class"),
    "nothing": ((), {}, "Name the fields"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_read_is_refused(face: Face, case: str) -> None:
    names, counts, message = REFUSED[case]
    with face.session() as session:
        users = face.repository(session, User, "a")
        with pytest.raises(ValidationError, match=message):
            users.values(*names, **counts)


def test_defaults_stay_and_values_that_do_not_fit_are_named(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        assert face(users.values(Defaults).first, {"sorts": [SortField("name")]}) == Defaults("u0")
        with pytest.raises(ValidationError, match=r"Strict refuses the values of a row: name: ") as error:
            face(users.values(Strict).first)
        assert "u0" not in str(error.value)
        assert [each.name for each in fields(Defaults)] == ["name", "scoer", "posts"]


def test_counts_alone(face: Face) -> None:
    with face.session() as session:
        rows = face(
            face.repository(session, User, "a").values(posts=Count("posts")).list, {"sorts": [SortField("posts")]}
        )
        assert rows == [{"posts": n} for n in sorted(POSTS.values())]


def test_mocks(face: Face) -> None:
    posts = MockRepository(Post, "a")
    posts.add_mock_data([{"id": 1, "title": "root"}, {"id": 2, "title": "reply", "parent_id": 1}])
    assert posts.values("title", n=Count("replies")).list() == [{"title": "root", "n": 1}, {"title": "reply", "n": 0}]
    others = AsyncMockRepository(Post, "a")
    others.add_mock_data([{"id": 1, "title": "root"}])
    assert face.runner.run(others.values("title", n=Count("replies")).list()) == [{"title": "root", "n": 0}]
