"""What an actor may do with rows, and the form in which a rule is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from sqlalchemy import ColumnElement

from ..errors import MisuseError
from ..query import Filter, FilterGroup, FiltersLike, QueryFilter, filters_of
from .symbols import ActorValue, truth_of


class Right(Enum):
    """A right that a policy rules."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


Ruling: TypeAlias = bool | FiltersLike | ColumnElement[bool]
"""The result of a policy's function: True for every row, False for no row, filters, or an SQLAlchemy condition."""


@dataclass(frozen=True)
class RuleGroup:
    """Several rules: a row must meet all of them or, with ``is_any``, at least one."""

    members: tuple[Rule, ...]
    is_any: bool = False


Rule: TypeAlias = bool | QueryFilter | FilterGroup | ColumnElement[bool] | RuleGroup
"""A rule in its normal form."""


def rule_of(ruling: Ruling, what: str) -> Rule:
    """The normal form of a function's result. ``what`` names the function, for the message.

    Raises `MisuseError` for None and for an empty list of filters, which would admit every row although nobody has
    said so, and for anything else that is no rule, such as a coroutine.
    """
    if isinstance(ruling, ActorValue):
        return truth_of(ruling)
    if isinstance(ruling, (bool, ColumnElement)):
        return ruling
    expected = f"{what} must return filters, an SQLAlchemy condition, True or False"
    if ruling is None or not isinstance(ruling, (Iterable, QueryFilter, FilterGroup)) or isinstance(ruling, str):
        raise MisuseError(f"{expected}, not {type(ruling).__name__}.")
    filters = tuple(map(_repeatable, filters_of(ruling)))
    if not all(map(_limits, filters)) or not filters:
        raise MisuseError(f"{expected}. A list or an all_of() without filters admits every row: return True for that.")
    return all_rules(filters)


def _repeatable(filter_: Filter) -> Filter:
    """The filter with lists instead of iterators, which are empty when they are read again, as for the next statement.

    An empty ``not_in`` would then admit every row.
    """
    if isinstance(filter_, FilterGroup):
        return replace(filter_, members=tuple(map(_repeatable, filter_.members)))
    return replace(filter_, value=list(filter_.value)) if isinstance(filter_.value, Iterator) else filter_


def _limits(filter_: Filter) -> bool:
    """Whether a filter contains a condition. An ``any_of()`` without members does: it matches nothing."""
    if isinstance(filter_, QueryFilter):
        return True
    return filter_.mode == "any" or (bool(filter_.members) and all(map(_limits, filter_.members)))


def all_rules(members: Iterable[Rule]) -> Rule:
    """The rule that a row meets all of ``members``."""
    rest = tuple(each for each in members if each is not True)
    if any(each is False for each in rest):
        return False
    return True if not rest else rest[0] if len(rest) == 1 else RuleGroup(rest)


def any_rule(members: Iterable[Rule]) -> Rule:
    """The rule that a row meets at least one of ``members``."""
    rest = tuple(each for each in members if each is not False)
    if any(each is True for each in rest):
        return True
    return False if not rest else rest[0] if len(rest) == 1 else RuleGroup(rest, is_any=True)
