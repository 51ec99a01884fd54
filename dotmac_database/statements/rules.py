"""The rules of an actor as SQL conditions, which become part of a repository's statements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, false, or_, true
from sqlalchemy.sql import ColumnElement

from ..dialects.base import Dialect
from ..models.traits import Traits
from ..policies.rights import Right, Rule, RuleGroup
from ..policies.rules import Rules
from ..query import FilterGroup, QueryFilter
from ..sqlalchemy_internals import on_alias
from .filters import analyse, build
from .inlining import with_values
from .scope import Scope
from .subselects import confined_subselects


@dataclass(frozen=True, slots=True)
class RulesInSql:
    """The rules of an actor, for the statements of one dialect.

    A condition contains its values, so a statement with one is built at each call; SQLAlchemy compiles it once.
    """

    rules: Rules
    dialect: Dialect

    def conditions(self, right: Right, traits: Traits[Any], entity: Any, scope: Scope) -> list[ColumnElement[bool]]:
        """The conditions that the actor has a right on the rows of ``entity``, which is the class or an alias.

        Related rows to which a rule leads are those of the scope's tenant, whether or not the actor may read them.
        """
        rules = self.rules.of(traits)
        rule: Rule = True if rules is None else rules.rule(right)
        return [] if rule is True else [self.condition(rule, traits, entity, scope)]

    def condition(self, rule: Rule, traits: Traits[Any], entity: Any, scope: Scope) -> ColumnElement[bool]:
        """The condition that a row of ``entity`` meets a rule."""
        if isinstance(rule, bool):
            return true() if rule else false()
        if isinstance(rule, RuleGroup):
            members = [self.condition(each, traits, entity, scope) for each in rule.members]
            return or_(*members) if rule.is_any else and_(*members)
        if not isinstance(rule, (QueryFilter, FilterGroup)):
            rule = confined_subselects(rule, scope.tenant)
            return rule if entity is traits.model else on_alias(rule, entity)
        analysis = analyse(traits, [rule], self.dialect)
        unruled = replace(scope, rules=None, inline=True, include_deleted=False)
        conditions = build(traits, analysis.shape, unruled, self.dialect, entity=entity)
        return with_values(and_(*conditions), analysis.parameters)
