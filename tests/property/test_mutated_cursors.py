"""Ten thousand cursors that somebody has tampered with: `InvalidCursorError`, and nothing else."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from dotmac_database import (
    CursorPaginationResult,
    DatabasePaginator,
    InvalidCursorError,
    PaginationHelper,
    SortField,
    SortOrder,
)
from dotmac_database.testing import MockRepository
from tests.models import Status, User

MUTATIONS = 10_000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SORTS = [
    [SortField("name")],
    [SortField("status", SortOrder.DESC), SortField("score")],
    [SortField("seen_at", SortOrder.DESC), SortField("balance")],
    [SortField("name", by="folded"), SortField("ratio")],
]
KEYS = (None, "a key of the application's own", b"another")


def mutated(draw: random.Random, cursor: str, others: list[str]) -> str:
    """One of the ways to spoil a cursor."""
    place = draw.randrange(len(cursor))
    match draw.randrange(12):
        case 0:  # one character is another
            return cursor[:place] + draw.choice(ALPHABET) + cursor[place + 1 :]
        case 1:  # one bit of a character
            return cursor[:place] + chr(ord(cursor[place]) ^ 1 << draw.randrange(7)) + cursor[place + 1 :]
        case 2:
            return cursor[:place]
        case 3:
            return cursor[place:]
        case 4:
            return cursor + "".join(draw.choices(ALPHABET, k=draw.randrange(1, 9)))
        case 5:
            return cursor[:place] + cursor[place + 1 :]
        case 6:
            return cursor[:place] + draw.choice(ALPHABET) + cursor[place:]
        case 7:  # two cursors in one
            other = draw.choice(others)
            return cursor[:place] + other[place:]
        case 8:
            return cursor + draw.choice(["=", "==", "\n", " ", ".", "\x00", "%3D"])
        case 9:
            return "".join(draw.choices(ALPHABET, k=draw.randrange(0, 120)))
        case 10:
            return draw.choice(["", "é" * 9, "\ud800", "🙂", cursor.swapcase(), cursor[::-1], "A" * 100_000])
        case _:  # another query's, whole
            return draw.choice(others)


def rows() -> list[dict[str, Any]]:
    return [
        {
            "id": UUID(int=n),
            "name": f"n{n % 5}",
            "status": list(Status)[n % 3],
            "score": None if n % 4 == 0 else n % 7,
            "ratio": n / 7,
            "balance": Decimal(n) / 3,
            "seen_at": datetime(2024, 1, 1, microsecond=n, tzinfo=UTC),
        }
        for n in range(40)
    ]


@pytest.fixture(scope="module")
def users() -> dict[Any, MockRepository[User]]:
    made = {key: MockRepository(User, "a", cursor_key=key) for key in KEYS}
    for each in made.values():
        each.add_mock_data(rows())
    return made


def page(users: MockRepository[User], sorts: list[SortField], cursor: str | None) -> CursorPaginationResult[User]:
    return users.cursor_paginate({"sorts": sorts, "cursor_pagination": {"limit": 3, "cursor": cursor}})


def test_ten_thousand_mutations(users: dict[Any, MockRepository[User]]) -> None:
    draw = random.Random(20_240_501)
    cursors: dict[tuple[Any, int], list[str]] = {}
    for key, repository in users.items():
        for number, sorts in enumerate(SORTS):
            found, cursor = cursors.setdefault((key, number), []), None
            for _ in range(6):
                turned = page(repository, sorts, cursor)
                found += [each for each in (turned.next_cursor, turned.prev_cursor) if each]
                cursor = turned.next_cursor
    every = [cursor for found in cursors.values() for cursor in found]
    refused = 0
    for _ in range(MUTATIONS):
        (key, number), own = draw.choice(list(cursors.items()))
        spoiled = mutated(draw, draw.choice(own), every)
        if spoiled in own:
            assert page(users[key], SORTS[number], spoiled)  # as it was, or another of this very query
            continue
        with pytest.raises(InvalidCursorError):
            page(users[key], SORTS[number], spoiled)
        refused += 1
    assert refused > MUTATIONS * 0.9


@pytest.mark.parametrize("key", KEYS)
def test_the_helpers_refuse_them_too(users: dict[Any, MockRepository[User]], key: Any) -> None:
    draw = random.Random(7)
    values: list[Any] = [
        1,
        "text",
        Decimal("1.50"),
        datetime(2024, 1, 1, tzinfo=UTC),
        (1, None, "x"),
        UUID(int=3),
        True,
    ]
    cursors = [PaginationHelper.encode_cursor(value, key) for value in values]
    session = users[None].db
    places = DatabasePaginator.cursor_paginate_query(session, select(User), "name", 3)[1]
    assert places is not None
    for _ in range(2_000):
        spoiled = mutated(draw, draw.choice(cursors), [places])
        if spoiled not in cursors:
            with pytest.raises(InvalidCursorError):
                PaginationHelper.decode_cursor(spoiled, key)
        spoiled = mutated(draw, places, cursors)
        if spoiled != places:
            with pytest.raises(InvalidCursorError):
                DatabasePaginator.cursor_paginate_query(session, select(User), "name", 3, spoiled)


SCALARS: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63 - 1,
    -(2**63),
    10**30,
    0.0,
    -0.5,
    1e300,
    float("inf"),
    "",
    "plain",
    "ü\n\\\"'🙂",
    Decimal("1.500"),
    Decimal("-0"),
    UUID(int=2**127),
    datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
    date(1, 1, 1),
    time(23, 59, 59, 999999),
    b"\x00\xff",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [*SCALARS, tuple(SCALARS)], ids=repr)
def test_every_scalar_comes_back_in_its_own_type(value: Any, key: Any) -> None:
    cursor = PaginationHelper.encode_cursor(value, key)
    assert set(cursor) <= set(ALPHABET)
    back = PaginationHelper.decode_cursor(cursor, key)
    assert back == value
    assert type(back) is type(value)
    if isinstance(value, tuple):
        assert [type(each) for each in back] == [type(each) for each in value]
    if isinstance(value, Decimal):
        assert str(back) == str(value)


def test_a_cursor_is_of_its_key_its_tenant_and_its_query(users: dict[Any, MockRepository[User]]) -> None:
    signed = users[KEYS[1]]
    cursor = page(signed, SORTS[0], None).next_cursor
    assert page(signed, SORTS[0], cursor).items
    elsewhere: list[tuple[MockRepository[User], Any]] = [
        (users[None], {"sorts": SORTS[0]}),
        (users[KEYS[2]], {"sorts": SORTS[0]}),
        (signed.with_tenant("b"), {"sorts": SORTS[0]}),
        (signed, {"sorts": [SortField("name", SortOrder.DESC)]}),
        (signed, {"sorts": SORTS[0], "include_deleted": True}),
        (signed, {"sorts": SORTS[0], "filters": [{"field": "score", "operator": "gt", "value": 1}]}),
    ]
    for repository, options in elsewhere:
        with pytest.raises(InvalidCursorError):
            repository.cursor_paginate({**options, "cursor_pagination": {"limit": 3, "cursor": cursor}})
