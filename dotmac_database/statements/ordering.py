"""Builds a total order from sorts: the sort fields, then those columns of the primary key that are not among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from math import isnan
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Double, LargeBinary, String, bindparam, func, literal
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import NullType, TypeEngine

from ..dialects.base import Dialect, enum_of, lowered
from ..dialects.spans import AsStored, AsText
from ..errors import InvalidCursorError, MisuseError, ValidationError
from ..models.traits import Traits
from ..query import CursorPaginationParams, SortBy, SortField, SortOrder
from .bounds import MAX_SORTS
from .coercion import checked_text, coercer
from .counts import Counted
from .keyset import Term
from .paths import FieldPath, along, is_json, is_text, resolve
from .scope import RowRules, Scope


class OrderShape(NamedTuple):
    """One field of an order, as a hashable value."""

    field: str
    descending: bool
    nulls_first: bool
    by: SortBy | Literal["count"] = "value"


Order = tuple[OrderShape, ...]


@dataclass(frozen=True)
class OrderedTerm:
    """A field of an order with its SQL. It also converts the field's values between rows, cursors and parameters."""

    path: FieldPath
    term: Term
    dialect: Dialect
    by: SortBy | Literal["count"] = "value"

    @cached_property
    def raw(self) -> TypeEngine[object] | None:
        """The type that reads and binds the value exactly as the database stores it.

        None: the order is not that of the stored values, or the attribute's value already is the stored one.
        """
        if self.by != "value" or self.path.json or not self.dialect.orders_natively(self.path.type):
            return None
        return self.dialect.key_type(self.path.type)

    @property
    def as_text(self) -> bool:
        """Whether a cursor contains the value as the text that PostgreSQL writes for it."""
        return isinstance(self.raw, AsText)

    @cached_property
    def on_row(self) -> bool:
        """Whether the value is that of the entity's attribute. If not, the statement must select it in addition."""
        path, owner = self.path, self.path.owner
        own = self.by == "value" and path.plain and path.key in owner.columns and path.key not in owner.deferred
        return own and not self.dialect.is_raw(path.type)

    @cached_property
    def selected(self) -> ColumnElement[object]:
        """The expression by which a statement selects the value."""
        return self.term.expression if self.raw is None else self.dialect.key(self.term.expression, self.raw)

    def portable(self, value: object) -> object:
        """The form of a row's value in a cursor."""
        if not self.on_row:
            return self.exact(value)
        return value if value is None else self.dialect.order_value(self.path.type, value)

    @cached_property
    def is_untyped(self) -> bool:
        """Whether nothing but the driver's value says which type the expression has, as in ``func.upper(name)``."""
        return self.raw is None and self.by == "value" and not self.path.json and isinstance(self.path.type, NullType)

    def exact(self, value: object) -> object:
        """A value that the statement has selected in addition to the row.

        Raises `ValidationError` for a value of an unknown type that may differ from the stored one, such as a float
        that was a REAL: a comparison with it could find the same row again, and again.
        """
        if self.is_untyped and value is not None and type(value) not in _EXACT:
            raise ValidationError(
                f"{self.path.owner.name}.{self.path.key} has no type, so no position in its order can be found again: "
                "give the expression a type, as in func.sqrt(size, type_=Double()).",
                field=self.path.text,
            )
        return value

    def parameter(self, name: str, *, stored: bool = True) -> ColumnElement[object]:
        """The parameter for a comparison with the term.

        ``stored``: its value has the form in which the database stores it, otherwise the form in which it is read.
        """
        if self.raw is not None and stored:
            return self.dialect.key_parameter(name, self.raw, self.path.type)
        computed = self.path.json or self.by != "value"
        type_ = self.term.expression.type if computed else self.dialect.order_type(self.path.type)
        return bindparam(name, type_=type_)

    def restored(self, value: object) -> object:
        """The parameter's value for a cursor's value. Raises `InvalidCursorError` if it does not fit the column."""
        if value is None:
            if not self.term.nullable:
                raise InvalidCursorError
            return None
        if isinstance(self.raw, (AsStored, AsText)):
            return _checked(_can_be_stored(value, self.raw), value)
        if self.is_untyped:
            return _checked(type(value) in _EXACT, value)
        if self.by == "count":
            return _checked(type(value) is int and 0 <= value < 2**63, value)
        type_ = self.path.type if self.raw is None else self.raw
        enum = enum_of(type_)
        if self.by == "relevance":
            return _checked(type(value) is float and not isnan(value), value)
        if enum is not None and not self.dialect.orders_natively(self.path.type):
            return _checked(type(value) is int and 0 <= value < len(enum.enums), value)
        if self.path.json or self.by != "value":
            return _checked(type(value) is str and _is_text(value), value)
        if enum is not None and enum.enum_class is not None and str(value) in enum.enum_class.__members__:
            return enum.enum_class[str(value)]
        try:
            return self.path.coerce(value) if self.raw is None else coercer(self.raw)(value)
        except ValueError:
            raise InvalidCursorError from None


_EXACT = (str, int, bool, Decimal, date, datetime, UUID)
"""The types whose values the drivers of PostgreSQL read exactly, and send back so that they are equal."""


def _checked(fits: bool, value: object) -> object:
    if not fits:
        raise InvalidCursorError
    return value


def _can_be_stored(value: object, type_: TypeEngine[object]) -> bool:
    """Whether a database can have stored this value."""
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(type_, AsText):
        return False
    return type(value) in (float, bytes) or (type(value) is int and -(2**63) <= value < 2**63)


def _is_text(value: str) -> bool:
    try:
        checked_text(value)
    except ValueError:
        return False
    return True


