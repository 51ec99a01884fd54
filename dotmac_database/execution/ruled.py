"""Hides columns in the objects that an actor's repository has read or written, and rules their lazy loads.

The listener is registered on the session, and SQLAlchemy calls it before it sends a lazy load.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Result, event
from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState, Session
from sqlalchemy.orm.base import instance_state

from ..sqlalchemy_internals import attribute_load, refreshed_names, refreshed_state
from .hiding import RULED_LOAD, RULES_OF_OBJECT, HiddenAttribute, ObjectRules, hide, rules_of_object, watch_class
from .state import state_of
from .strict import related_objects


def rule_objects(session: Session, entities: Iterable[object], rules: ObjectRules) -> None:
    """Hide the hidden columns of these objects, and of those in their loaded relationships, and rule their lazy loads.

    A changed value that waits for a flush is not hidden.
    """
    rule_lazy_loads(session)
    visited: set[int] = set()
    pending: list[object] = [*entities]
    while pending:
        entity = pending.pop()
        if id(entity) in visited:
            continue
        visited.add(id(entity))
        each: InstanceState[object] = instance_state(entity)
        watch_class(each.class_)
        each.info[RULES_OF_OBJECT] = rules
        hide(each, rules.hidden_in(each.mapper))
        if len(each.mapper.relationships):
            pending.extend(related_objects(each))


def rule_lazy_loads(session: Session) -> None:
    """Let the session ask `rule_lazy_load` before each lazy load."""
    state = state_of(session)
    if not state.ruled:
        event.listen(session, "do_orm_execute", rule_lazy_load)
        state.ruled = True


def rule_lazy_load(execution: ORMExecuteState) -> Result[Any] | None:
    """Confine the lazy load of a relationship of a ruled object to the rows that the actor may read.

    Raises `PermissionDeniedError` for the load of a hidden column. The loaded objects are ruled, too. Loads that a
    flush or a cascade needs are not confined.
    """
    if not execution.is_select:
        return None
    if execution.is_column_load:
        _rule_column_load(execution)
        return None
    state = execution.lazy_loaded_from
    rules = rules_of_object(state)
    if state is None or rules is None:
        return None
    load = attribute_load()
    if load is None and refreshed_names() is None:
        return None
    if load is not None and rules.hides_relationship(state.mapper, load.key):
        HiddenAttribute(state.class_.__name__, load.key).refuse()
    target: Mapper[Any] | None = execution.bind_mapper
    if target is None:
        return None
    execution.statement = execution.statement.options(*rules.loader_options(target))
    execution.update_execution_options(**{RULED_LOAD: True})
    result = execution.invoke_statement().freeze()
    rule_objects(execution.session, result().unique().scalars(), rules)
    return result()


def _rule_column_load(execution: ORMExecuteState) -> None:
    """Confine what the load of an object's columns, which may have expired, loads with them.

    Raises `PermissionDeniedError` for a hidden column that is read, or that `Session.refresh` names. With all columns
    of the object, the hidden ones are loaded too, and unloaded again; see `hiding`.
    """
    state = refreshed_state(execution)
    rules = rules_of_object(state)
    if state is None or rules is None:
        return
    hidden = rules.hidden_in(state.mapper)
    load = attribute_load() if hidden else None
    named = () if load is None else (load.key,)
    for key in sorted(hidden.intersection(named or refreshed_names() or ())):
        HiddenAttribute(state.class_.__name__, key).refuse()
    if options := rules.eager_options(state.mapper):
        execution.statement = execution.statement.options(*options)
    execution.update_execution_options(**{RULED_LOAD: True})


rule_lazy_load.dotmac_internal = True  # type: ignore[attr-defined]  # a function takes any attribute
