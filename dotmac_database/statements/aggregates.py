"""Builds the SELECT of aggregates over groups of rows.

A subquery computes the group fields, and the outer SELECT groups by its columns. Without the subquery, an expression
with parameters would appear twice, with different parameters, and GROUP BY would not recognise the two as the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import (
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    Numeric,
    Select,
    String,
    Time,
    bindparam,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.sql import ColumnElement

from ..dialects.base import Dialect, enum_of
from ..errors import MisuseError
from ..models.traits import Traits
from ..query import Aggregate, Filter, SortField, SortOrder
from ..types import undecorated
from .keyset import Term, order_by
from .ordering import check_sortable
from .paths import FieldPath, along, resolve
from .reads import Bound, Reader
from .scope import RowRules
from .suggestions import shown, suggestion

Convert = Callable[[Any], Any]

_SUMMABLE = (Integer, Numeric, Float)
"""The types that have a sum and an average."""

_ORDERABLE = (Integer, Numeric, Float, String, Date, DateTime, Time, Interval)
"""The types that have a minimum and a maximum."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """A statement that returns one row for each group, and the functions that convert the values of a row."""

    bound: Bound
    names: tuple[str, ...]
    converters: tuple[Convert | None, ...]

    def rows(self, result: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of the statement's result as dicts, by the names of the groups and measures."""
        return [
            {
                name: value if convert is None or value is None else convert(value)
                for name, convert, value in zip(self.names, self.converters, row, strict=True)
            }
            for row in result
        ]


def grouped(
    reader: Reader,
    measures: Mapping[str, Aggregate],
    groups: Sequence[str],
    filters: Sequence[Filter],
    sorts: Sequence[SortField] = (),
    limit: int | None = None,
) -> Grouped:
    """The SELECT of the aggregates of each group; without groups, of all rows.

    The groups are sorted by ``sorts``, which name groups and measures, and then by their fields, ascending, with NULLs
    last. There are at most ``limit`` of them (None: all).
    """
    traits, dialect = reader.traits, reader.dialect
    names = (*groups, *measures)
    if not names:
        raise MisuseError("Nothing to compute: name at least one measure or group.")
    if len(set(names)) != len(names):
        raise MisuseError("Two measures or groups have the same name; each needs a name of its own.")
    analysis = reader.analysed(filters)
    rules = reader.scope.rules
    paths = [resolve(traits, name, rules) for name in groups]
    for path in paths:
        check_sortable(path, traits)
    for name, measure in measures.items():
        _check(traits, name, measure, rules)
    order = tuple(_place(traits, each, names) for each in sorts)
    shape = ("grouped", analysis.shape, tuple(groups), tuple(measures.values()), order, limit is None)

    def build() -> Select[object]:
        statement = _build(reader, list(measures.values()), paths, reader.where(analysis), order)
        return statement if limit is None else statement.limit(bindparam("dotmac_limit"))

    converters = (*(None for _ in groups), *(_converter(traits, measure, dialect) for measure in measures.values()))
    parameters = {**reader.scope.parameters, **analysis.parameters}
    if limit is not None:
        parameters["dotmac_limit"] = limit
    bound = Bound(reader.cached(shape, build), parameters)
    return Grouped(reader.confined(bound), names, converters)


_Place: TypeAlias = tuple[int, bool, bool]
"""A sort: the index among the groups and measures, whether it is descending, and whether NULLs come first."""


def _place(traits: Traits[object], sort: SortField, names: Sequence[str]) -> _Place:
    """The place of a sort. Raises `ValidationError` if it names neither a group nor a measure."""
    if sort.field not in names or sort.by != "value":
        raise MisuseError(
            f"{traits.name}: a group has no value {shown(sort.field)!r} to sort by{suggestion(sort.field, names)}",
            field=sort.field,
        )
    descending = sort.order is SortOrder.DESC
    return names.index(sort.field), descending, descending if sort.nulls is None else sort.nulls == "first"


