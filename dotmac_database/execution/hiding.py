"""Keeps what an actor can't see out of the objects that his repository has returned, whatever loads them again.

A statement that the user writes fills in what an object of the session has not loaded, also a hidden column. So each
class of ruled objects has a listener that unloads it again. A second one leaves the rules behind when an object is
pickled or copied.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.interfaces import ORMOption, UserDefinedOption

from ..errors import MisuseError, PermissionDeniedError
from ..sqlalchemy_internals import after_rows, attribute_load, loading_attribute, replace_loader, unload

RULES_OF_OBJECT = "dotmac_database.rules"
"""The key in the ``info`` of an object's state of the rules under which a repository has read or written the object."""

RULED_LOAD = "dotmac_ruled"
"""The execution option of statements whose related rows are confined to what the actor may read."""

_FLUSHED = "dotmac_database.flushed"
"""The key in a session's ``info`` of what a flush or a cascade has loaded, and which is unloaded after the flush."""


class ObjectRules(Protocol):
    """The rules of an actor for objects."""

    @property
    def actor(self) -> object:
        """The actor."""
        ...

    def hidden_in(self, mapper: Mapper[Any]) -> frozenset[str]:
        """The attributes that the actor can't see."""
        ...

    def hides_relationship(self, mapper: Mapper[Any], key: str) -> bool:
        """Whether a relationship would show the actor a hidden column."""
        ...

    @property
    def classes(self) -> Collection[type]:
        """The classes of the objects to which the relationships lead, with that of the repository."""
        ...

    def rules_relationship(self, mapper: Mapper[Any], key: str) -> bool:
        """Whether a relationship leads to rows that a policy rules, so that it must not show all of them."""
        ...

    def loader_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine the load of a relationship to this class to what the actor may read."""
        ...

    def eager_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine the relationships that the class loads by default."""
        ...

    def select_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """The options that confine a SELECT of this class, which the user extends, and the objects that it loads."""
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
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise `PermissionDeniedError`."""
        raise PermissionDeniedError(f"{self.model}.{self.key} is hidden from the actor.")


@dataclass(frozen=True)
class RulesLeftBehind:
    """The rules of an object that was pickled or copied: what was hidden stays hidden, and nothing more is loaded."""

    model: type
    hidden: frozenset[str]
    hidden_relationships: frozenset[str]

    @property
    def actor(self) -> object:
        """Nobody: the actor is not known any more."""
        return RulesLeftBehind

    @property
    def classes(self) -> Collection[type]:
        """The class of the object."""
        return (self.model,)

    def hidden_in(self, mapper: Mapper[Any]) -> frozenset[str]:  # noqa: ARG002 - the name is that of the protocol
        """The attributes that the actor could not see."""
        return self.hidden

    def hides_relationship(self, mapper: Mapper[Any], key: str) -> bool:  # noqa: ARG002 - as above
        """Whether a relationship would have shown the actor a hidden column."""
        return key in self.hidden_relationships

    def rules_relationship(self, mapper: Mapper[Any], key: str) -> bool:  # noqa: ARG002 - as above
        """Always: it is not known any more which relationships lead to rows that a policy rules."""
        return True

    def loader_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """Raises `MisuseError`: it is not known any more which rows the actor may read."""
        raise MisuseError(
            f"The {self.model.__name__} was pickled or copied without its policies, so that its related "
            f"{mapper.class_.__name__} can't be loaded: read it again by a repository."
        )

    def eager_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:  # noqa: ARG002 - as above
        """None: what a relationship loads by default is unloaded."""
        return ()

    def select_options(self, mapper: Mapper[Any]) -> Sequence[ORMOption]:
        """As `loader_options`."""
        return self.loader_options(mapper)

    def __reduce__(self) -> tuple[Any, ...]:
        return _left_behind, (self.model, self.hidden, self.hidden_relationships)


def _left_behind(model: type, hidden: frozenset[str], hidden_relationships: frozenset[str]) -> RulesLeftBehind:
    """The rules that were left behind, in a process that may not know the class yet."""
    watch_class(model)
    return RulesLeftBehind(model, hidden, hidden_relationships)


def rules_of_object(state: InstanceState[object] | None) -> ObjectRules | None:
    """The rules of an object; None: it is not ruled."""
    if state is None:
        return None
    options = (each.payload for each in state.load_options if isinstance(each, ObjectRulesOption))
    rules: ObjectRules | None = state.info.get(RULES_OF_OBJECT) or next(options, None)
    return rules


def hide(state: InstanceState[object], keys: Collection[str]) -> None:
    """Unload these attributes of an object, and let them raise.

    A changed value that waits for a flush is not hidden.
    """
    for key in keys:
        if key not in state.committed_state:
            replace_loader(state, key, HiddenAttribute(state.class_.__name__, key))


_watched: set[type] = set()
"""The classes whose objects are watched: those of which an object has been ruled in this process."""


def watch_class(model: type) -> None:
    """Let the objects of a class keep their rules when they are loaded again, pickled or copied."""
    if model not in _watched:
        event.listen(model, "refresh", _keep_hidden, raw=True)
        event.listen(model, "pickle", _leave_rules, raw=True)
        _watched.add(model)


_watched_loads: set[type] = set()
"""The classes with hidden columns that a repository's ``select()`` leads to."""


