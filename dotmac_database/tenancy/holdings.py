"""The tenants' rows in a session: loaded and pending objects, and attributes that were loaded from tenants' rows.

Objects that belong to no tenant are called shared here. A shared object can have attributes that were loaded from
tenants' rows, such as a relationship.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Table, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import SelectBase

from ..errors import TenantIsolationError
from ..models.traits import tenant_key, traits_of
from .tables import TABLES, tenant_column
from .values import column_value, same


def holds_tenant_data(session: Session, *, pending: bool = True) -> bool:
    """Whether a tenant's row is in the session. ``pending``: new objects that were not flushed count too."""
    entities = (*session.identity_map.values(), *(session.new if pending else ()))
    return any(_has_tenant_data(inspect(entity)) for entity in entities)


def stamp_pending(session: Session, tenant: object) -> None:
    """Set ``tenant`` on new objects that have no tenant, so that they can't be flushed as another tenant's rows."""
    for entity in session.new:
        state = inspect(entity)
        key = tenant_key(state.mapper)
        if key is not None and state.dict.get(key) is None:
            try:
                setattr(entity, key, column_value(tenant, tenant_column(state.mapper)))
            except TenantIsolationError:
                continue  # its column can't store this tenant's name, so no flush can write it for this tenant either


def release_others(session: Session, tenant: object, before: Collection[int] = ()) -> None:
    """Detach other tenants' unchanged objects. A changed object stays, so that the next flush refuses it.

    Objects of shared classes stay, but their attributes that were loaded from other tenants' rows are unloaded.
    ``before`` are the ids of the objects that were in the session before other tenants' rows could be loaded. An object
    whose tenant is not loaded stays only if it is one of them. A shared object that is one of them keeps its
    attributes, except those that contain rows of another tenant.
    """
    for entity in list(session.identity_map.values()):
        if entity not in session or entity in session.deleted:
            continue  # it was detached by the cascade of another object
        state = inspect(entity)
        key = tenant_key(state.mapper)
        if key is None:
            _unload_tenant_attributes(session, state, tenant, id(entity) in before)
            continue
        owner = state.dict.get(key)
        foreign = id(entity) not in before if owner is None else not same(owner, tenant)
        if foreign and _loses_no_change(state):
            session.expunge(entity)


def release_added(session: Session, entities: Collection[object]) -> None:
    """Detach tenants' unchanged objects, except ``entities``, the objects that the session contained before.

    Attributes of shared objects that were loaded from tenants' rows are unloaded.
    """
    before = {id(entity) for entity in entities}
    for entity in list(session.identity_map.values()):
        if id(entity) in before or entity not in session or entity in session.deleted:
            continue
        state = inspect(entity)
        if tenant_key(state.mapper) is not None and _loses_no_change(state):
            session.expunge(entity)
    unload_tenant_rows(session)


def unload_tenant_rows(session: Session) -> None:
    """Unload the attributes of shared objects that come from tenants' rows; the next access loads them again."""
    for entity in list(session.identity_map.values()):
        if tenant_key(inspect(entity).mapper) is None:
            _unload_tenant_attributes(session, inspect(entity), None, False)


def _has_tenant_data(state: InstanceState[object]) -> bool:
    return _is_owned(state.mapper) or not _tenant_attributes(state.mapper).isdisjoint(state.dict)


def _is_owned(mapper: Mapper[object]) -> bool:
    """Whether the rows of the class belong to tenants, by a tenant column or by the rows that they reference."""
    owners = (TABLES.owner(table) for table in mapper.tables if isinstance(table, Table))
    return tenant_key(mapper) is not None or any(each is not None and not each.extensions for each in owners)


def _tenant_attributes(mapper: Mapper[object]) -> frozenset[str]:
    """The attributes of a class that are loaded from tenants' rows, so that they differ between tenants."""
    traits = traits_of(mapper.class_)
    return traits.cached(("reaching tenants", TABLES.current()), lambda: frozenset(_attributes_from_tenants(mapper)))


def _attributes_from_tenants(mapper: Mapper[object]) -> list[str]:
    """Relationships to tenants' tables, and columns that are computed by a subselect."""
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


def _unload_tenant_attributes(
    session: Session, state: InstanceState[object], tenant: object, was_present: bool
) -> None:
    """Unload a shared object's unchanged attributes that come from tenants' rows.

    ``was_present``: the object was in the session before other tenants' rows could be loaded. Then only attributes that
    contain rows of another tenant are unloaded.
    """
    attributes = _tenant_attributes(state.mapper) & state.dict.keys() - state.committed_state.keys()
    keys = [key for key in attributes if not was_present or _has_other_tenants(state.dict[key], tenant)]
    if keys:
        session.expire(state.obj(), keys)


def _has_other_tenants(value: object, tenant: object) -> bool:
    """Whether a relationship's value contains a row of another tenant."""
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, Collection) else ()
    states = (inspect(each, raiseerr=False) for each in (value, *members))
    owners = (each.dict.get(tenant_key(each.mapper) or "") for each in states if isinstance(each, InstanceState))
    return any(owner is not None and not same(owner, tenant) for owner in owners)


def _loses_no_change(state: InstanceState[object]) -> bool:
    """Whether detaching the object loses no change: it and the objects that the cascade detaches are unchanged."""
    cascaded = (each for _, _, each, _ in state.mapper.cascade_iterator("expunge", state))
    return not state.modified and all(not each.modified and each.key is not None for each in cascaded)
