"""The rules of one actor: the policies with the actor to whom they are applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql.visitors import iterate

from ..errors import MisuseError, PermissionDeniedError
from ..execution.state import AnySession, sync_session
from ..models.traits import Traits, traits_of
from .policy import Actor, M, Policy
from .rights import Right, Rule

RULES = "dotmac_database.rules"
"""The key of the `Rules` in a session's ``info``."""


class ModelRules:
    """The rules of one actor for one model. Each function of the policy is called once, at its first use."""

    def __init__(self, policy: Policy[Any], actor: Actor, traits: Traits[Any]) -> None:
        self._policy, self._actor, self._traits = policy, actor, traits
        self._rules: dict[tuple[Right, bool], Rule] = {}

    def rule(self, right: Right) -> Rule:
        """The rule for the stored rows with which the actor may do something."""
        key = right, False
        if key not in self._rules:
            self._rules[key] = self._policy.rule(right, self._actor)
        return self._rules[key]

    def stored_rule(self, right: Right) -> Rule:
        """The rule for rows as they will be stored by a creation or an update."""
        key = right, True
        if key not in self._rules:
            self._rules[key] = self._policy.stored_rule(right, self._actor)
        return self._rules[key]

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The attributes of the columns that the actor can't see. Raises `MisuseError` for one that can't be hidden."""
        traits, names = self._traits, self._checked(self._policy.hidden(self._actor))
        needed = {*traits.primary_key, traits.tenant, traits.version, traits.discriminator}
        needed |= {traits.is_deleted, traits.deleted_at}
        for name in sorted(names & needed):
            raise MisuseError(f"{traits.name}.{name} can't be hidden: the repository itself needs it.", field=name)
        return names

    @cached_property
    def read_only(self) -> frozenset[str]:
        """The attributes of the columns that the actor can't write; hidden columns are among them."""
        return self._checked(self._policy.read_only(self._actor)) | self.hidden

    def denied(self, right: Right) -> PermissionDeniedError:
        """The error for a row that the actor can read, but with which he may not do this."""
        return PermissionDeniedError(f"The policy of {self._traits.name} does not allow to {right.value} this row.")

    def denied_values(self, right: Right) -> PermissionDeniedError:
        """The error for a row that would be stored with values that the actor may not store."""
        return PermissionDeniedError(
            f"The policy of {self._traits.name} does not allow to {right.value} a row with these values."
        )

    def denied_field(self, name: str) -> PermissionDeniedError:
        """The error for data that contains a column that is read-only."""
        return PermissionDeniedError(f"The policy of {self._traits.name} does not allow to write {name}.")

    def _checked(self, names: frozenset[str]) -> frozenset[str]:
        for name in sorted(names - self._traits.columns.keys()):
            if name not in self._traits.mapper.column_attrs:
                raise MisuseError(f"The policy of {self._traits.name} names {name!r}, which is no column.", field=name)
        return names


class Rules:
    """Policies with the actor to whom they are applied.

    ``required``: a model without a policy is refused. Otherwise it is ruled by tenancy alone. A policy also holds for
    the subclasses of its model. A subclass can have a policy of its own instead, but then rows of the parent's class
    are refused, since they can be rows of the subclass. Raises `MisuseError` for two policies of one model, which must
    be combined by ``&`` or ``|``.
    """

    def __init__(self, policies: Iterable[Policy[Any]], actor: Actor, *, required: bool = False) -> None:
        self._policies: dict[type, Policy[Any]] = {}
        self.actor, self.required = actor, required
        self._records: dict[Mapper[Any], _Record] = {}
        self.cache: dict[object, Any] = {}
        """A cache of `statements.rule_plans`."""
        for policy in policies:
            if not isinstance(policy, Policy):
                raise MisuseError(f"A Policy was expected, not {type(policy).__name__}.", field="policies")
            if policy.model in self._policies:
                raise MisuseError(
                    f"There are two policies of {policy.model.__name__}: combine them by & or |.", field="policies"
                )
            self._policies[policy.model] = policy

    @property
    def policies(self) -> tuple[Policy[Any], ...]:
        """The policies, one for each model at most."""
        return tuple(self._policies.values())

    def replaced(self, policies: Iterable[Policy[Any]], actor: Actor) -> Rules:
        """Rules in which ``policies`` take the place of those of the same models, for this actor."""
        by_model = {**self._policies, **Rules(policies, actor)._policies}
        return Rules(by_model.values(), actor, required=self.required)

    def known(self, traits: Traits[M]) -> ModelRules | None:
        """The rules for one model; None: it has no policy."""
        return self._record(traits.mapper).rules

    def of(self, traits: Traits[M]) -> ModelRules | None:
        """The rules for one model; None: it is ruled by tenancy alone. Raises `PermissionDeniedError` if required."""
        rules = self.known(traits)
        if rules is None and self.required:
            raise PermissionDeniedError(f"{traits.name} has no policy, and policies are required.")
        return rules

    def has_policy(self, mapper: Mapper[Any]) -> bool:
        """Whether a policy rules rows of a mapper's class, or of a subclass."""
        return any(each.class_ in self._policies for each in (*mapper.iterate_to_root(), *mapper.self_and_descendants))

    def _record(self, mapper: Mapper[Any]) -> _Record:
        record = self._records.get(mapper)
        if record is None:
            record = self._records[mapper] = _Record(self, mapper)
        return record

    def rules_of(self, traits: Traits[M]) -> ModelRules | None:
        """As `known`, not from the cache."""
        mapper = traits.mapper
        for below in mapper.self_and_descendants:
            if below is not mapper and below.class_ in self._policies:
                raise MisuseError(
                    f"{below.class_.__name__} has a policy of its own, so the rows of {traits.name} can't be read "
                    f"without it: give {traits.name} one policy for all its subclasses.",
                    field="policies",
                )
        classes = [each.class_ for each in mapper.iterate_to_root() if each.class_ in self._policies]
        if not classes:
            return None
        policy = self._policies[classes[0]]
        return ModelRules(policy, self.actor, traits)

    def hidden(self, traits: Traits[M]) -> frozenset[str]:
        """The attributes of a class that the actor can't see.

        They are the hidden columns, and the column properties that contain a hidden column of any class.
        """
        return self._record(traits.mapper).hidden

    def hidden_relationships(self, traits: Traits[M]) -> frozenset[str]:
        """The relationships of a class that would show the actor a hidden column: a foreign key that they are made of.

        The column can be one of the class or of the related class.
        """
        return self._record(traits.mapper).hidden_relationships

    def reads_hidden(self, expression: Any) -> bool:
        """Whether an expression is or contains a hidden column of any class."""
        hidden = self.hidden_columns
        return bool(hidden) and any(
            not hidden.isdisjoint(getattr(part, "base_columns", ())) for part in iterate(expression)
        )

    @cached_property
    def hidden_columns(self) -> frozenset[ColumnElement[Any]]:
        """The hidden columns of all classes."""
        traits_of_models: list[Traits[Any]] = [traits_of(model) for model in self._policies]
        return frozenset(
            column
            for traits in traits_of_models
            for name in getattr(self.known(traits), "hidden", ())
            for column in traits.mapper.column_attrs[name].columns
        )

    def reachable(self, mapper: Mapper[Any]) -> tuple[Mapper[Any], ...]:
        """The mapper, and those to which its relationships lead, directly or indirectly."""
        return self._record(mapper).reachable

    def concern(self, traits: Traits[M]) -> bool:
        """Whether a statement on the model may need a rule: for its own rows, or for those of related models."""
        return self._record(traits.mapper).is_concerned

    def rule_any(self, mappers: Iterable[Mapper[Any]]) -> bool:
        """Whether a class of these mappers, or a class that inherits from the same one, has a policy."""
        return any(base.class_ in self._policies for each in mappers for base in each.base_mapper.self_and_descendants)


