"""The condition of a keyset page, compared with a plain comparison of rows: every order of two columns, every place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cmp_to_key
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    create_engine,
    literal,
    literal_column,
    select,
    true,
)
from sqlalchemy.sql.elements import KeyedColumnElement

from dotmac_database.statements.keyset import Term, after, nulls_follow, order_by, reversed_terms

TABLE = Table("places", MetaData(), *(Column(name, Integer) for name in "abcxy"))
"""``x`` and ``y`` are never NULL."""
ROWS: list[dict[str, int | None]] = [
    {"a": a, "b": b, "c": number, "x": x, "y": y}
    for number, (a, b, x, y) in enumerate(itertools.product((None, 1, 2), (None, 1, 2), (1, 2), (1, 2)))
]
DIRECTIONS = [  # whether the order descends, whether the column can be NULL, and whether NULLs come first
    (descending, *nulls) for descending in (False, True) for nulls in ((False, False), (True, True), (True, False))
]
Order = tuple[Term, ...]


def term(nullable: str, never_null: str, kind: tuple[bool, bool, bool]) -> Term:
    return Term(TABLE.c[nullable if kind[1] else never_null], *kind)


ORDERS: list[Order] = [
    (term("a", "x", one), *rest, Term(TABLE.c.c, descending, nullable=False, nulls_first=False))
    for one in DIRECTIONS
    for descending in (False, True)
    for rest in ([], *([term("b", "y", other)] for other in DIRECTIONS))
]
ORDERS += [(Term(TABLE.c.c, descending, nullable=False, nulls_first=False),) for descending in (False, True)]


def values(terms: Order, row: dict[str, Any]) -> list[Any]:
    return [row[each.expression.key] for each in terms if isinstance(each.expression, KeyedColumnElement)]


def compared(terms: Order, one: dict[str, Any], other: dict[str, Any]) -> int:
    """Below 0 if ``one`` comes first in the order, above 0 if ``other`` does."""
    for each, a, b in zip(terms, values(terms, one), values(terms, other), strict=True):
        if a is None or b is None:
            if (a is None) != (b is None):
                return -1 if (a is None) == each.nulls_first else 1
        elif a != b:
            return -1 if (a < b) != each.descending else 1
    return 0


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[Connection]:
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        TABLE.metadata.create_all(connection)
        connection.execute(TABLE.insert(), ROWS)
        yield connection
    engine.dispose()


def in_order(terms: Order) -> list[int]:
    rows = sorted(ROWS, key=cmp_to_key(lambda one, other: compared(terms, one, other)))
    return [row["c"] or 0 for row in rows]


def numbers(connection: Connection, terms: Order, condition: Any) -> list[int]:
    return list(connection.scalars(select(TABLE.c.c).where(condition).order_by(*order_by(terms))))


def test_the_rows_after_a_place_are_those_that_follow_it(connection: Connection) -> None:
    for number, terms in enumerate(ORDERS):
        whole = in_order(terms)
        assert numbers(connection, terms, true()) == whole, terms
        assert numbers(connection, reversed_terms(terms), true()) == whole[::-1], terms
        for row in ROWS[number % 7 :: 7]:
            place = [None if value is None else literal(value) for value in values(terms, row)]
            conditions = after(terms, place), after(terms, place, inclusive=True)
            rows = connection.execute(select(TABLE.c.c, *conditions).order_by(*order_by(terms))).all()
            following = whole[whole.index(row["c"] or 0) :]
            assert [each for each, beyond, _ in rows if beyond] == following[1:], (terms, row)
            assert [each for each, _, at in rows if at] == following, (terms, row)


A, B, X, Y = (TABLE.c[name] for name in "abxy")
UP, DOWN = (False, False, False), (True, False, False)
UP_NULLS_LAST, DOWN_NULLS_FIRST = (False, True, False), (True, True, True)
LOOKED_UP = select(X).scalar_subquery()


@pytest.mark.parametrize(
    ("terms", "inclusive", "condition"),
    [
        ([(X, UP)], False, "x > 1"),
        ([(X, DOWN)], True, "x <= 1"),
        ([(X, UP), (Y, UP)], False, "(x, y) > (1, 2)"),
        ([(X, DOWN), (Y, DOWN)], True, "(x, y) <= (1, 2)"),
        ([(A, DOWN_NULLS_FIRST), (X, DOWN)], False, "(a, x) < (1, 2)"),
        ([(X, UP), (Y, DOWN)], False, "x >= 1 AND (x > 1 OR x = 1 AND (y < 2 OR false))"),
        ([(X, DOWN), (Y, UP)], True, "x <= 1 AND (x < 1 OR x = 1 AND (y > 2 OR y = 2))"),
        ([(A, UP_NULLS_LAST)], False, "a > 1 OR a IS NULL OR false"),
        ([(A, UP_NULLS_LAST), (X, UP)], False, "a > 1 OR a IS NULL OR a = 1 AND (x > 2 OR false)"),
        ([(LOOKED_UP, UP), (Y, DOWN)], False, "(SELECT x) > 1 OR (SELECT x) = 1 AND (y < 2 OR false)"),
    ],
)
def test_the_condition_is_one_range_of_an_index_where_it_can_be(
    terms: list[tuple[Any, tuple[bool, bool, bool]]], inclusive: bool, condition: str
) -> None:
    order = [Term(expression, *kind) for expression, kind in terms]
    built = after(order, [literal_column(f"{number}") for number in range(1, len(order) + 1)], inclusive)
    text = str(built).replace("places.", "").replace(" \nFROM places", "")
    assert text == condition


@pytest.mark.parametrize(
    ("expression", "kind", "value", "follow"),
    [
        (A, UP_NULLS_LAST, 1, True),
        (A, UP_NULLS_LAST, None, False),
        (A, DOWN_NULLS_FIRST, 1, False),
        (X, UP, 1, False),
        (LOOKED_UP, UP_NULLS_LAST, 1, False),
    ],
)
def test_whether_nulls_follow_as_a_range_of_their_own(expression: Any, kind: Any, value: Any, follow: bool) -> None:
    assert nulls_follow([Term(expression, *kind), Term(Y, *UP)], [value, 1]) is follow


def test_only_what_can_be_null_says_where_its_nulls_are() -> None:
    order = [Term(A, *UP_NULLS_LAST), Term(B, *DOWN_NULLS_FIRST), Term(X, *UP), Term(Y, *DOWN)]
    texts = ["places.a ASC NULLS LAST", "places.b DESC NULLS FIRST", "places.x ASC", "places.y DESC"]
    assert [str(each) for each in order_by(order)] == texts


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_place_has_a_value_for_each_term(number: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        after([Term(X, *UP), Term(Y, *UP)], [literal(1)] * number)
