"""Decides by their values alone whether rows that are about to be written meet a rule, as far as that is certain.

What the values do not decide becomes a condition on the rows as they are stored, if it depends on nothing that the
write changes. Everything else can only be seen after the write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import and_, false, not_, or_, true
from sqlalchemy import types as sa
from sqlalchemy.orm import ColumnProperty
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.visitors import iterate

from ..models.traits import Traits
from ..policies.rights import Rule, RuleGroup
from ..query import FilterGroup, FilterOperator, QueryFilter
from .coercion import coercer
from .data import Values
from .paths import resolve
from .rules import RulesInSql
from .scope import Scope

Op = FilterOperator
Truths: TypeAlias = frozenset[bool | None]
"""The results that a condition can have: True, False, and SQL's NULL."""

UNKNOWN: Any = object()
"""The value of a column of which it is not known what will be stored."""

ValueOf: TypeAlias = Callable[[str], object]
"""A function that returns the value that will be stored in a column, by its attribute key, or `UNKNOWN`."""

_ANYTHING: Truths = frozenset((True, False, None))
_TRUE, _FALSE, _NULL = frozenset((True,)), frozenset((False,)), frozenset((None,))
_TEXTS = frozenset((sa.String, sa.Text, sa.Unicode, sa.UnicodeText, sa.VARCHAR, sa.TEXT))
_INTEGERS = frozenset((sa.Integer, sa.SmallInteger, sa.BigInteger, sa.INTEGER, sa.SMALLINT, sa.BIGINT))
_ORDERS = frozenset((Op.GT, Op.GTE, Op.LT, Op.LTE))


@dataclass(frozen=True, slots=True)
class Judgement:
    """The results that a rule can have for a row as it will be stored.

    ``condition`` on the row as it is stored before the write decides the same; None: only the written row shows it.
    """

    truths: Truths
    condition: ColumnElement[bool] | None = None

    @property
    def is_admitted(self) -> bool:
        """Whether the row meets the rule for certain."""
        return self.truths == _TRUE

    @property
    def is_refused(self) -> bool:
        """Whether the row can't meet the rule."""
        return True not in self.truths


_OPEN = Judgement(_ANYTHING)


class Judge:
    """Judges rows of one class by one rule.

    ``changed`` are the attributes whose columns the write changes; None: the rows are new. ``scope`` is that of the
    statements.
    """

    def __init__(
        self, traits: Traits[Any], rule: Rule, sql: RulesInSql, scope: Scope, changed: Collection[str] | None = None
    ) -> None:
        self._traits, self._rule, self._sql, self._scope = traits, rule, sql, scope
        self._changed = None if changed is None else frozenset(changed) | _changed_automatically(traits)
        self._known: dict[tuple[object, ...], Judgement] = {}

    def judged(self, value_of: ValueOf) -> Judgement:
        """The judgement of one row."""
        return self._judged(self._rule, value_of)

    def judged_rows(self, columns: Mapping[str, Sequence[Any]], many: int, rest: ValueOf) -> Iterator[Judgement]:
        """The judgements of many rows with the same fields; ``rest`` are the values of other columns in all rows.

        Rows with the same values in the columns that the rule names are judged once.
        """
        names = [name for name in self.names if name in columns]
        if not names:
            yield from [self.judged(rest)] * many
            return
        for row in zip(*(columns[name] for name in names), strict=True):
            try:
                key = tuple((type(value), value) for value in row)
                judgement = self._known.get(key)
            except TypeError:  # a value that is not hashable
                key, judgement = (), None
            if judgement is None:
                values = dict(zip(names, row, strict=True))
                judgement = self.judged(lambda name, values=values: values[name] if name in values else rest(name))  # type: ignore[misc]  # the default keeps this row's values
                if key:
                    self._known[key] = judgement
            yield judgement

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that the rule's filters name."""
        return tuple(dict.fromkeys(_names(self._traits, self._rule)))

    def _judged(self, rule: Any, value_of: ValueOf) -> Judgement:
        if isinstance(rule, bool):
            return Judgement(_TRUE if rule else _FALSE, true() if rule else false())
        if isinstance(rule, RuleGroup):
            return _combined([self._judged(each, value_of) for each in rule.members], is_any=rule.is_any)
        if isinstance(rule, FilterGroup):
            members = [self._judged(each, value_of) for each in rule.members]
            combined = _combined(members, is_any=rule.mode != "all")
            return _negated(combined) if rule.mode == "none" else combined
        if isinstance(rule, QueryFilter):
            key = _column_of(self._traits, rule)
            value = UNKNOWN if key is None or not self._is_usual(key) else value_of(key)
            if key is not None and value is not UNKNOWN:
                truths = _compared(self._traits.columns[key].type, rule, value)
                return _OPEN if truths is None else Judgement(truths, _constant(truths))
        return self._on_stored(rule)

    def _is_usual(self, key: str) -> bool:
        """Whether a column is compared as its type says: it has no comparator, or other type on this database."""
        attribute: Any = self._traits.mapper.column_attrs[key]
        type_ = self._traits.columns[key].type
        stored = self._sql.dialect.underlying(type_)
        return attribute.comparator_factory is ColumnProperty.Comparator and _name_of(stored) == _name_of(type_)

    def _on_stored(self, rule: Rule) -> Judgement:
        """What values do not decide: a condition on the stored row, if nothing in it changes."""
        if self._changed is None:
            return _OPEN
        condition = self._sql.condition(rule, self._traits, self._traits.model, self._scope)
        columns = _columns_in(condition)
        changed = {_place(self._traits.columns[key]) for key in self._changed if key in self._traits.columns}
        if columns is None or not columns.isdisjoint(changed):
            return _OPEN
        return Judgement(_ANYTHING, condition)


