"""The tenant of a new object, derived from its related objects.

A new object without a tenant gets the tenant of the objects that it is related to, directly or through other new
objects without a tenant. No statement is sent, because only loaded attributes are read; the tenant of an expired object
is known only if the primary key contains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.sql import ClauseElement

from ..errors import MisuseError, TenantIsolationError
from ..models.traits import M, Traits, tenant_key
from .tables import tenant_column
from .values import column_value, same

_State: TypeAlias = InstanceState[object]


def tenant_of_related(traits: Traits[M], values: Mapping[str, object]) -> object:
    """The tenant of the related objects in a new row's ``values``; None: they have no tenant, or it is not loaded.

    ``values`` are by attribute. Raises `TenantIsolationError` if the objects belong to several tenants, and
    `MisuseError` for a value that is no object of a mapped class.
    """
    keys = traits.relationships.keys() & values.keys()
    states = [_state_of(each, traits, key) for key in keys for each in _members(values[key])]
    _, tenant = _connected(states, _related, traits.name)
    return tenant


def _state_of(value: object, traits: Traits[M], key: str) -> _State:
    state = inspect(value, raiseerr=False)
    if not isinstance(state, InstanceState):
        raise MisuseError(
            f"{traits.name}.{key} needs objects of mapped classes, not {type(value).__name__}.", field=key
        )
    return state


def stamp_by_related(session: Session) -> None:
    """Set the tenant of new objects without one from their related objects. Either side can have the relationship.

    Raises `TenantIsolationError` if the related objects belong to several tenants.
    """
    unstamped = [state for state in map(inspect, session.new) if _needs_tenant(state)]
    if not unstamped:
        return
    links: dict[_State, list[_State]] = {state: [] for state in unstamped}
    for state in map(inspect, (*session.new, *session.dirty)):
        for other in _related(state):
            for source, target in ((state, other), (other, state)):
                if source in links:
                    links[source].append(target)
    for state in unstamped:
        if _needs_tenant(state):
            group, tenant = _connected([state], lambda one: links.get(one, ()), state.class_.__name__)
            for each in group if tenant is not None else ():
                setattr(each.obj(), tenant_key(each.mapper) or "", column_value(tenant, tenant_column(each.mapper)))


def _connected(
    states: Iterable[_State], related: Callable[[_State], Iterable[_State]], what: str
) -> tuple[list[_State], object]:
    """The new objects without a tenant that can be reached from ``states``, and the tenant of all objects around them.

    The tenant is None if no object around them has one. Raises `TenantIsolationError` if there are several; ``what`` is
    the class for the message.
    """
    group: dict[_State, None] = {}
    tenant: object = None
    pending = list(states)
    while pending:
        state = pending.pop()
        owner = _owner(state)
        if owner is None:
            if state not in group and _needs_tenant(state):
                group[state] = None
                pending.extend(related(state))
        elif tenant is None:
            tenant = owner
        elif not same(owner, tenant):
            raise TenantIsolationError(f"{what}: the related objects belong to several tenants.")
    return list(group), tenant


def _owner(state: _State) -> object:
    """The tenant of an object; None: it has no tenant, or the value is not loaded."""
    key = tenant_key(state.mapper)
    owner = state.dict.get(key or "")
    if owner is None and key is not None and state.identity is not None:
        names = (state.mapper.get_property_by_column(column).key for column in state.mapper.primary_key)
        owner = dict(zip(names, state.identity, strict=True)).get(key)
    return None if isinstance(owner, ClauseElement) else owner


def _needs_tenant(state: _State) -> bool:
    """Whether it is a new object of a tenant-scoped class that has no tenant yet."""
    key = tenant_key(state.mapper)
    return state.key is None and key is not None and state.dict.get(key) is None


def _related(state: _State) -> Iterable[_State]:
    """A new object's related objects; for an object that is stored already, only those that were added."""
    for relationship in state.mapper.relationships:
        if not relationship.viewonly:
            history = state.attrs[relationship.key].history
            for each in history.added if state.key is not None else history.non_deleted():
                if each is not None:
                    yield inspect(each)


def _members(value: Any) -> Iterable[Any]:
    """The objects in a value for a relationship, which can be one object, a collection, or None."""
    if isinstance(value, Mapping):
        return value.values()
    return value if hasattr(value, "__iter__") else () if value is None else (value,)
