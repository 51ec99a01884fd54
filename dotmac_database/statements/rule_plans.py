"""The rules that a class's statements may need, with named parameters, so that statements can be cached by shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Mapper

from ..dialects.base import Dialect
from ..models.traits import Traits, traits_of
from ..policies.rights import Right, Rule, RuleGroup
from ..policies.rules import Rules
from ..query import FilterGroup, QueryFilter
from .bounds import MAX_CACHED_FILTERS
from .filters import Analysis, analyse

_MAX_SHAPES = 50
"""For how many different rules of a class statements are cached."""


@dataclass(frozen=True, slots=True)
class RulePlan:
    """The analysed rules for the rows of a class and of the related classes, without values in the ``shape``."""

    shape: tuple[object, ...]
    parameters: dict[str, object]
    rules: dict[tuple[Mapper[Any], Right], PlannedRule]


@dataclass(frozen=True, slots=True)
class PlannedRule:
    """A rule whose filters are analysed. ``prefix`` begins the names of its parameters."""

    rule: Rule
    prefix: str
    analyses: list[Analysis] = field(default_factory=list)

    def prefixes(self) -> Iterator[str]:
        """The beginning of the parameters' names for each filter of the rule, in order."""
        return (f"{self.prefix}_{place}_" for place in range(len(self.analyses)))


def plan_of(rules: Rules, traits: Traits[Any], right: Right, dialect: Dialect) -> RulePlan | None:
    """The plan of the statements that need a right on the rows of a class, cached in ``rules``.

    None: there is no plan, and each condition contains its values. This is so if a rule is an SQLAlchemy condition, if
    a policy's function raises an error (which only matters if the statement needs the rule), and for a rule that has
    too many filters or too many different ones.
    """
    key = ("plan", traits.mapper, right, dialect.name)
    if key not in rules.cache:
        rules.cache[key] = _plan(rules, traits, right, dialect)
    plan: RulePlan | None = rules.cache[key]
    return plan


def _plan(rules: Rules, traits: Traits[Any], right: Right, dialect: Dialect) -> RulePlan | None:
    needed = [(each, Right.READ) for each in rules.reachable(traits.mapper)]
    if right is not Right.READ:
        needed.append((traits.mapper, right))
    planned: dict[tuple[Mapper[Any], Right], PlannedRule] = {}
    shapes: list[object] = []
    parameters: dict[str, object] = {}
    for number, (mapper, each) in enumerate(needed):
        try:
            model_rules = rules.known(traits_of(mapper.class_))
            rule = True if model_rules is None else model_rules.rule(each)
            planned_rule = PlannedRule(rule, f"dotmac_rule_{number}")
            shape = _shape(rule, traits_of(mapper.class_), dialect, planned_rule.analyses)
        except Exception:  # noqa: BLE001 - a policy is the user's code, and its error is raised where the rule is needed
            return None
        if len(planned_rule.analyses) > MAX_CACHED_FILTERS:
            return None
        planned[mapper, each] = planned_rule
        shapes.append(shape)
        for prefix, analysis in zip(planned_rule.prefixes(), planned_rule.analyses, strict=True):
            parameters |= {f"{prefix}{place}": value for place, value in enumerate(analysis.values)}
    known: set[object] = traits.cached(("rule shapes",), set)
    plan = RulePlan((*shapes,), parameters, planned)
    if plan.shape not in known and len(known) >= _MAX_SHAPES:
        return None
    known.add(plan.shape)
    return plan


class _NotFiltersError(Exception):
    """A rule is an SQLAlchemy condition."""


def _shape(rule: Rule, traits: Traits[Any], dialect: Dialect, analyses: list[Analysis]) -> object:
    if isinstance(rule, bool):
        return rule
    if isinstance(rule, RuleGroup):
        return rule.is_any, *(_shape(each, traits, dialect, analyses) for each in rule.members)
    if not isinstance(rule, (QueryFilter, FilterGroup)):
        raise _NotFiltersError
    analysis = analyse(traits, [rule], dialect)
    analyses.append(analysis)
    return analysis.shape
