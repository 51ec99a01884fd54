"""Builds conditions from filters in two steps: `analyse` returns a hashable shape and the values, `build` the SQL.

The SQL depends only on the shape. So a statement is built once for each shape, and each call only binds its values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import ARRAY, Boolean, String, and_, bindparam, false, not_, or_, true
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import aliased
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import TypeEngine

from ..dialects.base import Dialect, ends_in_escape, escaped, operand_type
from ..dialects.spans import AsWritten, Span
from ..errors import MisuseError, ValidationError
from ..models.traits import Traits, traits_of
from ..query import Filter, FilterGroup, FilterOperator, QueryFilter
from .bounds import MAX_DEPTH, MAX_PATTERN, MAX_SEARCH, MAX_VALUES, check_size
from .coercion import checked_text, json_text, short_repr
from .paths import FieldPath, is_json, is_text, resolve
from .scope import Scope
from .spans import compare_span, width

Op = FilterOperator
Condition = ColumnElement[bool]

_COMPARISONS = {Op.EQ, Op.NE, Op.GT, Op.GTE, Op.LT, Op.LTE}
_RANGES = {Op.GT, Op.GTE, Op.LT, Op.LTE, Op.BETWEEN}
_LISTS = {Op.IN, Op.NOT_IN}
_COMPARED = _COMPARISONS | _LISTS | {Op.BETWEEN}
_PATTERNS = {Op.LIKE, Op.NOT_LIKE, Op.ILIKE, Op.NOT_ILIKE, Op.STARTS_WITH, Op.ENDS_WITH}
_NULLS = {Op.IS_NULL, Op.IS_NOT_NULL}
_SETS = {Op.CONTAINS, Op.CONTAINED_BY, Op.OVERLAPS}
_INSENSITIVE = {Op.ILIKE, Op.NOT_ILIKE}


_JSON_TYPES: dict[str, TypeEngine[Any]] = {"number": AsWritten(), "boolean": Boolean()}


class ConditionShape(NamedTuple):
    """One condition without its values.

    ``kind`` is the type as which a value inside JSON is read: ``"text"``, ``"number"``, ``"boolean"`` or ``"any"``. It
    is empty for other fields. ``values`` is the number of values that the condition takes.
    """

    field: str
    operator: FilterOperator
    kind: str = ""
    values: int = 1


class GroupShape(NamedTuple):
    """A group of shapes. ``mode`` is that of `FilterGroup`, or ``"never"`` for a condition that no row meets."""

    mode: str
    members: tuple[object, ...]


NOTHING = GroupShape("never", ())
EVERYTHING = GroupShape("all", ())


@dataclass(frozen=True, slots=True)
class Analysis:
    """The result of `analyse`: the hashable shape of the filters, and the values to bind, in the order of the shape."""

    shape: tuple[object, ...]
    values: list[object]

    @property
    def parameters(self) -> dict[str, object]:
        """The values by parameter name."""
        return {f"p{index}": value for index, value in enumerate(self.values)}

    @property
    def unbounded(self) -> bool:
        """Whether the filters limit nothing: there are none, they are always true, or they contain no condition."""
        return all(_always(member) or _has_no_condition(member) for member in self.shape)


def _has_no_condition(shape: object) -> bool:
    """Whether a shape is a group that contains no condition at any depth."""
    return isinstance(shape, GroupShape) and shape.mode != "never" and all(map(_has_no_condition, shape.members))


def _always(shape: object) -> bool:
    """Whether a shape is true for every row."""
    if not isinstance(shape, GroupShape):
        return False
    match shape.mode:
        case "all":
            return all(map(_always, shape.members))
        case "any":
            return any(map(_always, shape.members))
        case "none":
            return all(map(_never, shape.members))
        case _:
            return False


def _never(shape: object) -> bool:
    """Whether a shape is false for every row: it is an empty ``any``, or `NOTHING`."""
    return isinstance(shape, GroupShape) and not shape.members and shape.mode in ("any", "never")


def analyse(traits: Traits[object], filters: Iterable[Filter], dialect: Dialect) -> Analysis:
    """Resolve fields and coerce values. Raises `ValidationError` that names the field, the operator and the value."""
    filters = list(filters)
    check_size(traits, filters)
    values: list[object] = []
    shape = tuple(_analyse(traits, each, dialect, values, 0) for each in filters)
    return Analysis(shape, values)


def _analyse(traits: Traits[object], each: Filter, dialect: Dialect, values: list[object], depth: int) -> object:
    if isinstance(each, FilterGroup):
        if depth >= MAX_DEPTH:
            raise ValidationError(f"Groups of filters can be nested at most {MAX_DEPTH} deep.")
        members = tuple(_analyse(traits, member, dialect, values, depth + 1) for member in each.members)
        return GroupShape(each.mode, members)
    path = resolve(traits, each.field)
    try:
        return _condition(path, each, dialect, values)
    except ValueError as expected:
        if isinstance(expected, ValidationError):
            raise
        _refuse(path, traits, each, str(expected))


def _refuse(path: FieldPath, traits: Traits[object], each: QueryFilter, expected: str) -> NoReturn:
    """Raise `ValidationError` for a filter's value. The value of a private column is not repeated in the message."""
    value = "the value" if path.private else short_repr(each.value)
    raise ValidationError(
        f"{traits.name}.{path.text} {each.operator.value}: {value} is not {expected}.",
        field=path.text,
        operator=each.operator.value,
    )


