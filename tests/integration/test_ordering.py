"""The order of rows is total and the same on every database: NULLs, enums, numbers, moments, relationships, pages.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cmp_to_key
from typing import Any
from uuid import UUID

import pytest

from dotmac_database import (
    InvalidCursorError,
    QueryFilter,
    SortField,
    SortOrder,
    ValidationError,
)
from tests.conftest import Face
from tests.models import Post, Seat, Status, User

MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
ORDER_OF_STATUS = list(Status)

ROWS: list[dict[str, Any]] = [
    {
        "id": UUID(int=(number * 7919) % 65_521 << 96),
        "name": f"n{number % 4}",
        "status": ORDER_OF_STATUS[number % 3],
        "score": None if number % 5 == 0 else (number * 3) % 7 - 2,
        "ratio": None if number % 4 == 0 else (number % 6) / 10,
        "balance": Decimal((number * 37) % 1000) / 100 - 5,
        "seen_at": None if number % 6 == 0 else MOMENT + timedelta(microseconds=number % 3),
        "born": None,
        "active": number % 2 == 0,
        "settings": None if number % 7 == 0 else {"theme": f"t{number % 3}"},
    }
    for number in range(1, 24)
]


def value_of(row: Any, field: str) -> Any:
    if field == "settings.theme":
        return (row["settings"] or {}).get("theme")
    value = row[field]
    return ORDER_OF_STATUS.index(value) if isinstance(value, Status) else value


def expected_order(rows: list[dict[str, Any]], sorts: list[SortField]) -> list[Any]:
    """The ids in order, by plain comparison."""
    last = sorts[-1].order if sorts else SortOrder.ASC

    def compare(one: Any, other: Any) -> int:
        for sort in [*sorts, SortField("id", last)]:
            a, b = value_of(one, sort.field), value_of(other, sort.field)
            descending = sort.order is SortOrder.DESC
            first = sort.nulls == "first" if sort.nulls else descending
            if a is None or b is None:
                if (a is None) != (b is None):
                    return -1 if (a is None) == first else 1
                continue
            if a != b:
                return -1 if (a < b) != descending else 1
        return 0

    return [row["id"] for row in sorted(rows, key=cmp_to_key(compare))]


@pytest.fixture
def users(face: Face) -> Iterator[Any]:
    with face.session() as session:
        repository = face.repository(session, User, "a", cursor_key="a secret of the tests")
        face(repository.bulk_create, ROWS)
        yield repository


def S(text: str, nulls: Any = None) -> SortField:  # noqa: N802 - reads as SortField does
    return SortField(text.lstrip("-"), SortOrder.DESC if text.startswith("-") else SortOrder.ASC, nulls)


def ids(rows: Any) -> list[UUID]:
    return [row.id for row in rows]


FIELDS = ("id", "name", "status", "score", "ratio", "balance", "seen_at", "born", "active", "settings.theme")


@pytest.mark.parametrize("field", FIELDS)
def test_one_field_in_either_direction_with_nulls_anywhere(face: Face, users: Any, field: str) -> None:
    for sign in ("", "-"):
        for nulls in (None, "first", "last"):
            sorts = [S(f"{sign}{field}", nulls)]
            assert ids(face(users.list, {"sorts": sorts})) == expected_order(ROWS, sorts), (sign, nulls)


ORDERS: list[list[SortField]] = [
    [],
    [S("status"), S("-score")],
    [S("-status"), S("score", "first"), S("-seen_at", "last")],
    [S("-active"), S("-balance")],
    [S("name"), S("id")],
    [S("-name"), S("-ratio", "last"), S("score")],
    [S("settings.theme"), S("-seen_at")],
    [S("-settings.theme", "last"), S("born")],
    [S("seen_at", "first"), S("-born", "last"), S("-id")],
]


def walked(face: Face, users: Any, sorts: Any, limit: int, cursor: str | None, back: bool = False) -> list[Any]:
    """All pages from a cursor, forwards or backwards, each page in its own list."""
    pages = []
    while True:
        page = face(users.cursor_paginate, {"sorts": sorts, "cursor_pagination": {"limit": limit, "cursor": cursor}})
        pages.append(page)
        cursor = page.prev_cursor if back else page.next_cursor
        if cursor is None:
            return pages
        assert len(pages) < 100


@pytest.mark.parametrize("sorts", ORDERS, ids=lambda sorts: ",".join(f"{s.field} {s.order}" for s in sorts) or "none")
def test_pages_forward_are_the_whole_and_backward_mirror_them(face: Face, users: Any, sorts: Any) -> None:
    whole = expected_order(ROWS, sorts)
    assert ids(face(users.list, {"sorts": sorts})) == whole
    assert [row.id for row in face(users.stream, {"sorts": sorts}, 5)] == whole
    forward = walked(face, users, sorts, 4, None)
    assert [row.id for page in forward for row in page.items] == whole
    assert not forward[0].has_prev
    assert not forward[-1].has_next
    backward = walked(face, users, sorts, 4, forward[-1].prev_cursor, back=True)
    assert [row.id for page in reversed(backward) for row in page.items] == whole[: len(whole) - len(whole) % 4]
    numbered = [
        face(users.list_paginated, {"sorts": sorts, "pagination": {"page": p, "per_page": 5}}) for p in range(1, 7)
    ]
    assert [row.id for page in numbered for row in page.items] == whole
    assert {page.total for page in numbered} == {len(whole)}


def test_a_repeated_field_counts_once_and_its_first_direction_wins(face: Face, users: Any) -> None:
    rows = face(users.list, {"sorts": [S("-score"), S("name"), S("score")]})
    assert ids(rows) == expected_order(ROWS, [S("-score"), S("name")])


@pytest.mark.parametrize("sorts", [[S("score")], [S("-seen_at", "last"), S("name")]])
def test_rows_that_come_and_go_between_pages_move_no_other(face: Face, users: Any, sorts: Any) -> None:
    whole = expected_order(ROWS, sorts)
    seen: list[UUID] = []
    cursor: str | None = None
    gone = {whole[3], whole[11]}  # the last row of the first page, on which its cursor stands, and one ahead
    for number in range(20):
        page = face(users.cursor_paginate, {"sorts": sorts, "cursor_pagination": {"limit": 4, "cursor": cursor}})
        seen += ids(page.items)
        cursor = page.next_cursor
        if number == 0:
            for each in gone:
                face(users.delete, each)
        face(users.create, {"name": "new", "score": number - 10})
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    stable = [each for each in seen if each in set(whole)]
    assert stable == [each for each in whole if each != whole[11]]


def test_a_cursor_serves_one_query(face: Face, users: Any) -> None:
    def page(repository: Any, cursor: Any, **options: Any) -> Any:
        of_page = {"limit": 3, "cursor": cursor}
        return face(repository.cursor_paginate, {"cursor_pagination": of_page, **options})

    sorts = [S("score"), S("name")]
    filters = [QueryFilter("active", value=True)]
    cursor = page(users, None, sorts=sorts, filters=filters).next_cursor
    assert cursor
    assert page(users, cursor, sorts=sorts, filters=filters).items
    others: list[dict[str, Any]] = [
        {"sorts": [S("score"), S("-name")], "filters": filters},
        {"sorts": [S("-score"), S("name")], "filters": filters},
        {"sorts": [S("score", "first"), S("name")], "filters": filters},
        {"sorts": [S("name"), S("score")], "filters": filters},
        {"sorts": [S("score")], "filters": filters},
        {"filters": filters},
        {"sorts": sorts, "filters": [QueryFilter("active", value=False)]},
        {"sorts": sorts},
    ]
    for other in others:
        with pytest.raises(InvalidCursorError):
            page(users, cursor, **other)
    with pytest.raises(InvalidCursorError):
        page(users.with_tenant("b"), cursor, sorts=sorts, filters=filters)
    for forged in (cursor[:-1], cursor + "A", cursor[1:], "", "é", "\ud800", "A" * 10_000, cursor.swapcase(), "\x00"):
        with pytest.raises(InvalidCursorError):
            page(users, forged, sorts=sorts, filters=filters)


def test_a_cursor_of_another_model_is_refused(face: Face, users: Any) -> None:
    face(users.db.rollback)
    posts = face.repository(users.db, Post, "a")
    others = face.repository(users.db, User, "a")
    cursor = face(others.cursor_paginate, {"cursor_pagination": {"limit": 2}}).next_cursor
    with pytest.raises(InvalidCursorError):
        face(posts.cursor_paginate, {"cursor_pagination": {"cursor": cursor}})
    with pytest.raises(InvalidCursorError):
        face(users.cursor_paginate, {"cursor_pagination": {"cursor": cursor}})


# -- through a relationship --------------------------------------------------------------------------------------


@pytest.fixture
def posts(face: Face, users: Any) -> Iterator[Any]:
    repository = face.repository(users.db, Post, "a")
    first = [
        {"id": number, "title": f"p{number % 2}", "author_id": None if number % 3 == 0 else ROWS[number]["id"]}
        for number in range(1, 11)
    ]
    second = [{"id": number, "title": "reply", "parent_id": number - 10} for number in range(11, 16)]
    face(repository.bulk_create, first)
    face(repository.bulk_create, second)
    return repository


def related(number: int, field: str) -> Any:
    author = number if number <= 10 else None
    if field.startswith("parent."):
        author = number - 10 if number > 10 else None
        field = field.removeprefix("parent.author.")
    else:
        field = field.removeprefix("author.")
    return None if author is None or author % 3 == 0 else value_of(ROWS[author], field)


@pytest.mark.parametrize(
    "field", ["author.name", "author.status", "author.score", "author.seen_at", "parent.author.name"]
)
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("nulls", [None, "first", "last"])
def test_a_to_one_relationships_column(face: Face, posts: Any, field: str, sign: str, nulls: Any) -> None:
    descending = sign == "-"
    first = nulls == "first" if nulls else descending
    numbers = sorted(range(1, 16), reverse=descending)
    known = sorted(
        (n for n in numbers if related(n, field) is not None), key=lambda n: related(n, field), reverse=False
    )
    if descending:  # sorted() is stable, so the key's own direction must be laid down first
        known = sorted(sorted(known, reverse=True), key=lambda n: related(n, field), reverse=True)
    unknown = [n for n in numbers if related(n, field) is None]
    whole = [*unknown, *known] if first else [*known, *unknown]
    sorts = [S(f"{sign}{field}", nulls)]
    assert ids(face(posts.list, {"sorts": sorts})) == whole
    forward = walked(face, posts, sorts, 4, None)
    assert [row.id for page in forward for row in page.items] == whole
    backward = walked(face, posts, sorts, 4, forward[-1].prev_cursor, back=True)
    assert [row.id for page in reversed(backward) for row in page.items] == whole[:12]


def test_a_neighbour_that_is_deleted_or_anothers_gives_no_value_to_sort_by(face: Face, posts: Any) -> None:
    users = face.repository(posts.db, User, "a")
    face(users.delete, ROWS[1]["id"])
    rows = face(posts.list, {"sorts": [S("author.name", "first")]})
    assert 1 in ids(rows[:10])
    assert len(rows) == 15


def test_a_composite_key_ends_the_order(face: Face) -> None:
    with face.session() as session:
        seats = face.repository(session, Seat, 1)
        face(seats.bulk_create, [{"number": n, "holder": "x" if n % 2 else None} for n in (5, 3, 4, 1, 2)])
        for sign, expected in (("", [1, 3, 5, 2, 4]), ("-", [4, 2, 5, 3, 1])):
            pages = walked(face, seats, [S(f"{sign}holder")], 2, None)
            assert [seat.number for page in pages for seat in page.items] == expected


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("scroe", "did you mean 'score'"),
        ("posts.title", "many rows"),
        ("posts", "is a relationship"),
        ("settings", "no order"),
        ("avatar", "no order"),
        ("name.length", "neither a relationship nor JSON"),
        ("", "has no field ''"),
        ("score desc; DROP TABLE users", "has no field"),
        ("__class__", "has no field"),
        ("metadata", "has no field"),
    ],
)
def test_what_cannot_be_sorted_by_is_named(face: Face, users: Any, field: str, hint: str) -> None:
    for call, options in (
        (users.list, {"sorts": [{"field": field}]}),
        (users.cursor_paginate, {"cursor_pagination": {"cursor_field": field}}),
    ):
        with pytest.raises(ValidationError, match=hint) as refused:
            face(call, options)
        assert refused.value.field == field
