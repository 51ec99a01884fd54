"""Whose a new row is, known from the objects that it is related to.

A new object that names no tenant is of the tenant of its related objects, through any number of others that name none.
Only what is loaded is looked at, so that no statement is sent: an expired object's tenant is known by its key at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.sql import ClauseElement

from ..errors import TenantIsolationError
from ..models.traits import Traits, tenant_key
from .tables import tenant_column
from .values import same, stored

_State = InstanceState[Any]


def tenant_of_related(traits: Traits[Any], values: Mapping[str, Any]) -> Any:
    """The tenant of the objects that a row's relationships are to have, by their keys; None: they don't tell.

    Raises `TenantIsolationError` where they are of several.
    """
    given = (each for key in traits.relationships.keys() & values.keys() for each in _members(values[key]))
    _, tenant = _reach([inspect(each) for each in given], _related, traits.name)
    return tenant


def stamp_by_related(session: Session) -> None:
    """Give new objects that name no tenant the one of their related objects, whichever of the two has the relationship.

    Raises `TenantIsolationError` where they are of several.
    """
    unnamed = [state for state in map(inspect, session.new) if _names_none(state)]
    if not unnamed:
        return
    links: dict[_State, list[_State]] = {state: [] for state in unnamed}
    for state in map(inspect, (*session.new, *session.dirty)):
        for other in _related(state):
            for one, another in ((state, other), (other, state)):
                if one in links:
                    links[one].append(another)
    for state in unnamed:
        if _names_none(state):
            reached, tenant = _reach([state], lambda one: links.get(one, ()), state.class_.__name__)
            for each in reached if tenant is not None else ():
                setattr(each.obj(), tenant_key(each.mapper) or "", stored(tenant, tenant_column(each.mapper)))


def _reach(
    states: Iterable[_State], related: Callable[[_State], Iterable[_State]], what: str
) -> tuple[list[_State], Any]:
    """The new objects without a tenant that these lead to, and the one tenant of those around them, if any."""
    reached: dict[_State, None] = {}
    tenant: Any = None
    ahead = list(states)
    while ahead:
        state = ahead.pop()
        owner = _owner(state)
        if owner is None:
            if state not in reached and _names_none(state):
                reached[state] = None
                ahead.extend(related(state))
        elif tenant is None:
            tenant = owner
        elif not same(owner, tenant):
            raise TenantIsolationError(f"{what}: the related objects belong to several tenants.")
    return list(reached), tenant


def _owner(state: _State) -> Any:
    """The tenant that an object names; None: none, or one that only the database knows."""
    key = tenant_key(state.mapper)
    owner = state.dict.get(key or "")
    if owner is None and key is not None and state.identity is not None:
        names = (state.mapper.get_property_by_column(column).key for column in state.mapper.primary_key)
        owner = dict(zip(names, state.identity, strict=True)).get(key)
    return None if isinstance(owner, ClauseElement) else owner


def _names_none(state: _State) -> bool:
    """Whether it is a new object of a class of tenants, and says of none that it is theirs."""
    key = tenant_key(state.mapper)
    return state.key is None and key is not None and state.dict.get(key) is None


def _related(state: _State) -> Iterable[_State]:
    """The objects that a new object's relationships have, or that were added to a stored one's."""
    for relationship in state.mapper.relationships:
        if not relationship.viewonly:
            history = state.attrs[relationship.key].history
            for each in history.added if state.key is not None else history.non_deleted():
                if each is not None:
                    yield inspect(each)


def _members(value: Any) -> Iterable[Any]:
    """The objects that a relationship is given: one, a collection of them, or none."""
    if isinstance(value, Mapping):
        return value.values()
    return value if hasattr(value, "__iter__") else () if value is None else (value,)
