"""The rules of an actor as SQL conditions, which become part of a repository's statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, literal_column, or_, true
from sqlalchemy.orm import Mapper, with_loader_criteria
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.sql import ColumnElement

from ..dialects.base import Dialect
from ..execution.hiding import ObjectRules, ObjectRulesOption
from ..models.traits import EAGER, Traits, traits_of
from ..policies.rights import Right, Rule, RuleGroup
from ..policies.rules import Rules
from ..query import FilterGroup, QueryFilter
from ..sqlalchemy_internals import on_alias
from .filters import Analysis, analyse, build
from .inlining import with_values
from .joined import joined_rules, marked_rule
from .reads import Reader
from .rule_plans import plan_of
from .scope import Scope
from .subselects import confined_subselects

_NOTHING: ColumnElement[bool] = literal_column("1") == literal_column("0")
"""The condition that no row meets. SQLAlchemy would replace ``… AND false()`` by ``false()``, and so remove a join."""


_INLINED = "dotmac_inlined_"
"""The beginning of the names of parameters until they get values: names that the statement around does not have."""


@dataclass(frozen=True, slots=True)
class RulesInSql:
    """The rules of an actor, for the statements of one dialect.

    ``root`` is the class of the repository. Where a `RulePlan` is possible, the conditions have named parameters, and
    statements are cached by shape. Otherwise a condition contains its values, and a statement is built at each call.
    """

    rules: Rules
    dialect: Dialect
    root: Traits[Any]

    def named_conditions(
        self, right: Right, traits: Traits[Any], entity: Any, scope: Scope
    ) -> list[ColumnElement[bool]]:
        """As `conditions`, with `parameters` instead of values where the statement can be cached."""
        plan = plan_of(self.rules, self.root, scope.right, self.dialect)
        if plan is None or (right is not Right.READ and traits is not self.root):
            return self.conditions(right, traits, entity, scope)  # `shape` is None, so the statement is not cached
        # A KeyError would be a fault of the toolkit. The condition must not contain values: its statement is cached.
        planned = plan.rules[traits.mapper, right]
        self.rules.of(traits)  # raises if a policy is required
        named = iter(zip(planned.prefixes(), planned.analyses, strict=True))
        rule = planned.rule
        return [] if rule is True else [self.condition(rule, traits, entity, scope, named)]

    def parameters(self, right: Right) -> Mapping[str, object]:
        """The values of the rules for a statement that needs a right on the rows of the repository's class."""
        plan = plan_of(self.rules, self.root, right, self.dialect)
        return {} if plan is None else plan.parameters

    def shape(self, traits: Traits[Any], right: Right) -> object:
        """The part of the rules that determines the text of a statement on a class; None: it can't be cached.

        With another class than the repository's, the statement could need a rule that is not in the plan.
        """
        plan = plan_of(self.rules, self.root, right, self.dialect)
        if plan is None or (right is not Right.READ and traits is not self.root):
            return None
        hidden = tuple(self.rules.hidden(traits_of(each.class_)) for each in self.rules.reachable(self.root.mapper))
        return self.root.mapper, plan.shape, hidden

    def conditions(self, right: Right, traits: Traits[Any], entity: Any, scope: Scope) -> list[ColumnElement[bool]]:
        """The conditions that the actor has a right on the rows of ``entity``, which is the class or an alias.

        Related rows to which a rule leads are those of the scope's tenant, whether or not the actor may read them.
        """
        rules = self.rules.of(traits)
        rule: Rule = True if rules is None else rules.rule(right)
        if rule is True:
            return []
        condition = self.condition(rule, traits, entity, scope)
        return [marked_rule(condition) if scope.inline else condition]

    def is_planned(self, right: Right) -> bool:
        """Whether the statements on the repository's class that need a right on its rows are cached."""
        return plan_of(self.rules, self.root, right, self.dialect) is not None

    def hidden(self, traits: Traits[Any]) -> frozenset[str]:
        """The attributes of a class that the actor can't see."""
        return self.rules.hidden(traits)

    def reachable(self, traits: Traits[Any]) -> tuple[Mapper[Any], ...]:
        """The mappers of a class, and of the classes to which its relationships lead."""
        return self.rules.reachable(traits.mapper)

    def eager_to_ruled(self, traits: Traits[Any]) -> list[str]:
        """The relationships that a class loads by default, and that lead to rows with a policy."""
        return [
            key
            for key, each in traits.relationships.items()
            if each.lazy in EAGER and (self.rules.required or self.rules.has_policy(each.mapper))
        ]

    def hidden_relationships(self, traits: Traits[Any]) -> frozenset[str]:
        """The relationships of a class that would show the actor a hidden column."""
        return self.rules.hidden_relationships(traits)

    def reads_hidden(self, expression: Any) -> bool:
        """Whether an expression is or contains a column that the actor can't see."""
        return self.rules.reads_hidden(expression)

    def objects(self, scope: Scope) -> ObjectRules:
        """The rules for objects that were read in a scope."""
        return RulesOfObjects(self, replace(scope, conditions=(), right=Right.READ))

    def condition(
        self,
        rule: Rule,
        traits: Traits[Any],
        entity: Any,
        scope: Scope,
        named: Iterator[tuple[str, Analysis]] | None = None,
    ) -> ColumnElement[bool]:
        """The condition that a row of ``entity`` meets a rule.

        ``named`` are the analysed filters of the rule, each with the beginning of its parameters' names. None: the
        condition contains the values.
        """
        if isinstance(rule, bool):
            return true() if rule else _NOTHING
        if isinstance(rule, RuleGroup):
            members = [self.condition(each, traits, entity, scope, named) for each in rule.members]
            return or_(*members) if rule.is_any else and_(*members)
        if not isinstance(rule, (QueryFilter, FilterGroup)):
            rule = confined_subselects(rule, scope.tenant)
            return rule if entity is traits.model else on_alias(rule, entity)
        unruled = replace(scope, rules=None, include_deleted=False)
        if named is not None:
            prefix, analysis = next(named)
            return and_(*build(traits, analysis.shape, unruled, self.dialect, prefix, entity))
        analysis, unruled = analyse(traits, [rule], self.dialect), replace(unruled, inline=True)
        conditions = build(traits, analysis.shape, unruled, self.dialect, _INLINED, entity)
        values = {f"{_INLINED}{place}": value for place, value in enumerate(analysis.values)}
        return with_values(and_(*conditions), values)


