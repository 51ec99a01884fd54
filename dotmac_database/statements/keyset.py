"""The keyset: ORDER BY, and the condition that a row comes after a position in this order.

If all directions are the same and no NULL comes after the position, the condition is the row comparison
``(a, b) > (x, y)``, for which PostgreSQL reads one range of an index. Otherwise it is ``a > x OR (a = x AND b > y)``,
with additional conditions for NULL. https://use-the-index-luke.com/no-offset
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import and_, false, or_, true, tuple_
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.expression import ScalarSelect


@dataclass(frozen=True, slots=True)
class Term:
    """One expression of an order. ``nulls_first`` says whether NULLs come first in the direction of this order."""

    expression: ColumnElement[object]
    descending: bool
    nullable: bool
    nulls_first: bool


def order_by(terms: Sequence[Term]) -> list[ColumnElement[object]]:
    """The ORDER BY clauses. Only nullable expressions have NULLS FIRST or LAST, because it can prevent index use."""
    clauses: list[ColumnElement[object]] = []
    for term in terms:
        clause = term.expression.desc() if term.descending else term.expression.asc()
        if term.nullable:
            clause = clause.nulls_first() if term.nulls_first else clause.nulls_last()
        clauses.append(clause)
    return clauses


def reversed_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The reverse order."""
    return tuple(replace(term, descending=not term.descending, nulls_first=not term.nulls_first) for term in terms)


def nulls_follow(terms: Sequence[Term], values: Sequence[object]) -> bool:
    """Whether rows in which the leading column is NULL come after a position in which it is not NULL.

    In an index, these rows are a separate range. False for a subquery, which has no index.
    """
    first = terms[0]
    nulls_last = first.nullable and not first.nulls_first
    return nulls_last and values[0] is not None and not isinstance(first.expression, ScalarSelect)


def after(
    terms: Sequence[Term], values: Sequence[ColumnElement[object] | None], inclusive: bool = False
) -> ColumnElement[bool]:
    """The condition that a row comes after ``values`` in the order or, if ``inclusive``, is at this position itself.

    ``values`` are parameters; None means that the position has NULL for this term.
    """
    pairs = list(zip(terms, values, strict=True))
    not_null = [value for value in values if value is not None]
    comparable = [value is not None and _no_null_follows(term) for term, value in pairs]
    if all(comparable) and len({term.descending for term in terms}) == 1:
        row = tuple_(*(term.expression for term in terms)) if len(terms) > 1 else terms[0].expression
        position = tuple_(*not_null) if len(terms) > 1 else not_null[0]
        if terms[0].descending:
            return row <= position if inclusive else row < position
        return row >= position if inclusive else row > position
    condition: ColumnElement[bool] = true() if inclusive else false()
    for term, value in reversed(pairs):
        condition = or_(_beyond(term, value), and_(_same(term, value), condition))
    first = terms[0].expression
    if comparable[0] and not isinstance(first, ScalarSelect):
        # Logically redundant; without it the planner can't start an index range scan at the cursor.
        condition = and_(first <= not_null[0] if terms[0].descending else first >= not_null[0], condition)
    return condition


def _no_null_follows(term: Term) -> bool:
    """Whether no NULL comes after a value of the term. Only then is a row comparison correct.

    The comparison with a NULL is NULL, so the row is left out. That is right only if NULLs come before the value.
    """
    return not term.nullable or term.nulls_first


def _beyond(term: Term, value: ColumnElement[object] | None) -> ColumnElement[bool]:
    """The condition that the term of a row comes after ``value``."""
    column = term.expression
    if value is None:
        return column.is_not(None) if term.nulls_first else false()
    comparison = column < value if term.descending else column > value
    return or_(comparison, column.is_(None)) if term.nullable and not term.nulls_first else comparison


def _same(term: Term, value: ColumnElement[object] | None) -> ColumnElement[bool]:
    """The condition that the term of a row equals ``value``, or that both are NULL."""
    return term.expression.is_(None) if value is None else term.expression == value
