"""The paginators for hand-written queries."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from dotmac_database import (
    DatabasePaginator,
    InvalidCursorError,
    PaginationHelper,
    PerformancePaginator,
    ValidationError,
)
from tests.conftest import Face
from tests.models import Post, User


def paging(face: Face, owner: Any, name: str, session: Any, *args: Any, **kwargs: Any) -> Any:
    prefix = "async_" if face.is_async else ""
    return face(getattr(owner, f"{prefix}{name}"), session, *args, **kwargs)


@pytest.fixture
def posts(face: Face) -> None:
    with face.session() as session:
        rows = [{"title": f"t{number % 7}", "words": number if number % 3 else None} for number in range(50)]
        face(face.repository(session, Post, "a").bulk_create, rows, returning=False)


@pytest.mark.parametrize(
    "value",
    [
        "ä",
        7,
        -1.5,
        True,
        None,
        Decimal("1.50"),
        datetime(2024, 1, 1, tzinfo=UTC),
        UUID(int=7),
        b"\x00\xff",
        ("a", 1, None),
        (),
    ],
)
def test_a_cursor_keeps_value_and_type(value: Any) -> None:
    cursor = PaginationHelper.encode_cursor(value)
    decoded = PaginationHelper.decode_cursor(cursor)
    assert decoded == value
    assert type(decoded) is type(value)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.usefixtures("posts")
def test_numbered_pages_are_the_whole_in_order(face: Face) -> None:
    query = select(Post).order_by(Post.title.desc())
    with face.session() as session:
        seen: list[Any] = []
        for page in range(1, 9):
            items, total = paging(face, DatabasePaginator, "paginate_query", session, query, page, 7)
            seen += items
            assert total == 50
    assert [(p.title, p.id) for p in seen] == sorted(((p.title, p.id) for p in seen), reverse=True)
    assert len({p.id for p in seen}) == 50


@pytest.mark.parametrize("field", ["title", "words", "id"])
@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.usefixtures("posts")
def test_cursor_pages_are_the_whole_in_order(face: Face, field: str, ascending: bool) -> None:
    with face.session() as session:
        seen, cursor, more = [], None, True
        while more:
            items, cursor, more = paging(
                face, DatabasePaginator, "cursor_paginate_query", session, select(Post), field, 7, cursor, ascending
            )
            seen += items
    assert cursor is None
    ordered = sorted(
        seen,
        key=lambda p: (getattr(p, field) is None, getattr(p, field) or 0 if field != "title" else p.title, p.id),
        reverse=not ascending,
    )
    assert [p.id for p in seen] == [p.id for p in ordered]
    assert len(seen) == 50


@pytest.mark.usefixtures("posts")
def test_a_cursor_of_another_order_is_refused(face: Face) -> None:
    with face.session() as session:
        _, cursor, _ = paging(face, DatabasePaginator, "cursor_paginate_query", session, select(Post), "title", 7)
        for other in ({"cursor_field": "words"}, {"cursor_field": "title", "ascending": False}):
            with pytest.raises(InvalidCursorError):
                paging(
                    face,
                    DatabasePaginator,
                    "cursor_paginate_query",
                    session,
                    select(Post),
                    limit=7,
                    cursor=cursor,
                    **other,
                )


@pytest.mark.usefixtures("posts")
def test_an_estimate_says_whether_it_was_counted(face: Face) -> None:
    with face.session() as session:
        exact = paging(face, PerformancePaginator, "paginate_with_count_estimate", session, select(Post), 1, 5)[1]
        assert exact == 50
        assert exact.exact
        query = select(Post).where(Post.words > 1)
        rough = paging(
            face, PerformancePaginator, "paginate_with_count_estimate", session, query, 2, 5, count_threshold=10
        )[1]
        assert not rough.exact
        assert rough >= 11


@pytest.mark.parametrize("page", [1, 3, 99])
@pytest.mark.usefixtures("posts")
def test_deep_pages_have_the_rows_of_offset(face: Face, page: int) -> None:
    query = select(Post).where(Post.title != "t1").order_by(Post.title, Post.words.desc())
    with face.session() as session:
        plain, total = paging(face, DatabasePaginator, "paginate_query", session, query, page, 9)
        deep, same = paging(face, PerformancePaginator, "deep_pagination_optimize", session, query, page, 9, "id")
        assert [p.id for p in deep] == [p.id for p in plain]
        assert same == total


def test_what_is_no_query_or_no_page_is_refused(face: Face) -> None:
    with face.session() as session:
        for query, page, size in (
            (object(), 1, 5),
            (select(User), 0, 5),
            (select(User), 1, 0),
            (select(User), 1, 1001),
        ):
            with pytest.raises(ValidationError):
                paging(face, DatabasePaginator, "paginate_query", session, query, page, size)


def test_a_legacy_query_is_paged(face: Face) -> None:
    if face.is_async:
        pytest.skip("an AsyncSession has no Query")
    with face.session() as session:
        session.add(User(id=uuid4(), name="x", tenant_id="a"))
        session.commit()
        items, total = DatabasePaginator.paginate_query(session, session.query(User), 1, 5)
        assert (len(items), total) == (1, 1)