def watch_loads(model: type) -> None:
    """Hide the hidden columns of a class's objects also if a user's addition to a ``select()`` loads them."""
    if model not in _watched_loads:
        event.listen(model, "load", _hide_loaded, raw=True)
        _watched_loads.add(model)


def _hide_loaded(state: InstanceState[object], context: Any) -> None:
    if context is None or not state.load_options:
        return
    rules = rules_of_object(state)
    hidden = () if rules is None else rules.hidden_in(state.mapper)
    if hidden:
        hide(state, hidden)
        after_rows(context, _Unloading, lambda: _Unloading([])).add(state, hidden, ())


_hide_loaded.dotmac_internal = True  # type: ignore[attr-defined]  # a function takes any attribute


def _keep_hidden(state: InstanceState[object], context: Any, loaded: Collection[str] | None) -> None:
    """Unload what a statement has loaded into a ruled object: its hidden columns, and relationships to ruled rows.

    ``loaded`` are the attributes that the statement may have loaded; None: all. Relationships that a ruled statement
    has loaded stay. What a flush needs stays until its end.
    """
    rules = rules_of_object(state)
    if rules is None:
        return
    hidden = {key for key in rules.hidden_in(state.mapper) if key in state.dict and (loaded is None or key in loaded)}
    load = attribute_load() if hidden else None
    needed = loading_attribute() if hidden and load is None else None
    if needed in hidden and state.session is not None:
        hidden.remove(needed)
        unload_after_flush(state.session, state, hidden=(needed,))
    hide(state, hidden)
    if context is None:
        return  # an UPDATE by hand has set these attributes, without a row
    related: set[str] = set()
    if not context.execution_options.get(RULED_LOAD):
        related = {
            key
            for key in state.mapper.relationships.keys()  # noqa: SIM118 - it is no dict
            if (loaded is None or key in loaded) and rules.rules_relationship(state.mapper, key)
        }
    if hidden or related:
        after_rows(context, _Unloading, lambda: _Unloading([])).add(state, hidden, related)
    if load is not None and load.state is state and load.key in hidden:
        HiddenAttribute(state.class_.__name__, load.key).refuse()


_keep_hidden.dotmac_internal = True  # type: ignore[attr-defined]  # a function takes any attribute


@dataclass(eq=False)
class _Unloading:
    """What is unloaded when all rows of a statement are read: a later row of the same object would load it again."""

    pending: list[tuple[InstanceState[object], Collection[str], Collection[str]]]

    def add(self, state: InstanceState[object], hidden: Collection[str], related: Collection[str]) -> None:
        """Note an object with its hidden attributes, and with relationships that are not ruled."""
        self.pending.append((state, hidden, related))

    def invoke(self, _context: object, _path: object) -> None:
        """Unload it. SQLAlchemy calls this after the rows, as it does for the loaders of relationships."""
        for state, hidden, related in self.pending:
            hide(state, hidden)
            unload_related(state, related)
        self.pending.clear()


_Unloading.invoke.dotmac_internal = True  # type: ignore[attr-defined]  # as above


def unload_related(state: InstanceState[object], keys: Collection[str]) -> None:
    """Unload these relationships of an object, except those with changes that wait for a flush."""
    for key in keys:
        if key in state.dict and key not in state.committed_state:
            unload(state, state.dict, key)


def unload_after_flush(
    session: Session, state: InstanceState[object], *, hidden: Collection[str] = (), related: Collection[str] = ()
) -> None:
    """Unload these attributes at the end of the flush, or of the next one, which needs all their values."""
    pending = session.info.get(_FLUSHED)
    if pending is None:
        pending = session.info[_FLUSHED] = _Unloading([])
        event.listen(session, "after_flush_postexec", pending.invoke)
    pending.add(state, hidden, related)


def _leave_rules(state: InstanceState[object], pickled: dict[str, Any]) -> None:
    """Leave the rules of an object behind when it is pickled or copied, and keep hidden what was hidden."""
    rules = rules_of_object(state)
    if rules is None:
        return
    hidden = rules.hidden_in(state.mapper)
    relationships: Collection[str] = state.mapper.relationships.keys()
    hidden_relationships = frozenset(key for key in relationships if rules.hides_relationship(state.mapper, key))
    left = RulesLeftBehind(state.class_, hidden, hidden_relationships)
    loaders = {key: HiddenAttribute(state.class_.__name__, key) for key in hidden if key not in state.dict}
    pickled["info"] = {**state.info, RULES_OF_OBJECT: left}
    pickled["callables"] = {**state.callables, **loaders}
    pickled["load_options"] = ()


_leave_rules.dotmac_internal = True  # type: ignore[attr-defined]  # as above