def order_of(
    traits: Traits[Any],
    sorts: Sequence[SortField],
    counts: Sequence[Counted] = (),
    rules: RowRules | None = None,
) -> Order:
    """The total order of ``sorts``; without sorts, the primary key ascending. A sort can name one of the ``counts``.

    If a field is repeated, only its first sort counts. The columns of the primary key that are added have the direction
    of the last sort. Raises `ValidationError` for a field that can't be sorted by, and for too many sorts.
    """
    if len(sorts) > MAX_SORTS:
        raise ValidationError(f"{traits.name} can be sorted by at most {MAX_SORTS} fields at once.", field="sorts")
    order: list[OrderShape] = []
    seen: set[tuple[object, ...]] = set()
    for sort in sorts:
        descending = sort.order is SortOrder.DESC
        if any(sort.field == each.name for each in counts):
            if (sort.field, "count") not in seen:
                order.append(OrderShape(sort.field, descending, descending, "count"))
            seen.add((sort.field, "count"))
            continue
        path = resolve(traits, sort.field, rules)
        same = (path.steps, path.key, path.json, sort.by)
        if same in seen:
            continue
        seen.add(same)
        check_sortable(path, traits)
        _check_by(path, sort.by, traits)
        nulls_first = descending if sort.nulls is None else sort.nulls == "first"
        order.append(OrderShape(sort.field, descending, nulls_first, sort.by))
    descending = order[-1].descending if order else False
    missing = (key for key in traits.primary_key if ((), key, (), "value") not in seen)
    order += [OrderShape(key, descending, descending) for key in missing]
    return tuple(order)


def cursor_order(
    traits: Traits[Any],
    sorts: Sequence[SortField],
    page: CursorPaginationParams,
    counts: Sequence[Counted] = (),
    rules: RowRules | None = None,
) -> Order:
    """The order of a cursor page: that of the sorts; without sorts, that of the cursor field.

    The cursor field ``"id"`` stands for the primary key if the class has no attribute ``id``. Raises `ValidationError`
    for a private column, because everyone who has a cursor can read the values in it.
    """
    if not sorts:
        direction = SortOrder.ASC if page.ascending else SortOrder.DESC
        means_key = page.cursor_field == "id" and not traits.mapper.has_property("id")
        sorts = [SortField(key, direction) for key in (traits.primary_key if means_key else (page.cursor_field,))]
    order = order_of(traits, sorts, counts, rules)
    for each in order:
        if each.by != "count" and resolve(traits, each.field).private:
            raise MisuseError(
                f"{traits.name}.{each.field} is private, and a cursor contains the values of the fields that it is "
                "sorted by; read numbered pages, or sort by another field.",
                field=each.field,
            )
    return order


def check_sortable(path: FieldPath, traits: Traits[object]) -> None:
    """Raise `ValidationError` if the path does not lead to a single value with an order."""
    if path.key is None:
        raise MisuseError(f"{traits.name}.{path.text} is a relationship; sort by a column of it.", field=path.text)
    many = next((step for step in path.steps if step.uselist), None)
    if many is not None:
        raise MisuseError(
            f"{traits.name}.{path.text}: {many.key} can have many rows, so there is no single value to sort by.",
            field=path.text,
        )
    if (is_json(path.type) and not path.json) or isinstance(path.type, (ARRAY, LargeBinary)):
        raise MisuseError(f"{traits.name}.{path.text} has no order to sort by.", field=path.text)


def terms_of(
    traits: Traits[object], order: Order, scope: Scope, dialect: Dialect, counts: Sequence[Counted] = ()
) -> tuple[OrderedTerm, ...]:
    """The SQL of an order. A column of a related row is a scalar subquery, which neither removes nor repeats rows."""
    by_name = {each.name: each for each in counts}
    return tuple(
        _counted_term(traits, each, by_name[each.field], scope, dialect)
        if each.by == "count"
        else _term(traits, each, search_parameter(place), scope, dialect)
        for place, each in enumerate(order)
    )


def _counted_term(
    traits: Traits[object], shape: OrderShape, count: Counted, scope: Scope, dialect: Dialect
) -> OrderedTerm:
    expression: ColumnElement[Any] = count.expression(traits, scope, dialect)
    term = Term(expression, shape.descending, nullable=False, nulls_first=False)
    return OrderedTerm(count.path(traits), term, dialect, "count")


def search_parameter(place: int) -> str:
    """The name of the parameter with the search words of a sort by relevance. ``place`` is its index in the order."""
    return f"dotmac_sought_{place}"


def _term(traits: Traits[object], shape: OrderShape, search_words: str, scope: Scope, dialect: Dialect) -> OrderedTerm:
    path = resolve(traits, shape.field)

    def last(entity: object) -> ColumnElement[object]:
        column = path.on(entity)
        value = dialect.json_value(column, path.json, "any") if path.json else column
        match shape.by:
            case "folded":
                return lowered(value)
            case "relevance":
                return dialect.relevance(value, bindparam(search_words, type_=String()))
            case _:
                return value if path.json else dialect.order_key(value)

    column = along(path.steps, traits.model, scope, last)
    nullable = path.nullable
    if shape.by == "relevance":
        column, nullable = func.coalesce(column, literal(0.0, Double())), False
    return OrderedTerm(path, Term(column, shape.descending, nullable, shape.nulls_first), dialect, shape.by)


def _check_by(path: FieldPath, by: SortBy, traits: Traits[object]) -> None:
    vector = by == "relevance" and isinstance(path.type, TSVECTOR)
    if by != "value" and not (path.json or is_text(path.type) or vector):
        raise MisuseError(f"{traits.name}.{path.text} is not text, so it has no {by} order.", field=path.text)