def _condition(path: FieldPath, each: QueryFilter, dialect: Dialect, values: list[object]) -> object:
    operator, value = each.operator, each.value
    if value is None and operator in (Op.EQ, Op.NE):
        operator, value = Op.IS_NULL if operator is Op.EQ else Op.IS_NOT_NULL, True
    if operator in _NULLS:
        return ConditionShape(path.text, _null_operator(operator, value), "any" if path.json else "", 0)
    if path.key is None:
        raise ValueError("possible: the path ends at a relationship, which supports only is_null and is_not_null")
    if value is None:
        raise ValueError("a value; use is_null to find NULLs")
    if operator in _PATTERNS or operator is Op.SEARCH or (operator is Op.CONTAINS and is_text(path.type)):
        values.append(_pattern(path, operator, value, dialect))
        return ConditionShape(path.text, operator, "text" if path.json else "")
    if operator in _SETS:
        return _set_condition(path, operator, value, values)
    if is_json(path.type):
        return _json_condition(path, operator, value, values)
    return _plain_condition(path, operator, value, values, dialect)


def _null_operator(operator: FilterOperator, value: object) -> FilterOperator:
    truth: dict[object, bool] = {
        None: True,
        True: True,
        False: False,
        "true": True,
        "false": False,
        "1": True,
        "0": False,
    }
    key = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(key, (bool, str, int, type(None))) or key not in truth:
        raise ValueError("true or false")
    if truth[key]:
        return operator
    return Op.IS_NOT_NULL if operator is Op.IS_NULL else Op.IS_NULL


def _plain_condition(
    path: FieldPath, operator: FilterOperator, value: object, values: list[Any], dialect: Dialect
) -> ConditionShape | GroupShape:
    if isinstance(path.type, TSVECTOR):
        raise ValueError("possible: use search for a text search vector")
    ranked = operator in _RANGES
    coerce = path.compared(dialect)

    def coerced(each: object) -> object:
        each = coerce(each)
        return dialect.order_value(path.type, each) if ranked else each

    if isinstance(path.type, ARRAY) and operator in _LISTS:
        raise ValueError("possible: use contains, contained_by or overlaps for an array")
    span = path.span(dialect)
    if span is not None:
        return _span_condition(ConditionShape(path.text, operator), value, coerce, values, span)
    shape = _with_values(ConditionShape(path.text, operator), value, coerced, values)
    is_list = operator in _LISTS and isinstance(shape, ConditionShape)
    if is_list and len(values[-1]) > MAX_VALUES and not dialect.takes_many(path.type):
        raise ValueError(f"a list of at most {MAX_VALUES} values")
    return shape