class _Record:
    """What `Rules` know of one mapper. Each is found at its first use."""

    def __init__(self, rules: Rules, mapper: Mapper[Any]) -> None:
        self._all, self._mapper = rules, mapper
        self._traits: Traits[Any] = traits_of(mapper.class_)

    @cached_property
    def rules(self) -> ModelRules | None:
        """The rules of the class; None: it has no policy."""
        return self._all.rules_of(self._traits)

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The attributes that the actor can't see."""
        own = frozenset() if self.rules is None else self.rules.hidden
        if not self._all.hidden_columns:
            return own
        attributes = self._mapper.column_attrs
        return own.union(each.key for each in attributes if any(map(self._all.reads_hidden, each.columns)))

    @cached_property
    def hidden_relationships(self) -> frozenset[str]:
        """The relationships that would show the actor a hidden column."""
        hidden = self._all.hidden_columns
        if not hidden:
            return frozenset()
        pairs = {name: each.local_remote_pairs or () for name, each in self._traits.relationships.items()}
        return frozenset(name for name, each in pairs.items() if any(not hidden.isdisjoint(pair) for pair in each))

    @cached_property
    def reachable(self) -> tuple[Mapper[Any], ...]:
        """The mapper, and those to which its relationships lead, directly or indirectly."""
        reachable: dict[Mapper[Any], None] = {}
        pending = [self._mapper]
        while pending:
            each = pending.pop()
            if each not in reachable:
                reachable[each] = None
                pending.extend(relationship.mapper for relationship in each.relationships)
        return tuple(reachable)

    @cached_property
    def is_concerned(self) -> bool:
        """Whether a statement on the class may need a rule."""
        return self._all.required or self._all.rule_any(self.reachable) or self._traits.leads_to_other_rows


def bind_policies(
    session: AnySession, policies: Iterable[Policy[Any]], *, actor: Actor, required: bool = False
) -> None:
    """Apply policies to all repositories that are made on a session from now on, for this actor. No I/O.

    ``required``: models without a policy are refused. Statements that you write by hand are not ruled. Raises
    `MisuseError` for two policies of one model, and if the session has policies already: one session serves one actor.
    """
    sync: Session = sync_session(session)
    if RULES in sync.info:
        raise MisuseError("The session has policies already, and serves one actor.", field="policies")
    sync.info[RULES] = Rules(policies, actor, required=required)


@contextmanager
def policy_scope(
    session: AnySession, policies: Iterable[Policy[Any]], *, actor: Actor, required: bool = False
) -> Iterator[None]:
    """A block in which policies apply to all repositories that are made on a session; see `bind_policies`. No I/O.

    The session has its own policies again, or none, when the block ends.
    """
    with rules_scope(sync_session(session), Rules(policies, actor, required=required)):
        yield


@contextmanager
def rules_scope(session: Session, rules: Rules) -> Iterator[None]:
    """A block in which a sync session has these rules."""
    info = session.info
    before = info.get(RULES)
    info[RULES] = rules
    try:
        yield
    finally:
        if before is None:
            del info[RULES]
        else:
            info[RULES] = before


def rules_of(session: Session) -> Rules | None:
    """The rules of a sync session; None: it has none."""
    rules: Rules | None = session.info.get(RULES)
    return rules
