"""The keyset: ORDER BY, and the condition that a row comes after a position in it.

Row comparison ``(a, b) > (x, y)`` where all directions agree and no NULL comes after the position, so that PostgreSQL
reads one range of an index; else the lexicographic form, in which NULLs have a rank of their own.
https://use-the-index-luke.com/no-offset
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, false, or_, true, tuple_
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.expression import ScalarSelect


@dataclass(frozen=True, slots=True)
class Term:
    """One expression of an order. ``nulls_first`` is the position of NULLs in this direction."""

    expression: ColumnElement[Any]
    descending: bool
    nullable: bool
    nulls_first: bool


def order_by(terms: Sequence[Term]) -> list[ColumnElement[Any]]:
    """The ORDER BY clauses. Only nullable expressions have NULLS FIRST or LAST, so that indexes can be used."""
    clauses: list[ColumnElement[Any]] = []
    for term in terms:
        clause = term.expression.desc() if term.descending else term.expression.asc()
        if term.nullable:
            clause = clause.nulls_first() if term.nulls_first else clause.nulls_last()
        clauses.append(clause)
    return clauses


def reversed_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The reverse order."""
    return tuple(replace(term, descending=not term.descending, nulls_first=not term.nulls_first) for term in terms)


def nulls_follow(terms: Sequence[Term], values: Sequence[Any]) -> bool:
    """Whether the leading column is NULL in rows after a position where it is not: these are a range of their own."""
    first = terms[0]
    behind = first.nullable and not first.nulls_first
    return behind and values[0] is not None and not isinstance(first.expression, ScalarSelect)


def after(
    terms: Sequence[Term], values: Sequence[ColumnElement[Any] | None], inclusive: bool = False
) -> ColumnElement[bool]:
    """The condition that a row comes after ``values`` in the order, or stands there too where ``inclusive``.

    A value of None says that the position is NULL there; the others are parameters.
    """
    known = [value for value in values if value is not None]
    bounded = [value is not None and _only_values(term) for term, value in zip(terms, values, strict=True)]
    if all(bounded) and len({term.descending for term in terms}) == 1:
        row = tuple_(*(term.expression for term in terms)) if len(terms) > 1 else terms[0].expression
        place = tuple_(*known) if len(terms) > 1 else known[0]
        if terms[0].descending:
            return row <= place if inclusive else row < place
        return row >= place if inclusive else row > place
    condition: ColumnElement[bool] = true() if inclusive else false()
    for term, value in zip(reversed(terms), reversed(values), strict=True):
        condition = or_(_beyond(term, value), and_(_same(term, value), condition))
    first = terms[0].expression
    if bounded[0] and not isinstance(first, ScalarSelect):
        # Logically redundant; without it the planner can't start an index range scan at the cursor.
        condition = and_(first <= known[0] if terms[0].descending else first >= known[0], condition)
    return condition


def _only_values(term: Term) -> bool:
    """Whether nothing after a value is NULL. Row comparison is NULL, and so leaves out, where a NULL comes before."""
    return not term.nullable or term.nulls_first


def _beyond(term: Term, value: ColumnElement[Any] | None) -> ColumnElement[bool]:
    column = term.expression
    if value is None:
        return column.is_not(None) if term.nulls_first else false()
    further = column < value if term.descending else column > value
    return or_(further, column.is_(None)) if term.nullable and not term.nulls_first else further


def _same(term: Term, value: ColumnElement[Any] | None) -> ColumnElement[bool]:
    return term.expression.is_(None) if value is None else term.expression == value