def _span_condition(
    shape: ConditionShape, value: object, coerced: object, values: list[object], span: Span
) -> ConditionShape | GroupShape:
    """As `_with_values`, for a comparison with a span. The value is appended twice if the SQL uses both ends."""
    condition = _with_values(shape, value, coerced, values)
    if not isinstance(condition, ConditionShape):
        return condition
    if shape.operator is not Op.BETWEEN and width(shape.operator, span) == 2:
        values.append(values[-1])
    return condition._replace(values=width(shape.operator, span))


def _with_values(
    shape: ConditionShape, value: object, coerced: Any, values: list[object]
) -> ConditionShape | GroupShape:
    """Append the coerced value or values of a comparison, a list or a range to ``values``, and return the shape.

    If the values alone decide the condition, nothing is appended, and the shape is `NOTHING` or `EVERYTHING`.
    """
    if shape.operator is Op.BETWEEN:
        low, high = _members(value, "a pair: the lower and the upper bound", exactly=2)
        values.extend((coerced(low), coerced(high)))
        return shape._replace(values=2)
    if shape.operator in _LISTS:
        members = _members(value, "a list")
        coerced_members = [coerced(member) for member in members if member is not None]
        if shape.operator is Op.NOT_IN and len(coerced_members) != len(members):
            return NOTHING  # x NOT IN (…, NULL) is never true
        if not coerced_members:
            return NOTHING if shape.operator is Op.IN else EVERYTHING
        values.append(coerced_members)
        return shape
    values.append(coerced(value))
    return shape


def _members(value: object, expected: str, exactly: int | None = None) -> list[object]:
    """The members of a filter's list. With ``exactly``, there must be this number of members, and none can be None."""
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        raise ValueError(expected)
    members = list(value)
    if exactly is not None and (len(members) != exactly or None in members):
        raise ValueError(expected)
    return members


def _json_condition(
    path: FieldPath, operator: FilterOperator, value: object, values: list[object]
) -> ConditionShape | GroupShape:
    if not path.json:
        raise ValueError("possible: compare a path into the JSON document, or use contains")
    sample = value
    if operator in _LISTS or operator is Op.BETWEEN:
        members = [member for member in _members(value, "a list") if member is not None]
        sample = members[0] if members else ""
    kind = _json_kind(sample)

    def coerced(each: object) -> object:
        if _json_kind(each) != kind:
            raise ValueError("of the same type as the other values")
        return checked_text(each) if isinstance(each, str) else each

    return _with_values(ConditionShape(path.text, operator, kind), value, coerced, values)


def _json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (int, float)) and json_text(value) and abs(value) < 1e300:
        return "number"
    raise ValueError("text, a number, true or false")


def _set_condition(path: FieldPath, operator: FilterOperator, value: object, values: list[object]) -> ConditionShape:
    if is_json(path.type):
        if operator is Op.OVERLAPS and not isinstance(value, (list, tuple)):
            raise ValueError("a list")
        values.append(json_text(list(value) if isinstance(value, (tuple, set, frozenset)) else value))
        return ConditionShape(path.text, operator)
    if not isinstance(path.type, ARRAY):
        raise ValueError("possible: the field is neither an array nor JSON")
    members = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    values.append(path.coerce(members))
    return ConditionShape(path.text, operator)


def _pattern(path: FieldPath, operator: FilterOperator, value: object, dialect: Dialect) -> str:
    searchable = operator is Op.SEARCH and isinstance(path.type, TSVECTOR)
    if not (is_text(path.type) or path.json or searchable):
        raise ValueError("possible: the field is not text")
    if not isinstance(value, str):
        raise ValueError("text")
    checked_text(value)
    if operator is Op.SEARCH:
        if len(value) > MAX_SEARCH:
            raise ValueError(f"text of at most {MAX_SEARCH} characters")
        return dialect.search_text(value)
    if len(value) > MAX_PATTERN:
        raise ValueError(f"text of at most {MAX_PATTERN} characters")
    if operator is Op.STARTS_WITH:
        pattern = f"{escaped(value)}%"
    elif operator is Op.ENDS_WITH:
        pattern = f"%{escaped(value)}"
    elif operator is Op.CONTAINS or "%" not in value:
        pattern = f"%{escaped(value)}%"
    elif ends_in_escape(value):
        raise ValueError("a pattern: it ends in an escape character")
    else:
        pattern = value
    return pattern if operator in _INSENSITIVE else dialect.sensitive_pattern(pattern)


