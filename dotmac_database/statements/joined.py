"""A loader option that rules the classes which a user joins to a repository's SELECT, or loads with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import and_
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.sql import ColumnElement

from ..models.traits import Traits, traits_of
from ..policies.rights import Right
from ..sqlalchemy_internals import annotated_deeply, criteria_around, on_alias
from .scope import RowRules, Scope


class JoinedRules(LoaderCriteriaOption):
    """A `with_loader_criteria` that confines a class, and aliases of it, to the rows that an actor may read.

    In SELECTs that are a part of a rule, nothing is confined: a rule may lead through rows that the actor can't read.
    """

    _traverse_internals = [*LoaderCriteriaOption._traverse_internals]  # noqa: RUF012 - SQLAlchemy's own form

    def _should_include(self, compile_state: Any) -> bool:
        return not any(isinstance(each, JoinedRules) or each is RULE for each in criteria_around(compile_state))

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        condition: ColumnElement[bool] = self.where_criteria  # type: ignore[assignment]  # it is never a lambda here
        if ext_info.is_aliased_class:
            condition = on_alias(condition, ext_info.entity)
        annotated: ColumnElement[bool] = annotated_deeply(condition, {"for_loader_criteria": self})
        return annotated


RULE = object()
"""The mark of the conditions that are rules, where SQLAlchemy marks the criteria of an option."""


def marked_rule(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition of a rule in a SELECT that the user extends. `JoinedRules` leaves the SELECTs in it alone."""
    return annotated_deeply(condition, {"for_loader_criteria": RULE})


def joined_rules(rules: RowRules, traits: Traits[Any], scope: Scope) -> Iterator[JoinedRules]:
    """The options for a repository's class and for those to which its relationships lead.

    The class itself is in the statement already, but a user can join an alias of it, or load it as a related row.
    """
    for mapper in rules.reachable(traits):
        each = traits_of(mapper.class_)
        conditions = rules.conditions(Right.READ, each, each.model, scope)
        if conditions:
            yield JoinedRules(each.model, and_(*conditions), include_aliases=True)
