"""Policies: what the actors of a tenant may do with the rows and columns of one model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

from ..errors import MisuseError
from ..field_names import FieldName, names_for
from .rights import Right, Rule, Ruling, all_rules, any_rule, rule_of

M = TypeVar("M")
Actor: TypeAlias = Any  # whatever the application says who acts; each policy knows the class of its actors
RuleLike: TypeAlias = bool | Callable[[Actor], Ruling]
Names: TypeAlias = FieldName | Iterable[FieldName]
NamesLike: TypeAlias = Callable[[Actor], Names] | Iterable[FieldName]


class Policy(Generic[M]):
    """What actors may do with the rows of ``model``. What is not named is refused.

    ``read``, ``create``, ``update`` and ``delete`` are functions of the actor. Each returns filters (as a list in
    `QueryOptions`, all of which must hold), an SQLAlchemy condition, True for every row, or False for none; True and
    False can also stand in place of a function. The conditions become part of the repository's own statements. They
    may lead through relationships, whose rows are then those of the tenant, whether or not the actor may read them.

    A row must meet ``read`` too, so that it can be changed or deleted. ``create`` holds for the row that will be
    stored. ``update`` holds for the row as it is stored, and ``check`` for the row as it will be stored; with a
    ``check``, a created row must meet it too. Without one, ``update`` also holds for the row as it will be stored, so
    that an owner can't give a row away.

    ``hidden`` and ``read_only`` are names of columns, or functions of the actor that return them. A hidden column is
    not selected, and has no name for filters, sorts, fields and data. A column that is read-only can't be written.

    Two policies of the same model can be combined: ``a & b`` admits what both admit, and ``a | b`` what one of them
    admits. Columns are hidden or read-only in ``a & b`` if one policy says so, and in ``a | b`` if both do. As in
    PostgreSQL's policies, the rules of stored rows and those of rows that will be stored are combined separately.
    """

    def __init__(
        self,
        model: type[M],
        *,
        read: RuleLike = False,
        create: RuleLike = False,
        update: RuleLike = False,
        delete: RuleLike = False,
        check: RuleLike | None = None,
        hidden: NamesLike = (),
        read_only: NamesLike = (),
    ) -> None:
        if not isinstance(model, type):
            raise MisuseError(f"A policy needs a mapped class, not {type(model).__name__}.", field="model")
        self.model: type[M] = model
        self._rules = {Right.READ: read, Right.CREATE: create, Right.UPDATE: update, Right.DELETE: delete}
        self._check = check
        self._hidden, self._read_only = hidden, read_only

    def rule(self, right: Right, actor: Actor) -> Rule:
        """The rule for the stored rows with which the actor may do something."""
        return self._ruled(self._rules[right], actor, right.value)

    def stored_rule(self, right: Right, actor: Actor) -> Rule:
        """The rule for rows as they will be stored by a creation or an update."""
        check = True if self._check is None else self._ruled(self._check, actor, "check")
        if right is Right.CREATE or self._check is None:
            return all_rules((self.rule(right, actor), check))
        return check

    def hidden(self, actor: Actor) -> frozenset[str]:
        """The columns that the actor can't see."""
        return self._columns(self._hidden, actor)

    def read_only(self, actor: Actor) -> frozenset[str]:
        """The columns that the actor can't write."""
        return self._columns(self._read_only, actor)

    def __and__(self, other: Policy[M]) -> Policy[M]:
        return _Combination(self, other, is_any=False)

    def __or__(self, other: Policy[M]) -> Policy[M]:
        return _Combination(self, other, is_any=True)

    def _ruled(self, rule: RuleLike, actor: Actor, name: str) -> Rule:
        ruling = rule(actor) if callable(rule) else rule
        return rule_of(ruling, f"The policy of {self.model.__name__}: {name}")

    def _columns(self, names: NamesLike, actor: Actor) -> frozenset[str]:
        return frozenset(names_for(self.model, names(actor) if callable(names) else names))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.model.__name__}>"


class _Combination(Policy[M]):
    """Two policies of one model, both of which must admit, or (``is_any``) one of them."""

    def __init__(self, first: Policy[M], second: Policy[M], *, is_any: bool) -> None:
        other: object = second
        if not isinstance(other, Policy):
            raise MisuseError(f"A policy is combined with another policy, not with {type(other).__name__}.")
        if first.model is not second.model:
            raise MisuseError(
                f"Policies of {first.model.__name__} and {second.model.__name__} can't be combined: they rule "
                "different models."
            )
        super().__init__(first.model)
        self._members = (first, second)
        self._combined = any_rule if is_any else all_rules
        self._common = is_any

    def rule(self, right: Right, actor: Actor) -> Rule:
        return self._combined(each.rule(right, actor) for each in self._members)

    def stored_rule(self, right: Right, actor: Actor) -> Rule:
        return self._combined(each.stored_rule(right, actor) for each in self._members)

    def hidden(self, actor: Actor) -> frozenset[str]:
        first, second = (each.hidden(actor) for each in self._members)
        return first & second if self._common else first | second

    def read_only(self, actor: Actor) -> frozenset[str]:
        first, second = (each.read_only(actor) for each in self._members)
        return first & second if self._common else first | second