def new_value_of(traits: Traits[Any], values: Values, defaults: Mapping[str, object]) -> ValueOf:
    """The values of a new row, also those of columns that are not named: their constant defaults, or NULL.

    ``defaults`` are the constant defaults that have to be converted for their columns.
    """

    def value_of(key: str) -> object:
        column, value = traits.columns[key], values.get(key)
        if value is not None:
            return value
        if key in values and key in traits.null_unless_set:
            return value
        if key in defaults:
            return defaults[key]
        default: Any = column.default
        if default is not None:
            return default.arg if default.is_scalar else UNKNOWN
        makes = (column.server_default, column.computed, column.identity)
        if any(each is not None for each in makes) or column.primary_key or key == traits.tenant:
            return UNKNOWN
        return None

    return value_of


def _names(traits: Traits[Any], rule: Any) -> Iterator[str]:
    if isinstance(rule, (RuleGroup, FilterGroup)):
        for member in rule.members:
            yield from _names(traits, member)
    elif isinstance(rule, QueryFilter):
        key = _column_of(traits, rule)
        if key is not None:
            yield key


def _column_of(traits: Traits[Any], rule: QueryFilter) -> str | None:
    """The attribute of the class's own column that a filter compares; None: it compares something else."""
    path = resolve(traits, rule.field)
    if path.steps or path.json or path.key not in traits.columns or path.compares_itself:
        return None
    return path.key


def _combined(members: Iterable[Judgement], *, is_any: bool) -> Judgement:
    """The judgement of OR or AND."""
    neutral, final = (_FALSE, _TRUE) if is_any else (_TRUE, _FALSE)
    rest = [each for each in members if each.truths != neutral]
    if not rest:
        return Judgement(neutral, _constant(neutral))
    if any(each.truths == final for each in rest):
        return Judgement(final, _constant(final))
    results = _or if is_any else _and
    truths = rest[0].truths
    for each in rest[1:]:
        truths = frozenset(results(*pair) for pair in product(truths, each.truths))
    conditions = [each.condition for each in rest if each.condition is not None]
    if len(conditions) < len(rest):
        return Judgement(truths)
    return Judgement(truths, or_(*conditions) if is_any else and_(*conditions))


def _negated(judgement: Judgement) -> Judgement:
    truths = frozenset(None if each is None else not each for each in judgement.truths)
    if len(truths) == 1:
        return Judgement(truths, _constant(truths))
    return Judgement(truths, None if judgement.condition is None else not_(judgement.condition))


def _and(first: bool | None, second: bool | None) -> bool | None:
    return False if first is False or second is False else None if first is None or second is None else True


def _or(first: bool | None, second: bool | None) -> bool | None:
    return True if first is True or second is True else None if first is None or second is None else False


def _constant(truths: Truths) -> ColumnElement[bool] | None:
    """The condition that always has this result; None for NULL, whose form depends on what it is combined with."""
    return true() if truths == _TRUE else false() if truths == _FALSE else None


