"""What OpenAPI says of filters: four operators of a field as parameters of their own, the others in words.

A text has sixteen operators. With a parameter for each of them nobody reads the document of a list of a dozen columns,
and clients that are generated from it have functions of two hundred arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dotmac_database import FilterOperator

from .fields import LISTS, ClientField

MAX_DOCUMENTED = 4
"""How many operators of a field are parameters of their own in OpenAPI."""

NULLS = (FilterOperator.IS_NULL, FilterOperator.IS_NOT_NULL)

_FIRST = (
    FilterOperator.EQ,
    FilterOperator.GTE,
    FilterOperator.LT,
    FilterOperator.ILIKE,
    FilterOperator.CONTAINS,
    FilterOperator.OVERLAPS,
    FilterOperator.CONTAINED_BY,
    FilterOperator.IS_NULL,
    FilterOperator.IN,
)
_NOT_OF_TEXTS = frozenset({FilterOperator.GTE, FilterOperator.LT, FilterOperator.CONTAINS})


def documented_operators(field: ClientField) -> tuple[FilterOperator, ...]:
    """The operators of a field that are parameters of their own.

    Equality; ``gte`` and ``lt`` of numbers, dates and what else has an order, ``ilike`` of texts, all three of arrays;
    ``is_null`` where there may be no value; ``in`` where these are not four yet.
    """
    passed = _NOT_OF_TEXTS if FilterOperator.ILIKE in field.operators else frozenset()
    return tuple(each for each in _FIRST if each in field.operators and each not in passed)[:MAX_DOCUMENTED]


def describe_filters(
    field: ClientField, names: Mapping[FilterOperator, str]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The name, schema and description of a field's parameters; the first one tells of all that are none."""
    documented = documented_operators(field)
    others = _others({operator: name for operator, name in names.items() if operator not in documented})
    for operator in documented:
        yield names[operator], _schema(field, operator), f"{field.name}: {_WORDS[operator]}{others}"
        others = ""


def _others(names: Mapping[FilterOperator, str]) -> str:
    """``. Also score__ne, score__gt; with commas between values score__in, score__not_in``."""
    single = ", ".join(name for operator, name in names.items() if operator not in LISTS)
    several = ", ".join(name for operator, name in names.items() if operator in LISTS)
    told = [single] if single else []
    if several:
        told.append(f"with commas between values {several}")
    return f". Also {'; '.join(told)}" if told else ""


def _schema(field: ClientField, operator: FilterOperator) -> dict[str, Any]:
    if operator in NULLS:
        return {"type": "boolean"}
    return {"type": "array", "items": field.schema} if operator in LISTS else field.schema


_WORDS = {
    FilterOperator.EQ: "equal to this",
    FilterOperator.GTE: "this or greater",
    FilterOperator.LT: "less than this",
    FilterOperator.IN: "one of these",
    FilterOperator.ILIKE: "contains this, or matches it where it has a %; in any case",
    FilterOperator.IS_NULL: "whether it has no value",
    FilterOperator.CONTAINS: "contains this",
    FilterOperator.CONTAINED_BY: "all of it is among these",
    FilterOperator.OVERLAPS: "some of it is among these",
}