def search_terms(filters: Iterable[Filter], field: str) -> str | None:
    """The words of the first SEARCH filter on a field, also in groups other than ``none_of``; None if there is none."""
    for each in filters:
        if isinstance(each, FilterGroup):
            words = None if each.mode == "none" else search_terms(each.members, field)
            if words is not None:
                return words
        elif each.operator is Op.SEARCH and each.field == field and isinstance(each.value, str):
            return each.value
    return None


def build(
    traits: Traits[object],
    shapes: Sequence[object],
    scope: Scope,
    dialect: Dialect,
    prefix: str = "p",
    entity: object = None,
) -> list[Condition]:
    """The conditions of analysed filters. Their parameters are named ``p0``, ``p1``, … in the shape's order.

    The scope also applies to the rows that a path reaches through relationships. ``entity`` is the class or an alias of
    it, for conditions inside of another statement: then each related class has an alias of its own. None: the class.
    """
    names = (f"{prefix}{index}" for index in range(2**31))
    return [_build(traits, shape, scope, dialect, names, entity) for shape in shapes]


def _build(
    traits: Traits[object], shape: Any, scope: Scope, dialect: Dialect, names: Iterator[str], entity: object = None
) -> Condition:
    if isinstance(shape, GroupShape):
        members = [_build(traits, member, scope, dialect, names, entity) for member in shape.members]
        if shape.mode == "all":
            return and_(true(), *members)
        anything = or_(false(), *members)
        return not_(anything) if shape.mode == "none" else anything
    path = resolve(traits, shape.field)
    if entity is not None or (path.key is not None and _repeats_joined_class(traits, path.steps)):
        return _on_aliases(traits.model if entity is None else entity, path, shape, scope, dialect, names)
    if path.key is None:
        *outer, last = path.steps
        exists = _exists(last, and_(*scope.of(_target(last)), true()))
        return _through(outer, exists if shape.operator is Op.IS_NOT_NULL else not_(exists), scope)
    try:
        condition = _compare(path, shape, dialect, names)
    except (NotImplementedError, AttributeError, TypeError):
        if not path.compares_itself:
            raise
        raise MisuseError(
            f"{traits.name}.{path.text}: its comparator has no {shape.operator.value}, or none for a bound parameter; "
            "use an operator that it supports, or filter by columns.",
            field=path.text,
            operator=shape.operator.value,
        ) from None
    return _through(path.steps, condition, scope)


def _target(relationship: Any) -> Traits[object]:
    return traits_of(relationship.mapper.class_)


def _exists(relationship: Any, condition: Condition) -> Condition:
    attribute = relationship.class_attribute
    return attribute.any(condition) if relationship.uselist else attribute.has(condition)  # type: ignore[no-any-return]  # the attribute is untyped


def _through(steps: Sequence[object], condition: Condition, scope: Scope) -> Condition:
    """The condition that a related row meets ``condition``, as nested EXISTS, which never multiplies rows."""
    for step in reversed(steps):
        condition = _exists(step, and_(*scope.of(_target(step)), condition))
    return condition


def _repeats_joined_class(traits: Traits[object], steps: Sequence[Any]) -> bool:
    """Whether a path reaches the same class hierarchy twice, and its rows are in several tables (joined inheritance).

    In nested EXISTS, SQLAlchemy by itself distinguishes an inner table from an outer one, but not the joined tables of
    such a hierarchy. So the path needs explicit aliases.
    """
    ways = [traits.mapper.base_mapper, *(step.mapper.base_mapper for step in steps)]
    joined = {each.base_mapper for each in (traits.mapper, *(step.mapper for step in steps)) if len(each.tables) > 1}
    return len(steps) > 1 and any(ways.count(each) > 1 for each in joined)


