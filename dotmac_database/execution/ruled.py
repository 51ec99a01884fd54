"""Hides columns in the objects that an actor's repository has read or written, and rules their lazy loads.

The listener is registered on the session, and SQLAlchemy calls it before it sends a lazy load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Result, event
from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState, Session
from sqlalchemy.orm.base import instance_state
from sqlalchemy.orm.interfaces import ORMOption, UserDefinedOption

from ..errors import PermissionDeniedError
from ..sqlalchemy_internals import attribute_load, loading_attribute, refreshed_names, refreshed_state, replace_loader
from .state import state_of
from .strict import related_objects

_RULES = "dotmac_database.rules"
"""The key in the ``info`` of an object's state of the rules under which a repository has read or written the object."""


class ObjectRules(Protocol):
    """The rules of an actor for objects."""

    def hidden_in(self, mapper: Mapper[Any]) -> frozenset[str]:
        """The attributes that the actor can't see."""
        ...

    def hides_relationship(self, mapper: Mapper[Any], key: str) -> bool:
        """Whether a relationship would show the actor a hidden column."""
        ...

    def loader_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine the load of a relationship to this class to what the actor may read."""
        ...


class ObjectRulesOption(UserDefinedOption):
    """An option of a statement that a user sends: the lazy loads of the objects that it loads are ruled."""

    propagate_to_loaders = True


@dataclass(frozen=True)
class HiddenAttribute:
    """Raises the error for a hidden attribute when it is read. It stands in place of the attribute's loader."""

    model: str
    key: str

    def __call__(self, _state: object, _passive: object) -> object:
        """SQLAlchemy's call of a loader. Raises `PermissionDeniedError`."""
        raise PermissionDeniedError(f"{self.model}.{self.key} is hidden from the actor.")


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
        each.info[_RULES] = rules
        for key in rules.hidden_in(each.mapper):
            if key not in each.committed_state:
                replace_loader(each, key, HiddenAttribute(each.class_.__name__, key))
        if len(each.mapper.relationships):
            pending.extend(related_objects(each))


def rule_lazy_loads(session: Session) -> None:
    """Let the session ask `rule_lazy_load` before each lazy load."""
    state = state_of(session)
    if not state.ruled:
        event.listen(session, "do_orm_execute", rule_lazy_load)
        state.ruled = True


def _rules_of(state: InstanceState[object] | None) -> ObjectRules | None:
    """The rules of an object; None: it is not ruled."""
    if state is None:
        return None
    options = (each.payload for each in state.load_options if isinstance(each, ObjectRulesOption))
    rules: ObjectRules | None = state.info.get(_RULES) or next(options, None)
    return rules


def rule_lazy_load(execution: ORMExecuteState) -> Result[Any] | None:
    """Confine the lazy load of a relationship of a ruled object to the rows that the actor may read.

    Raises `PermissionDeniedError` for the load of a hidden column. A load of other columns does not keep the hidden
    ones, unless `Session.refresh` names them. The loaded objects are ruled, too. Loads that a flush or a cascade needs
    are not confined.
    """
    if not execution.is_select:
        return None
    if execution.is_column_load:
        return _rule_column_load(execution)
    state = execution.lazy_loaded_from
    rules = _rules_of(state)
    if state is None or rules is None:
        return None
    load = attribute_load()
    if load is None and refreshed_names() is None:
        return None
    if load is not None and rules.hides_relationship(state.mapper, load.key):
        HiddenAttribute(state.class_.__name__, load.key)(None, None)
    target: Mapper[Any] | None = execution.bind_mapper
    if target is None:
        return None
    execution.statement = execution.statement.options(*rules.loader_options(target))
    result = execution.invoke_statement().freeze()
    rule_objects(execution.session, result().unique().scalars(), rules)
    return result()


def _rule_column_load(execution: ORMExecuteState) -> Result[Any] | None:
    """Let the load of an object's columns, which may have expired, leave the hidden ones unloaded."""
    state = refreshed_state(execution)
    rules = _rules_of(state)
    if state is None or rules is None:
        return None
    hidden = rules.hidden_in(state.mapper)
    if not hidden:
        return None
    load = attribute_load()
    if load is not None and load.key in hidden:
        HiddenAttribute(state.class_.__name__, load.key)(None, None)
    result = execution.invoke_statement().freeze()
    result().unique().all()
    named = refreshed_names() or frozenset()  # code that names a hidden column needs it, as does the toolkit or a flush
    for key in hidden - named - {loading_attribute()}:
        if key not in state.committed_state:
            replace_loader(state, key, HiddenAttribute(state.class_.__name__, key))
    return result()


rule_lazy_load.dotmac_internal = True  # type: ignore[attr-defined]  # a function takes any attribute
