"""What of tenants a session holds: their rows, loaded or pending, and what has loaded them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import SelectBase

from ..errors import TenantIsolationError
from ..models.traits import tenant_key, traits_of
from .tables import TABLES, tenant_column
from .values import same, stored


def holds_tenants(session: Session, *, pending: bool = True) -> bool:
    """Whether the session holds anything of a tenant; ``pending`` says whether rows that it never wrote count."""
    held = (*session.identity_map.values(), *(session.new if pending else ()))
    return any(_is_tenants(inspect(entity)) for entity in held)


def stamp_pending(session: Session, tenant: Any) -> None:
    """Give new objects that name no tenant this one, so that no other's scope can write them."""
    for entity in session.new:
        state = inspect(entity)
        key = tenant_key(state.mapper)
        if key is not None and state.dict.get(key) is None:
            try:
                setattr(entity, key, stored(tenant, tenant_column(state.mapper)))
            except TenantIsolationError:
                continue  # no flush of this tenant's could write it either


def release_others(session: Session, tenant: Any, before: Collection[int] = ()) -> None:
    """Let go of other tenants' unchanged rows; a change that was not flushed stays, for the next flush to refuse.

    What no tenant owns stays, without what it has loaded of tenants. ``before`` are the ids of the objects that were
    held before any other tenant's could be: of those that don't say whose they are, these stay.
    """
    for entity in list(session.identity_map.values()):
        if entity not in session or entity in session.deleted:
            continue  # it has left with another
        state = inspect(entity)
        key = tenant_key(state.mapper)
        if key is None:
            _forget_tenants(session, state, tenant, id(entity) in before)
            continue
        owner = state.dict.get(key)
        foreign = id(entity) not in before if owner is None else not same(owner, tenant)
        if foreign and _leaves_unchanged(state):
            session.expunge(entity)


def release_added(session: Session, held: Collection[Any]) -> None:
    """Let go of tenants' unchanged rows that the session did not hold before, and of what the others reach of them."""
    before = {id(entity) for entity in held}
    for entity in list(session.identity_map.values()):
        if id(entity) in before or entity not in session or entity in session.deleted:
            continue
        state = inspect(entity)
        if tenant_key(state.mapper) is not None and _leaves_unchanged(state):
            session.expunge(entity)
    forget_reached(session)


def forget_reached(session: Session) -> None:
    """Unload what objects that no tenant owns have loaded of tenants, so that it is read again when it is asked for."""
    for entity in list(session.identity_map.values()):
        if tenant_key(inspect(entity).mapper) is None:
            _forget_tenants(session, inspect(entity), None, False)


def _is_tenants(state: InstanceState[Any]) -> bool:
    return _is_owned(state.mapper) or not _reaching(state.mapper).isdisjoint(state.dict)


def _is_owned(mapper: Mapper[Any]) -> bool:
    """Whether the class's rows are tenants': by a column, or by the rows that they connect."""
    owners = (TABLES.owner(table) for table in mapper.tables if isinstance(table, Table))
    return tenant_key(mapper) is not None or any(each is not None and not each.extensions for each in owners)


def _reaching(mapper: Mapper[Any]) -> frozenset[str]:
    """The attributes of a class that are loaded from tenants' rows: other ones for each tenant."""
    traits = traits_of(mapper.class_)
    return traits.cached(("reaching tenants", TABLES.current()), lambda: frozenset(_reached(mapper)))


def _reached(mapper: Mapper[Any]) -> list[str]:
    keys: list[str] = []
    for relationship in mapper.relationships:
        tables = {table for each in relationship.mapper.self_and_descendants for table in each.tables}
        if any(isinstance(each, Table) and TABLES.owner(each) for each in (*tables, relationship.secondary)):
            keys.append(relationship.key)
    for attribute in mapper.column_attrs:
        parts = (part for column in attribute.columns for part in visitors.iterate(column))
        if any(isinstance(part, SelectBase) for part in parts):
            keys.append(attribute.key)
    return keys


def _forget_tenants(session: Session, state: InstanceState[Any], tenant: Any, was_held: bool) -> None:
    """Unload the attributes of an object of no tenant's that others' rows may be in, but for changed ones."""
    loaded = _reaching(state.mapper) & state.dict.keys() - state.committed_state.keys()
    keys = [key for key in loaded if not was_held or _has_foreign(state.dict[key], tenant)]
    if keys:
        session.expire(state.obj(), keys)


def _has_foreign(value: Any, tenant: Any) -> bool:
    """Whether a relationship's value has a row of another tenant in it."""
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, Collection) else ()
    found = (inspect(each, raiseerr=False) for each in (value, *members))
    owners = (each.dict.get(tenant_key(each.mapper) or "") for each in found if isinstance(each, InstanceState))
    return any(owner is not None and not same(owner, tenant) for owner in owners)


def _leaves_unchanged(state: InstanceState[Any]) -> bool:
    """Whether neither the object is changed nor any that leaves the session with it: a change must not be lost."""
    with_it = (each for _, _, each, _ in state.mapper.cascade_iterator("expunge", state))
    return not state.modified and all(not each.modified and each.key is not None for each in with_it)
