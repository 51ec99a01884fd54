"""The scope of statements: the tenant, soft deletion, and a repository's own conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.orm import Mapper
from sqlalchemy.sql import ColumnElement

from ..errors import TenantNotGivenError
from ..execution.hiding import ObjectRules
from ..models.living import not_deleted
from ..models.traits import Traits
from ..policies.rights import Right
from ..tenancy.context import ALL_TENANTS
from ..tenancy.parameters import ScopeParameter

TENANT_PARAMETER = "dotmac_tenant"


class RowRules(Protocol):
    """The rules of one actor, as SQL."""

    def conditions(self, right: Right, traits: Traits[Any], entity: Any, scope: Scope) -> list[ColumnElement[bool]]:
        """The conditions that the actor has a right on the rows of ``entity``, which is the class or an alias."""
        ...

    def named_conditions(
        self, right: Right, traits: Traits[Any], entity: Any, scope: Scope
    ) -> list[ColumnElement[bool]]:
        """As `conditions`, with `parameters` instead of values where the statement can be cached."""
        ...

    def parameters(self, right: Right) -> Mapping[str, object]:
        """The values of the rules for a statement that needs a right on the rows of the repository's class."""
        ...

    def shape(self, traits: Traits[Any], right: Right) -> object:
        """The part of the rules that determines the text of a statement on a class; None: it can't be cached."""
        ...

    def is_planned(self, right: Right) -> bool:
        """Whether the rules that a statement on the repository's class may need are filters, so that it is cached."""
        ...

    def hidden(self, traits: Traits[Any]) -> frozenset[str]:
        """The attributes of a class that the actor can't see."""
        ...

    def reachable(self, traits: Traits[Any]) -> tuple[Mapper[Any], ...]:
        """The mappers of a class, and of the classes to which its relationships lead."""
        ...

    def hidden_relationships(self, traits: Traits[Any]) -> frozenset[str]:
        """The relationships of a class that would show the actor a hidden column."""
        ...

    def objects(self, scope: Scope) -> ObjectRules:
        """The rules for objects that were read in a scope."""
        ...

    def reads_hidden(self, expression: Any) -> bool:
        """Whether an expression is or contains a column that the actor can't see."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of one repository's statements.

    ``tenant`` is a tenant, `ALL_TENANTS`, or None. None means that no tenant is known: statements on tenant-scoped
    classes are then refused. ``conditions`` are those of the repository's hook. ``inline``: all expressions contain the
    tenant's value, because the statement is sent by someone who does not know its parameters. ``rules`` are those of
    the actor; None: there are none. ``right`` is what the statement does with the rows of the repository's class.
    """

    tenant: object = None
    include_deleted: bool = False
    conditions: tuple[ColumnElement[bool], ...] = ()
    inline: bool = False
    rules: RowRules | None = None
    right: Right = Right.READ

    @property
    def shape(self) -> tuple[bool, bool, bool]:
        """The part of the scope that determines the text of a statement. The tenant itself is only a parameter."""
        return self.tenant is ALL_TENANTS, self.tenant is None, self.include_deleted

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters of the scope's conditions."""
        without = self.inline or self.tenant is None or self.tenant is ALL_TENANTS
        parameters: dict[str, object] = {} if without else {TENANT_PARAMETER: self.tenant}
        return parameters if self.rules is None else {**parameters, **self.rules.parameters(self.right)}

    def root(self, traits: Traits[Any]) -> list[ColumnElement[bool]]:
        """All conditions on the rows of the repository's class, with those of the hook and of the ``right``."""
        conditions = [*self.of(traits), *self.conditions]
        if self.rules is not None and self.right is not Right.READ:
            conditions += self._rules_for(self.right, traits, traits.model, bound=False)
        return conditions

    def _rules_for(
        self, right: Right, traits: Traits[Any], entity: object, *, bound: bool
    ) -> list[ColumnElement[bool]]:
        if self.rules is None:
            return []
        if bound or self.inline:
            return self.rules.conditions(right, traits, entity, self)
        return self.rules.named_conditions(right, traits, entity, self)

    def of(self, traits: Traits[Any], entity: object = None, *, bound: bool = False) -> list[ColumnElement[bool]]:
        """The conditions of tenant, soft deletion and the right to read, on a class or on ``entity``, an alias of it.

        ``bound``: the expression contains the tenant's value, instead of a parameter of the statement. Loader options
        need this. Raises `TenantNotGivenError` for a tenant-scoped class if no tenant is known.
        """
        entity = traits.model if entity is None else entity
        conditions: list[ColumnElement[bool]] = []
        if traits.tenant is not None and self.tenant is not ALL_TENANTS:
            if self.tenant is None:
                raise TenantNotGivenError(f"{traits.name} belongs to tenants, and no tenant is given.")
            column = getattr(entity, traits.tenant)
            value = (
                self.tenant
                if bound or self.inline
                else ScopeParameter(TENANT_PARAMETER, type_=column.type, required=True)
            )
            conditions.append(column == value)
        if not self.include_deleted:
            conditions.extend(not_deleted_conditions(traits, entity))
        if self.rules is not None:
            conditions += self._rules_for(Right.READ, traits, entity, bound=bound)
        return conditions


def not_deleted_conditions(traits: Traits[Any], entity: Any) -> list[ColumnElement[bool]]:
    """The condition that a row is not soft-deleted; empty if the class has no soft deletion."""
    key = traits.deletion_mark
    return [] if key is None else [not_deleted(getattr(entity, key), nullable=bool(traits.columns[key].nullable))]