def _build(
    reader: Reader,
    measures: Sequence[Aggregate],
    paths: Sequence[FieldPath],
    where: list[Any],
    order: Sequence[_Place],
) -> Select[Any]:
    traits, dialect = reader.traits, reader.dialect
    keys = [_value(reader, path, "any") for path in paths]
    values = [_operand(reader, measure) for measure in measures]
    labels = [each.label(f"g{index}") for index, each in enumerate(keys)]
    labels += [each.label(f"v{index}") for index, each in enumerate(values)]
    inner = select(*labels).select_from(traits.model).where(*where).subquery("dotmac_rows")
    group_columns = [inner.c[f"g{index}"] for index in range(len(keys))]
    measure_columns = [_aggregate(measure, inner.c[f"v{index}"]) for index, measure in enumerate(measures)]
    columns: list[Any] = [*group_columns, *measure_columns]
    places = [*order, *((index, False, False) for index in range(len(group_columns)))]
    terms = [
        Term(dialect.order_key(columns[index]), descending, nullable=True, nulls_first=nulls_first)
        for index, descending, nulls_first in places
    ]
    statement: Any = select(*columns)  # type checkers have an overload for each number of columns
    return statement.select_from(inner).group_by(*group_columns).order_by(*order_by(terms))  # type: ignore[no-any-return]  # as above


def _operand(reader: Reader, measure: Aggregate) -> ColumnElement[object]:
    """The value that a measure aggregates, in one row."""
    if measure.field is None:
        return literal_column("1")  # `_aggregate` counts rows, and does not use the value
    path = resolve(reader.traits, measure.field)
    value = _value(reader, path, "any" if measure.function == "count" else "number")
    return reader.dialect.order_key(value) if measure.function in ("min", "max") else value


def _value(reader: Reader, path: FieldPath, kind: str) -> ColumnElement[object]:
    """The SQL of a path's value. A value inside JSON is read as ``kind``: ``"any"`` or ``"number"``."""

    def last(entity: object) -> ColumnElement[object]:
        column = path.on(entity)
        return reader.dialect.json_value(column, path.json, kind) if path.json else column

    return along(path.steps, reader.traits.model, reader.scope, last)


def _aggregate(measure: Aggregate, value: ColumnElement[object]) -> ColumnElement[Any]:
    """The call of the measure's SQL function with ``value``."""
    if measure.field is None:
        return func.count(literal_column("*"))
    argument: Any = value.distinct() if measure.distinct else value
    match measure.function:
        case "count":
            return func.count(argument)
        case "min" | "max":
            return type_coerce(getattr(func, measure.function)(argument), value.type)
        case "sum":
            return type_coerce(func.sum(argument), value.type)
        case _:
            exact = isinstance(undecorated(value.type), Numeric)
            return type_coerce(func.avg(argument), Numeric() if exact else Float())


def _check(traits: Traits[object], name: str, measure: Aggregate, rules: RowRules | None) -> None:
    """Raise `ValidationError` if the measure's function can't aggregate its field."""
    if measure.field is None:
        if measure.function != "count" or measure.distinct:
            raise MisuseError(f"{name}: {measure.function} needs a field.", field=name)
        return
    path = resolve(traits, measure.field, rules)
    check_sortable(path, traits)
    if measure.function == "count" or path.json:
        return
    types = _SUMMABLE if measure.function in ("sum", "avg") else _ORDERABLE
    if not isinstance(undecorated(path.type), types) or (types is _SUMMABLE and enum_of(path.type) is not None):
        raise MisuseError(
            f"{name}: {traits.name}.{path.text} has no {measure.function}, because it is not a "
            f"{'number' if types is _SUMMABLE else 'number, text, time or enum'}.",
            field=path.text,
        )


def _converter(traits: Traits[object], measure: Aggregate, dialect: Dialect) -> Convert | None:
    """The function that converts the database's value to Python; None if no conversion is needed."""
    if measure.field is None or measure.function == "count":
        return None
    path = resolve(traits, measure.field)
    enum = enum_of(path.type)
    if enum is not None and not dialect.orders_natively(path.type):
        members: list[object] = list(enum.enums if enum.enum_class is None else enum.enum_class)
        return lambda rank: members[rank]
    if path.json or (measure.function == "avg" and not isinstance(undecorated(path.type), Numeric)):
        return float
    if measure.function == "sum" and isinstance(undecorated(path.type), Integer):
        return int
    return None