def _on_aliases(
    entity: object, path: FieldPath, shape: ConditionShape, scope: Scope, dialect: Dialect, names: Iterator[str]
) -> Condition:
    """The condition of a shape on the rows of ``entity``, with an explicit alias for the target of each step."""
    aliases = [aliased(step.mapper.class_) for step in path.steps]
    if path.key is not None:
        inner = _compare(replace(path, entity=[entity, *aliases][-1]), shape, dialect, names)
        return _through_aliases(entity, path.steps, aliases, inner, scope)
    exists = _through_aliases([entity, *aliases][-2], path.steps[-1:], aliases[-1:], true(), scope)
    if shape.operator is not Op.IS_NOT_NULL:
        exists = not_(exists)
    return _through_aliases(entity, path.steps[:-1], aliases[:-1], exists, scope)


def _through_aliases(
    entity: object, steps: Sequence[Any], aliases: Sequence[object], condition: Condition, scope: Scope
) -> Condition:
    """As `_through`, from ``entity``, with an explicit alias for the target of each step.

    ``condition`` is on the last alias.
    """
    if not steps:
        return condition
    for step, source, target in zip(reversed(steps), reversed((entity, *aliases[:-1])), reversed(aliases), strict=True):
        related = getattr(source, step.key).of_type(target)
        inner = and_(*scope.of(_target(step), target), condition)
        condition = related.any(inner) if step.uselist else related.has(inner)
    return condition


def _compare(path: FieldPath, shape: ConditionShape, dialect: Dialect, names: Iterator[str]) -> Condition:
    column: ColumnElement[object] = path.expression
    operator = shape.operator
    json_set = operator in _SETS and is_json(path.type)
    if json_set:
        return _json_set(path, operator, bindparam(next(names), type_=String()), dialect)
    type_: TypeEngine[object] = path.type
    span = None if path.json or operator not in _COMPARED else path.span(dialect)
    if span is not None:
        return compare_span(column, operator, span, dialect, names)
    if path.json:
        column = dialect.json_value(column, path.json, shape.kind)
        type_ = _JSON_TYPES.get(shape.kind, String())
    elif operator in _RANGES and not path.compares_itself:
        column, type_ = dialect.order_key(column), dialect.order_type(type_)
    else:
        type_ = operand_type(type_)
    if operator in _NULLS:
        return column.is_(None) if operator is Op.IS_NULL else column.is_not(None)
    if operator in _PATTERNS or operator is Op.SEARCH or (operator is Op.CONTAINS and is_text(path.type)):
        return _match(column, operator, bindparam(next(names), type_=String()), dialect)
    if operator in _LISTS:
        if path.compares_itself:
            parameter = bindparam(next(names), type_=type_, expanding=True)
            return column.in_(parameter) if operator is Op.IN else column.not_in(parameter)
        among = dialect.among(column, type_, next(names))
        return among if operator is Op.IN else not_(among)
    value = bindparam(next(names), type_=type_)
    match operator:
        case Op.EQ:
            return column == value
        case Op.NE:
            return column != value
        case Op.GT:
            return column > value
        case Op.GTE:
            return column >= value
        case Op.LT:
            return column < value
        case Op.LTE:
            return column <= value
        case Op.BETWEEN:
            return column.between(value, bindparam(next(names), type_=type_))
        case Op.CONTAINS:
            return column.op("@>", is_comparison=True)(value)
        case Op.CONTAINED_BY:
            return column.op("<@", is_comparison=True)(value)
        case _:
            return column.op("&&", is_comparison=True)(value)


def _match(
    column: ColumnElement[object], operator: FilterOperator, pattern: ColumnElement[object], dialect: Dialect
) -> Condition:
    if operator is Op.SEARCH:
        return dialect.search(column, pattern)
    match = dialect.ilike(column, pattern) if operator in _INSENSITIVE else dialect.like(column, pattern)
    return not_(match) if operator in (Op.NOT_LIKE, Op.NOT_ILIKE) else match


def _json_set(path: FieldPath, operator: FilterOperator, value: ColumnElement[object], dialect: Dialect) -> Condition:
    if operator is Op.CONTAINS:
        return dialect.json_contains(path.expression, path.json, value)
    if operator is Op.CONTAINED_BY:
        return dialect.json_contained_by(path.expression, path.json, value)
    return dialect.json_overlaps(path.expression, path.json, value)
