"""The rules of an actor as SQL conditions, which become part of a repository's statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, literal_column, or_, true
from sqlalchemy.orm import Mapper, defer, with_loader_criteria
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.sql import ColumnElement

from ..dialects.base import Dialect
from ..execution.ruled import ObjectRules
from ..models.traits import Traits, traits_of
from ..policies.rights import Right, Rule, RuleGroup
from ..policies.rules import Rules
from ..query import FilterGroup, QueryFilter
from ..sqlalchemy_internals import on_alias
from .filters import analyse, build
from .inlining import with_values
from .scope import Scope
from .subselects import confined_subselects

_NOTHING: ColumnElement[bool] = literal_column("1") == literal_column("0")
"""The condition that no row meets. SQLAlchemy would replace ``… AND false()`` by ``false()``, and so remove a join."""


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

    def hidden(self, traits: Traits[Any]) -> frozenset[str]:
        """The attributes of a class that the actor can't see."""
        return self.rules.hidden(traits)

    def reads_hidden(self, expression: Any) -> bool:
        """Whether an expression is or contains a column that the actor can't see."""
        return self.rules.reads_hidden(expression)

    def objects(self, scope: Scope) -> ObjectRules:
        """The rules for objects that were read in a scope."""
        return RulesOfObjects(self, replace(scope, conditions=(), right=Right.READ))

    def condition(self, rule: Rule, traits: Traits[Any], entity: Any, scope: Scope) -> ColumnElement[bool]:
        """The condition that a row of ``entity`` meets a rule."""
        if isinstance(rule, bool):
            return true() if rule else _NOTHING
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


@dataclass(frozen=True, slots=True)
class RulesOfObjects:
    """The rules for objects that were read in a scope; see `ObjectRules`."""

    rules: RulesInSql
    scope: Scope

    def hidden_in(self, mapper: Mapper[Any]) -> frozenset[str]:
        """The attributes that the actor can't see."""
        return self.rules.hidden(traits_of(mapper.class_))

    def loader_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine the load of a relationship to this class to what the actor may read."""
        traits = traits_of(mapper.class_)
        conditions = self.rules.conditions(Right.READ, traits, traits.model, self.scope)
        options: list[ORMOption] = [defer(traits.attribute(key)) for key in self.hidden_in(mapper)]
        if conditions:
            options.append(with_loader_criteria(traits.model, and_(*conditions), propagate_to_loaders=False))
        return options
