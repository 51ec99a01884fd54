"""Random data, orders and page sizes: pages joined are the whole, both ways, while rows come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from dotmac_database import BaseRepository, SortField, SortOrder
from dotmac_database.engines import Database, create_database
from tests.models import Base, Post

QUICK = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

TITLES = st.sampled_from(["a", "b", "c"])
WORDS = st.one_of(st.none(), st.integers(-2, 2))
ROWS = st.lists(st.tuples(TITLES, WORDS, st.booleans()), max_size=14)
SORTS = st.lists(
    st.builds(
        SortField,
        st.sampled_from(["title", "words", "parent.words", "id"]),
        st.sampled_from(SortOrder),
        st.sampled_from([None, "first", "last"]),
    ),
    max_size=3,
)


@pytest.fixture(scope="module")
def pages_database(database_url: str) -> Iterator[Database]:
    database = create_database(database_url)
    Base.metadata.create_all(database.engine)
    yield database
    database.dispose()


@pytest.fixture
def session(pages_database: Database) -> Iterator[Session]:
    with pages_database.sessions() as session:
        yield session


def filled(session: Session, rows: Any) -> Any:
    """A repository whose only rows are these; some have the first row as their parent."""
    posts: Any = BaseRepository(session, Post, "a", cursor_key=b"a key of the tests")
    for each in posts.list({"sorts": [SortField("id", SortOrder.DESC)], "include_deleted": True}):
        posts.delete(each.id, soft_delete=False)
    for number, (title, words, child) in enumerate(rows, 1):
        posts.create({"id": number, "title": title, "words": words, "parent_id": 1 if child and number > 1 else None})
    return posts


def page(posts: Any, sorts: Any, limit: int, cursor: str | None) -> Any:
    return posts.cursor_paginate({"sorts": sorts, "cursor_pagination": {"limit": limit, "cursor": cursor}})


@QUICK
@given(ROWS, SORTS, st.integers(1, 5))
def test_pages_joined_are_the_whole_and_backwards_its_mirror(
    session: Session, rows: Any, sorts: Any, limit: int
) -> None:
    posts = filled(session, rows)
    whole = [row.id for row in posts.list({"sorts": sorts})]
    assert sorted(whole) == list(range(1, len(rows) + 1))
    pages = [page(posts, sorts, limit, None)]
    while pages[-1].next_cursor:
        pages.append(page(posts, sorts, limit, pages[-1].next_cursor))
    assert [row.id for each in pages for row in each.items] == whole
    assert all(each.has_prev is bool(place) for place, each in enumerate(pages))
    back = [pages[-1]]
    while back[-1].prev_cursor:
        back.append(page(posts, sorts, limit, back[-1].prev_cursor))
    assert [[row.id for row in each.items] for each in reversed(back)] == [[row.id for row in p.items] for p in pages]
    assert len(pages) == max(1, -(-len(whole) // limit))


@QUICK
@given(
    ROWS,
    SORTS.filter(lambda sorts: all(sort.field != "parent.words" for sort in sorts)),
    st.integers(1, 4),
    st.lists(st.tuples(TITLES, WORDS, st.integers(0, 13), st.booleans()), max_size=6),
)
def test_what_stays_is_shown_once_while_rows_come_and_go(
    session: Session, rows: Any, sorts: Any, limit: int, changes: Any
) -> None:
    posts = filled(session, [(title, words, False) for title, words, _ in rows])
    before = [row.id for row in posts.list({"sorts": sorts})]
    gone: set[int] = set()
    shown: list[int] = []
    cursor = None
    while True:
        found = page(posts, sorts, limit, cursor)
        shown += [row.id for row in found.items]
        cursor = found.next_cursor
        if cursor is None:
            break
        if changes:
            title, words, victim, soft = changes.pop()
            posts.create({"id": 100 + len(changes), "title": title, "words": words})
            gone.add(victim + 1)
            posts.delete(victim + 1, soft_delete=soft)
    assert len(shown) == len(set(shown))
    stable = [each for each in before if each not in gone]
    assert [each for each in shown if each in set(stable)] == stable