@dataclass(frozen=True, slots=True)
class RulesOfObjects:
    """The rules for objects that were read in a scope; see `ObjectRules`."""

    rules: RulesInSql
    scope: Scope

    def hidden_in(self, mapper: Mapper[Any]) -> frozenset[str]:
        """The attributes that the actor can't see."""
        return self.rules.hidden(traits_of(mapper.class_))

    def hides_relationship(self, mapper: Mapper[Any], key: str) -> bool:
        """Whether a relationship would show the actor a hidden column."""
        return key in self.rules.hidden_relationships(traits_of(mapper.class_))

    @property
    def actor(self) -> object:
        """The actor."""
        return self.rules.rules.actor

    @property
    def classes(self) -> frozenset[type]:
        """The classes of the objects to which the relationships lead, with that of the repository."""
        mappers = self.rules.rules.reachable(self.rules.root.mapper)
        return frozenset(below.class_ for each in mappers for below in each.self_and_descendants)

    def rules_relationship(self, mapper: Mapper[Any], key: str) -> bool:
        """Whether a relationship leads to rows that a policy rules, so that it must not show all of them."""
        rules, target = self.rules.rules, mapper.relationships[key].mapper
        return self.hides_relationship(mapper, key) or rules.required or rules.has_policy(target)

    def loader_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine the load of a relationship to this class to what the actor may read."""
        traits = traits_of(mapper.class_)
        conditions = self.rules.conditions(Right.READ, traits, traits.model, self.scope)
        if not conditions:
            return ()
        return (with_loader_criteria(traits.model, and_(*conditions), propagate_to_loaders=False),)

    def eager_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine the relationships that the class loads by default, and defer hidden columns."""
        traits = traits_of(mapper.class_)
        return Reader(traits, self.scope, self.rules.dialect).default_loads()

    def select_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine a SELECT of this class, which the user extends, and the objects that it loads."""
        traits: Traits[Any] = traits_of(mapper.class_)
        joined = joined_rules(self.rules, traits, replace(self.scope, inline=True))
        return [*self.eager_options(mapper), ObjectRulesOption(self), *joined]