def _compared(type_: sa.TypeEngine[Any], rule: QueryFilter, value: object) -> Truths | None:
    """The result of a filter for a known value; None if Python and the database might not agree on it."""
    operator, operand = rule.operator, rule.value
    if operand is None and operator in (Op.EQ, Op.NE):
        operator = Op.IS_NULL if operator is Op.EQ else Op.IS_NOT_NULL
    if value is not None and not _is_comparable(type_, value):
        return None
    if operator in (Op.IS_NULL, Op.IS_NOT_NULL):
        if operand is not None and not isinstance(operand, bool):
            return None
        return _truth((value is None) is ((operator is Op.IS_NULL) is (operand is not False)))
    try:
        coerce = coercer(type_)
        if operator in (Op.IN, Op.NOT_IN):
            return _among(type_, operator, operand, value)
        other = coerce(operand)
        own = value if value is None else coerce(value)
    except ValueError:
        return None
    if not _is_comparable(type_, other):
        return None
    if own is None:
        return _NULL if operator in (Op.EQ, Op.NE) or operator in _ORDERS else None
    if operator in (Op.EQ, Op.NE):
        return _truth((own == other) is (operator is Op.EQ))
    if operator not in _ORDERS or type(own) not in (int, date) or type(own) is not type(other):
        return None
    results = {Op.GT: own > other, Op.GTE: own >= other, Op.LT: own < other, Op.LTE: own <= other}
    return _truth(results[operator])


def _among(type_: sa.TypeEngine[Any], operator: FilterOperator, operand: Any, value: object) -> Truths | None:
    if isinstance(operand, (str, bytes, dict)) or not isinstance(operand, Iterable):
        return None
    listed, coerce = list(operand), coercer(type_)
    members = [coerce(each) for each in listed if each is not None]
    if operator is Op.NOT_IN and len(members) != len(listed):
        return _FALSE
    if not members:
        return _truth(operator is Op.NOT_IN)
    if not all(_is_comparable(type_, each) for each in members):
        return None
    return _NULL if value is None else _truth((coerce(value) in members) is (operator is Op.IN))


def _truth(result: bool) -> Truths:
    return _TRUE if result else _FALSE


def _is_comparable(type_: sa.TypeEngine[Any], value: object) -> bool:
    """Whether values of the type are equal in Python if, and only if, the database finds them equal."""
    kind = type(type_)
    if kind in _TEXTS and isinstance(type_, sa.String):
        fits = type_.length is None or (isinstance(value, str) and len(value) <= type_.length)
        return type(value) is str and type_.collation is None and fits
    if kind in _INTEGERS:
        return type(value) is int
    if isinstance(type_, sa.Uuid):
        return bool(type_.as_uuid) and type(value) is UUID
    if kind is sa.Enum:
        return isinstance(value, (Enum, str))
    return (kind in (sa.Boolean, sa.BOOLEAN) and type(value) is bool) or (
        kind in (sa.Date, sa.DATE) and type(value) is date
    )


def _changed_automatically(traits: Traits[Any]) -> frozenset[str]:
    """The attributes of columns that change with each update of their row, or that are computed from others."""
    return frozenset(
        key
        for key, column in traits.columns.items()
        if column.onupdate is not None
        or column.server_onupdate is not None
        or column.computed is not None
        or key in (traits.version, traits.updated_at, traits.updated_by)
    )


def _columns_in(condition: ColumnElement[bool]) -> set[tuple[str, str]] | None:
    """The tables' columns on which a condition depends; None: that is not certain, because it contains SQL text."""
    places: set[tuple[str, str]] = set()
    for element in iterate(condition):
        if isinstance(element, TextClause):
            return None
        if not isinstance(element, ColumnClause):
            continue
        if element.is_literal and not str(element.name).isdigit():  # SELECT 1 is no column
            return None
        for base in element.base_columns:
            if getattr(base, "table", None) is not None:
                places.add(_place(base))
    return places


def _name_of(type_: sa.TypeEngine[Any]) -> str:
    """The name by which SQLAlchemy's compilers know a type."""
    return str(type_.__visit_name__).lower()


def _place(column: Any) -> tuple[str, str]:
    return str(getattr(column.table, "fullname", column.table.name)), str(column.name)
