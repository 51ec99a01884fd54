"""Refuses the lazy loads of strict objects: those that a strict repository has read or written.

The listener is registered on the session, and SQLAlchemy calls it before it sends a lazy load. So a read needs no
loader options, and its route stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState, Session
from sqlalchemy.orm.base import instance_state
from sqlalchemy.orm.collections import collection_adapter

from ..errors import LazyLoadError
from ..sqlalchemy_internals import attribute_load
from .state import state_of

STRICT_LOADING = "dotmac_database.strict_loading"
"""The key in a session's ``info`` that makes all repositories on the session strict."""

_STRICT = "dotmac_database.strict"
"""The key in the ``info`` of an object's state that makes the object strict."""


def make_strict(session: Session, entities: Iterable[object]) -> None:
    """Refuse the lazy loads of these objects, and of the objects that their loaded relationships lead to."""
    state = state_of(session)
    if not state.strict:
        event.listen(session, "do_orm_execute", refuse_lazy_load)
        state.strict = True
    visited: set[int] = set()
    pending: list[object] = [*entities]
    while pending:
        entity = pending.pop()
        if id(entity) in visited:
            continue
        visited.add(id(entity))
        each: InstanceState[object] = instance_state(entity)
        each.info[_STRICT] = True
        if len(each.mapper.relationships):
            pending.extend(related_objects(each))


def related_objects(state: InstanceState[object]) -> Iterator[object]:
    """The objects in the loaded relationships of an object."""
    for key, relationship in state.mapper.relationships.items():
        value = state.dict.get(key)
        if value is None:
            continue
        if relationship.uselist:
            yield from collection_adapter(value)  # it also iterates over the objects in a dict
        else:
            yield value


def refuse_lazy_load(execution: ORMExecuteState) -> None:
    """Raise `LazyLoadError` if the statement is the lazy load of a strict object's attribute.

    Loads that a flush, a cascade or a method of the toolkit needs are not refused.
    """
    if not execution.is_select or (execution.lazy_loaded_from is None and not execution.is_column_load):
        return
    load = attribute_load()
    if load is None or _STRICT not in load.state.info:
        return
    mapper = load.state.mapper
    name = mapper.class_.__name__
    message = f"{name}.{load.key} is not loaded, and the object was read or written by a strict repository: "
    raise LazyLoadError(message + _remedy(mapper, load.key), model=name, attribute=load.key)


refuse_lazy_load.dotmac_internal = True  # type: ignore[attr-defined]  # a function takes any attribute


def _remedy(mapper: Mapper[object], key: str) -> str:
    if key in mapper.relationships:
        return f'read it with relationships=["{key}"].'
    if key in mapper.column_attrs and mapper.column_attrs[key].deferred:
        return f'read it with undefer("{key}").'
    return "its value has expired, or belongs to a subclass; read the object again, or refresh it."
