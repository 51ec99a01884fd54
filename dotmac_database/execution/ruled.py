"""Hides columns in the objects that an actor's repository has read or written, and rules their lazy loads.

The listener is registered on the session, and SQLAlchemy calls it before it sends a lazy load.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Result, event, inspect, select
from sqlalchemy.orm import (
    InstanceState,
    LoaderCallableStatus,
    Mapper,
    ORMExecuteState,
    PassiveFlag,
    RelationshipProperty,
    Session,
    defaultload,
)
from sqlalchemy.orm.base import instance_state
from sqlalchemy.orm.interfaces import ORMOption, RelationshipDirection

from ..errors import MisuseError
from ..sqlalchemy_internals import attribute_load, refreshed_names, refreshed_state, rule_collection, wrap_loader
from .hiding import (
    RULED_LOAD,
    RULES_OF_OBJECT,
    HiddenAttribute,
    ObjectRules,
    ObjectRulesOption,
    RulesLeftBehind,
    hide,
    rules_of_object,
    unload_after_flush,
    unload_related,
    watch_class,
    watch_loads,
)
from .ruled_collections import RuledCollection, refuse_write_of_select
from .state import state_of
from .strict import related_objects

Held: TypeAlias = Mapping[InstanceState[object], Collection[str]]
"""Objects that the session holds and that are not ruled, each with the relationships that it has loaded."""

_NONE: Held = {}


def held_by_hand(session: Session) -> Held:
    """The objects that the user's own statements have loaded, before a statement that may return them to the actor."""
    rule_lazy_loads(session)
    if not state_of(session).by_hand:
        return _NONE
    states = session.identity_map.all_states()
    return {each: loaded_relationships(each) for each in states if rules_of_object(each) is None}


def loaded_relationships(state: InstanceState[object]) -> Collection[str]:
    """The relationships that an object has loaded."""
    return [key for key in state.mapper.relationships.keys() if key in state.dict]  # noqa: SIM118 - it is no dict


def rule_objects(session: Session, entities: Iterable[object], rules: ObjectRules, held: Held = _NONE) -> None:
    """Hide the hidden columns of these objects, and of those in their loaded relationships, and rule their lazy loads.

    ``held`` are the objects that were not ruled before they were read: related rows that they had loaded are unloaded.

    A changed value that waits for a flush is not hidden. Raises `MisuseError` if the session holds one of the objects
    for another actor, who would then see what this one may see.
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
        watch(each.class_)
        former = each.info.get(RULES_OF_OBJECT)
        if former is not None and former is not rules:
            _take_over(each, former, rules)
        each.info[RULES_OF_OBJECT] = rules
        if each in held:
            unload_related(each, [key for key in held[each] if rules.rules_relationship(each.mapper, key)])
        hide(each, rules.hidden_in(each.mapper))
        if len(each.mapper.relationships):
            pending.extend(related_objects(each))


def _take_over(state: InstanceState[object], former: ObjectRules, rules: ObjectRules) -> None:
    """Let an object that was ruled before follow other rules of the same actor."""
    if is_same_actor(former, rules):
        return
    hide(state, former.hidden_in(state.mapper))
    related = state.mapper.relationships.keys()
    unload_related(state, [key for key in related if former.rules_relationship(state.mapper, key)])
    if not isinstance(former, RulesLeftBehind):
        raise MisuseError(
            f"The session holds a {state.class_.__name__} that was read for another actor. Objects belong to one "
            "actor: use a session for each, expunge the objects, or read values."
        )


def is_same_actor(one: ObjectRules, other: ObjectRules) -> bool:
    """Whether the rules are those of the same actor."""
    return one.actor is other.actor or bool(one.actor == other.actor)


_watched: set[type] = set()
"""The classes whose many-to-one relationships are loaded by a `RuledReference`."""


def watch(model: type) -> None:
    """Let the objects of a class keep their rules, whatever loads them again; see `hiding`."""
    if model in _watched:
        return
    watch_class(model)
    mapper: Mapper[Any] = inspect(model)
    for key, relationship in mapper.relationships.items():
        if relationship.direction is RelationshipDirection.MANYTOONE:
            wrap_loader(mapper, key, lambda load, key=key: RuledReference(load, key))  # type: ignore[misc]  # the default keeps this key
        elif relationship.lazy in ("dynamic", "write_only"):
            rule_collection(mapper, key, RuledCollection(key))
    _watched.add(model)


@dataclass(frozen=True)
class RuledReference:
    """Loads a many-to-one relationship as ``load`` does, which sends nothing if the session holds the object.

    If no repository has returned that object to the actor, a ruled statement shows whether he may read it.
    """

    load: Callable[[Any, Any], object]
    key: str

    def __call__(self, state: InstanceState[object], passive: PassiveFlag) -> object:
        """SQLAlchemy's call of a loader."""
        value = self.load(state, passive)
        rules = rules_of_object(state)
        if rules is None or value is None or isinstance(value, LoaderCallableStatus):
            return value
        related = instance_state(value)
        theirs = rules_of_object(related)
        if theirs is not None and is_same_actor(theirs, rules):
            return value
        if not rules.rules_relationship(state.mapper, self.key):
            return value
        if attribute_load() is None and refreshed_names() is None:
            return value  # a flush or a cascade needs it
        session = state.session
        if session is None or related.key is None or not passive & PassiveFlag.SQL_OK:
            return LoaderCallableStatus.PASSIVE_NO_RESULT
        target = state.mapper.relationships[self.key].mapper
        key = zip(target.primary_key, related.key[1], strict=True)
        statement = select(target).where(*(column == part for column, part in key))
        statement = statement.options(*rules.loader_options(target), *rules.eager_options(target))
        readable: object = session.scalars(statement, execution_options={RULED_LOAD: True}).unique().first()
        if readable is not None:
            rule_objects(session, [readable], rules, {related: loaded_relationships(related)})
        return readable


