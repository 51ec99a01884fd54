"""Conditions on columns in which several stored values are read as one: see `dotmac_database.dialects.spans`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import bindparam, not_
from sqlalchemy.sql import ColumnElement

from ..dialects.base import Dialect
from ..dialects.spans import Span
from ..query import FilterOperator

Op = FilterOperator
Condition = ColumnElement[bool]

_COMPARED: dict[FilterOperator, Callable[[Any, Any, Any], Condition]] = {
    Op.EQ: lambda column, low, high: column.between(low, high),
    Op.NE: lambda column, low, high: not_(column.between(low, high)),
    Op.BETWEEN: lambda column, low, high: column.between(low, high),
    Op.GT: lambda column, _, high: column > high,
    Op.GTE: lambda column, low, _: column >= low,
    Op.LT: lambda column, low, _: column < low,
    Op.LTE: lambda column, _, high: column <= high,
}


def width(operator: FilterOperator, span: Span) -> int:
    """The number of parameters of the comparison."""
    if operator in (Op.EQ, Op.NE):
        return 1 if span.single else 2
    return 2 if operator in (Op.BETWEEN, Op.IN, Op.NOT_IN) else 1


def compare_span(
    column: ColumnElement[Any], operator: FilterOperator, span: Span, dialect: Dialect, names: Iterator[str]
) -> Condition:
    """The comparison of a column with the span of a value, or with the spans of a list of values.

    The names of the parameters are taken from ``names``. A list has two parameters: the lower and the upper ends.
    """
    first = next(names)
    second = first if width(operator, span) == 1 else next(names)
    if operator in (Op.IN, Op.NOT_IN):
        among = dialect.among_spans(column, span, first, second)
        return among if operator is Op.IN else not_(among)
    low, high = bindparam(first, type_=span.low), bindparam(second, type_=span.high)
    if span.single and operator in (Op.EQ, Op.NE):
        return column == low if operator is Op.EQ else column != low
    return _COMPARED[operator](column, low, high)
