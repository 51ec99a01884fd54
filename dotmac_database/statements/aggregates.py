"""Builds the SELECT of aggregates over groups of rows.

The group fields are computed in a subquery, and grouped outside of it. Otherwise an expression with parameters would
appear twice with different parameters, which GROUP BY does not recognise as the same expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..dialects.base import Dialect, enum_of
from ..errors import MisuseError
from ..models.traits import Traits
from ..query import Aggregate, Filter
from .keyset import Term, order_by
from .ordering import check_sortable
from .paths import FieldPath, along, resolve
from .reads import Bound, Reader

Convert = Callable[[Any], Any]

_SUMMED = (Integer, Numeric, Float)
_RANKED = (Integer, Numeric, Float, String, Date, DateTime, Time, Interval)


@dataclass(frozen=True, slots=True)
class Grouped:
    """A statement whose rows are groups, with the converters of its values."""

    bound: Bound
    names: tuple[str, ...]
    converters: tuple[Convert | None, ...]

    def rows(self, found: Sequence[Any]) -> list[dict[str, Any]]:
        """The groups as dicts."""
        return [
            {
                name: value if convert is None or value is None else convert(value)
                for name, convert, value in zip(self.names, self.converters, row, strict=True)
            }
            for row in found
        ]


def grouped(
    reader: Reader, measures: Mapping[str, Aggregate], groups: Sequence[str], filters: Sequence[Filter]
) -> Grouped:
    """The aggregates of each group, in the order of the groups, NULLs last; without groups, of all rows."""
    traits, dialect = reader.traits, reader.dialect
    names = (*groups, *measures)
    if not names:
        raise MisuseError("Nothing is asked for: name a measure or a group.")
    if len(set(names)) != len(names):
        raise MisuseError("Each measure and each group needs a name of its own.")
    found = reader.analysed(filters)
    paths = [resolve(traits, name) for name in groups]
    for path in paths:
        check_sortable(path, traits)
    for name, measure in measures.items():
        _check(traits, name, measure)
    shape = ("grouped", found.shape, tuple(groups), tuple(measures.values()))

    def build() -> Select[Any]:
        return _build(reader, list(measures.values()), paths, reader.where(found))

    converters = (*(None for _ in groups), *(_converter(traits, measure, dialect) for measure in measures.values()))
    bound = Bound(reader.cached(shape, build), {**reader.scope.parameters, **found.parameters})
    return Grouped(reader.confined(bound), names, converters)


def _build(reader: Reader, measures: Sequence[Aggregate], paths: Sequence[FieldPath], where: list[Any]) -> Select[Any]:
    traits, dialect = reader.traits, reader.dialect
    keys = [_value(reader, path, "any") for path in paths]
    values = [_operand(reader, measure) for measure in measures]
    named = [each.label(f"g{index}") for index, each in enumerate(keys)]
    named += [each.label(f"v{index}") for index, each in enumerate(values)]
    inner = select(*named).select_from(traits.model).where(*where).subquery("dotmac_rows")
    held = [inner.c[f"g{index}"] for index in range(len(keys))]
    asked = [_measured(measure, inner.c[f"v{index}"]) for index, measure in enumerate(measures)]
    terms = [Term(dialect.order_key(each), descending=False, nullable=True, nulls_first=False) for each in held]
    columns: list[Any] = [*held, *asked]
    statement: Any = select(*columns)  # type checkers have an overload for each number of columns
    return statement.select_from(inner).group_by(*held).order_by(*order_by(terms))  # type: ignore[no-any-return]  # as above


def _operand(reader: Reader, measure: Aggregate) -> ColumnElement[Any]:
    if measure.field is None:
        return literal_column("1")
    path = resolve(reader.traits, measure.field)
    value = _value(reader, path, "any" if measure.function == "count" else "number")
    return reader.dialect.order_key(value) if measure.function in ("min", "max") else value


def _value(reader: Reader, path: FieldPath, kind: str) -> ColumnElement[Any]:
    """The SQL of a path's value; in JSON, of this kind."""

    def last(entity: Any) -> ColumnElement[Any]:
        column = path.on(entity)
        return reader.dialect.json_value(column, path.json, kind) if path.json else column

    return along(path.steps, reader.traits.model, reader.scope, last)


def _measured(measure: Aggregate, value: ColumnElement[Any]) -> ColumnElement[Any]:
    if measure.field is None:
        return func.count(literal_column("*"))
    chosen: Any = value.distinct() if measure.distinct else value
    match measure.function:
        case "count":
            return func.count(chosen)
        case "min" | "max":
            return type_coerce(getattr(func, measure.function)(chosen), value.type)
        case "sum":
            return type_coerce(func.sum(chosen), value.type)
        case _:
            exact = isinstance(_plain(value.type), Numeric)
            return type_coerce(func.avg(chosen), Numeric() if exact else Float())


def _check(traits: Traits[Any], name: str, measure: Aggregate) -> None:
    if measure.field is None:
        if measure.function != "count" or measure.distinct:
            raise MisuseError(f"{name}: {measure.function} needs a field.", field=name)
        return
    path = resolve(traits, measure.field)
    check_sortable(path, traits)
    if measure.function == "count" or path.json:
        return
    fits = _SUMMED if measure.function in ("sum", "avg") else _RANKED
    if not isinstance(_plain(path.type), fits) or (fits is _SUMMED and enum_of(path.type) is not None):
        raise MisuseError(
            f"{name}: {traits.name}.{path.text} has no {measure.function}; it is no "
            f"{'number' if fits is _SUMMED else 'number, text, time or enum'}.",
            field=path.text,
        )


def _plain(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def _converter(traits: Traits[Any], measure: Aggregate, dialect: Dialect) -> Convert | None:
    """The function that converts the database's value to Python; None if none is needed."""
    if measure.field is None or measure.function == "count":
        return None
    path = resolve(traits, measure.field)
    enum = enum_of(path.type)
    if enum is not None and not dialect.orders_natively(path.type):
        members: list[Any] = list(enum.enums if enum.enum_class is None else enum.enum_class)
        return lambda rank: members[rank]
    if path.json or (measure.function == "avg" and not isinstance(_plain(path.type), Numeric)):
        return float
    if measure.function == "sum" and isinstance(_plain(path.type), Integer):
        return int
    return None