def rule_lazy_loads(session: Session) -> None:
    """Let the session ask `rule_lazy_load` before each lazy load."""
    state = state_of(session)
    if not state.ruled:
        event.listen(session, "do_orm_execute", rule_lazy_load)
        state.ruled = True
        state.by_hand = bool(len(session.identity_map))


def rule_lazy_load(execution: ORMExecuteState) -> Result[Any] | None:
    """Confine the lazy load of a relationship of a ruled object to the rows that the actor may read.

    Raises `PermissionDeniedError` for the load of a hidden column. The loaded objects are ruled, too. Loads that a
    flush or a cascade needs are not confined.
    """
    if not execution.is_select:
        refuse_write_of_select(execution)
        return None
    if execution.is_column_load:
        _rule_column_load(execution)
        return None
    state = execution.lazy_loaded_from
    rules = rules_of_object(state)
    if state is None:
        _rule_held(execution)
    if state is None or rules is None:
        return None
    path = () if execution.loader_strategy_path is None else execution.loader_strategy_path.path
    steps = [part for part in path if isinstance(part, RelationshipProperty)]
    key = steps[-1].key if steps else None
    if attribute_load() is None and refreshed_names() is None:
        if key is not None and rules.rules_relationship(state.mapper, key):
            unload_after_flush(execution.session, state, related=(key,))
        return None
    if key is not None and rules.hides_relationship(state.mapper, key):
        HiddenAttribute(state.class_.__name__, key).refuse()
    target: Mapper[Any] | None = execution.bind_mapper
    if target is None:
        return None
    options = [*rules.loader_options(target), *_nested(steps, rules.eager_options(target))]
    execution.statement = execution.statement.options(*options)
    execution.update_execution_options(**{RULED_LOAD: True})
    held = held_by_hand(execution.session)
    result = execution.invoke_statement().freeze()
    rule_objects(execution.session, result().unique().scalars(), rules, held)
    return result()


def _nested(steps: Sequence[RelationshipProperty[Any]], options: Sequence[Any]) -> Sequence[ORMOption]:
    """Options for the class to which a path leads, as options for the statement that loads the end of the path."""
    if not steps or not options:
        return ()
    attributes: list[Any] = [step.class_attribute for step in steps]
    path = defaultload(attributes[0])
    for attribute in attributes[1:]:
        path = path.defaultload(attribute)
    return (path.options(*options),)


def _rule_held(execution: ORMExecuteState) -> None:
    """Rule the objects that the session holds before a repository's ``select()`` returns them as they are."""
    rules = next((each.payload for each in execution.user_defined_options if isinstance(each, ObjectRulesOption)), None)
    if rules is None:
        by_hand = not (execution.is_relationship_load or execution.execution_options.get(RULED_LOAD))
        state_of(execution.session).by_hand |= by_hand
        return
    classes = rules.classes
    for model in classes:
        watch(model)
        if rules.hidden_in(inspect(model)):
            watch_loads(model)
    session = execution.session
    states = [state for state in session.identity_map.all_states() if state.class_ in classes]
    entities = [entity for state in states if (entity := state.obj()) is not None]
    rule_objects(session, entities, rules, held_by_hand(session))


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
