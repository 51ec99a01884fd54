"""Whether a session, its engine and a mapped class are exactly as SQLAlchemy and the toolkit make them.

A shortcut (a statement sent by the driver alone, COPY, a statement without BEGIN) leaves out steps at which code of the
user's could run: event listeners, overridden methods, subclasses. So `session_departure`, `engine_departure` and
`mapper_departure` are called before a shortcut is taken. They accept SQLAlchemy's own classes and methods, and the
listeners that the toolkit knows. Anything else, such as an event that only a later version of SQLAlchemy has, is a
departure, and the statement is sent in SQLAlchemy's ordinary way.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from operator import attrgetter
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.instrumentation import ClassManager

from .known_methods import ENGINE_METHODS, ENGINES, KNOWN_SIZE, MAX_CLASSES, dialect_is_known, session_is_known
from .sqlalchemy_internals import (
    SHORTCUTS,
    EmptyListener,
    EventListeners,
    JoinedListener,
    ListenerCollection,
    absent,
    event_names,
    events_of,
    has_connection_listeners,
    has_ended,
    listeners_to_class,
)

M = TypeVar("M")

_ABSENT = absent(SHORTCUTS)
"""The first private name that the checks need and that this SQLAlchemy does not have: then every shortcut is off.

None: all names exist.
"""


class Departure(Enum):
    """In what a session, an engine or a class differs from SQLAlchemy's own. The value is a sentence for users."""

    INTERNALS = "The installed version of SQLAlchemy or of the driver is not known to the toolkit."
    SESSION_CLASS = "The session, or its class, has a method that is not SQLAlchemy's."
    SESSION_ENDED = "The session has ended."
    SESSION_BINDS = "The session has several binds, or none that is an engine."
    SESSION_OPTIONS = "The session has execution options, autobegin or autoflush is off, or it is two-phase."
    SESSION_LISTENER = "An event listener is registered on the session."
    ENGINE_CLASS = "The engine or its dialect has a class or a method that is not SQLAlchemy's."
    ENGINE_OPTIONS = "The engine or the connection has execution options."
    ENGINE_LISTENER = "An event listener is registered on the engine, its dialect, its pool or its connections."
    ENGINE_LOG = "The engine logs its statements."
    MODEL_CLASS = "The class has a mapper or an instrumentation of its own."
    MODEL_LISTENER = "An event listener is registered on the class, its objects or its attributes."


_CONFIGURING = frozenset(
    (
        *("instrument_class", "after_mapper_constructed", "before_mapper_configured", "mapper_configured"),
        *("before_configured", "after_configured"),
    )
)
_INSERTS = frozenset(("before_insert", "after_insert"))
_CHANGES = frozenset(("before_update", "after_update", "before_delete", "after_delete"))
_UNITS_OF_WORK = frozenset(
    (
        *("before_flush", "after_flush", "after_flush_postexec", "before_attach", "after_attach"),
        *("transient_to_pending", "pending_to_transient", "pending_to_persistent", "persistent_to_transient"),
        *("persistent_to_deleted", "deleted_to_persistent", "deleted_to_detached", "persistent_to_detached"),
        *("detached_to_persistent", "after_bulk_update", "after_bulk_delete"),
    )
)
_ENDS = frozenset(("before_commit", "after_commit", "after_rollback", "after_soft_rollback"))
_COPIES = frozenset(("pickle", "unpickle", "_sa_event_merge_wo_load"))
_COLLECTIONS = frozenset(
    ("append", "append_wo_mutation", "remove", "bulk_replace", "init_collection", "dispose_collection")
)


class Reporting(Enum):
    """Which listeners to statements (`STATEMENT_EVENTS`) the driver calls by itself, as SQLAlchemy would."""

    NONE = "none"
    OBSERVERS = "those that only observe"
    ALL = "all"


STATEMENT_EVENTS = frozenset(("before_cursor_execute", "after_cursor_execute", "handle_error"))


@dataclass(frozen=True, eq=False)
class Shortcut:
    """A shorter way to run a statement, and the events that it does not affect.

    The fields other than ``by_driver`` are the names of events whose listeners notice no difference. The shortcut
    affects all other events, except those that the driver is ``reporting``. ``by_driver``: the statement may bypass
    SQLAlchemy's execution or flush, so that even a listener that only observes rules the shortcut out. If False, only
    BEGIN and COMMIT are left out, which does not matter to listeners that only observe.
    """

    by_driver: bool
    reporting: Reporting = Reporting.NONE
    session: frozenset[str] = frozenset()
    mapper: frozenset[str] = _CONFIGURING
    instances: frozenset[str] = _COPIES | {"expire"}
    attributes: frozenset[str] = _COLLECTIONS
    engine: frozenset[str] = frozenset(("engine_disposed",))
    dialect: frozenset[str] = frozenset(("do_connect",))
    pool: frozenset[str] = frozenset(("close", "close_detached", "detach", "invalidate", "soft_invalidate"))


_READ: dict[str, Any] = {
    "session": _UNITS_OF_WORK | _ENDS,
    "mapper": _CONFIGURING | _INSERTS | _CHANGES,
    "instances": _COPIES | {"expire", "init", "init_failure", "refresh_flush"},
    "attributes": _COLLECTIONS | {"set", "modified", "init_scalar"},
}
_LOADS: dict[str, Any] = {**_READ, "instances": _READ["instances"] | {"load"}}
READ_BY_DRIVER = Shortcut(by_driver=True, reporting=Reporting.ALL, **_LOADS)
"""A read that the driver sends without SQLAlchemy. `execution.objects` calls the listeners to the loading."""
READ_COLUMNS = Shortcut(by_driver=True, **_READ)
"""A read that makes no objects. Only the mapped class is checked for it."""
READ_ALONE = Shortcut(by_driver=False, **_READ)
"""A read that SQLAlchemy executes without BEGIN and COMMIT."""
WRITE_ALONE = Shortcut(by_driver=False)
"""A write that SQLAlchemy executes without BEGIN and COMMIT."""
INSERT = Shortcut(by_driver=True, mapper=_CONFIGURING | _CHANGES, instances=_COPIES | {"expire", "load"})
"""An INSERT instead of a flush. Only the mapped class is checked for it; for the rest, see `WRITE_BY_DRIVER`."""
INSERT_OF_OBJECT = Shortcut(
    by_driver=True,
    mapper=_CONFIGURING | _CHANGES,
    instances=_COPIES | {"expire", "load", "init", "init_failure"},
    attributes=_COLLECTIONS | {"set", "modified", "init_scalar"},
)
"""As `INSERT`, but the object was constructed before, so that its listeners, validators and constructor were called."""

_FLUSHES = frozenset(("before_flush", "after_flush", "after_flush_postexec"))
CHANGE = Shortcut(
    by_driver=True,
    session=((_UNITS_OF_WORK | _ENDS) - _FLUSHES)
    | {"do_orm_execute", "loaded_as_persistent", "after_begin", "after_transaction_create", "after_transaction_end"},
    mapper=_CONFIGURING | _INSERTS,
    instances=_COPIES | {"expire", "init", "init_failure", "load", "refresh"},
)
"""An UPDATE or DELETE instead of a flush.

If SQLAlchemy executes the statement, it still calls the listeners to the execution and to the loading of the returned
rows. If the driver sends it, `WRITE_BY_DRIVER` and `READ_BY_DRIVER` are checked as well.
"""

CHANGE_OF_OBJECT = replace(CHANGE, attributes=INSERT_OF_OBJECT.attributes)
"""As `CHANGE`, but the object was loaded and changed before, so that its listeners and validators were called."""

WRITE_BY_DRIVER = Shortcut(by_driver=True, reporting=Reporting.OBSERVERS)
"""A write of one row that the driver sends without SQLAlchemy, outside of a transaction.

A listener that does more than observe may write too, and what it writes must be in the same transaction as the row.
"""
COPY_BY_DRIVER = Shortcut(by_driver=True)
"""COPY of many rows.

Only the session and the engine are checked, since bulk methods never fire events of a class or its objects.
"""

_TRANSACTIONS = _ENDS | {"after_begin", "after_transaction_create", "after_transaction_end"}
READ_INSIDE = Shortcut(by_driver=True, reporting=Reporting.ALL, **{**_LOADS, "session": _UNITS_OF_WORK | _TRANSACTIONS})
"""A read that the driver sends without SQLAlchemy in the session's transaction."""
WRITE_INSIDE = Shortcut(by_driver=True, reporting=Reporting.ALL, session=_TRANSACTIONS)
"""A write of one row that the driver sends without SQLAlchemy in the session's transaction."""

_OBSERVERS = ("opentelemetry.", "sentry_sdk.")
"""The packages whose listeners only observe statements, and need no transaction."""


def session_departure(session: Session, shortcut: Shortcut) -> Departure | None:
    """The first departure of the session that rules the shortcut out. None: nothing does. Sends nothing."""
    if _ABSENT is not None:
        return Departure.INTERNALS
    if has_ended(session):
        return Departure.SESSION_ENDED
    if session.info.get(KNOWN_SIZE) != len(vars(session)) and not session_is_known(session):
        return Departure.SESSION_CLASS
    if session.binds or type(session.bind) not in ENGINES:
        return Departure.SESSION_BINDS
    if session.execution_options or session.twophase or not (session.autobegin and session.autoflush):
        return Departure.SESSION_OPTIONS
    return Departure.SESSION_LISTENER if has_session_listener(session, shortcut) else None


def has_session_listener(session: Session, shortcut: Shortcut) -> bool:
    """Whether a listener of the user's is registered for an event of the session that the shortcut affects."""
    if _ABSENT is not None:
        return True
    dispatch = vars(session).get("dispatch")
    # SQLAlchemy makes a collection in the dispatcher of an object when a listener is registered on the object.
    if dispatch is not None and ListenerCollection in map(
        type, (*gc.get_referents(dispatch), *vars(dispatch).values())
    ):
        return _has_unknown_listener(session.dispatch, shortcut.session, shortcut)
    # No listener is registered on this session itself, so only the listeners of its class are called.
    of = type(session)
    last = _KNOWN_BY_CLASS.get((of, shortcut))
    if last is not None and last.are_the_same():
        return False
    listeners = _affected_listeners(events_of(Session.dispatch), shortcut.session)
    collections = () if listeners is None else listeners(listeners_to_class(Session, of))
    if _any_unknown(collections, shortcut):
        return True
    if len(_KNOWN_BY_CLASS) >= MAX_CLASSES:
        _KNOWN_BY_CLASS.clear()
    _KNOWN_BY_CLASS[of, shortcut] = KnownListeners([each for each in collections if isinstance(each, EmptyListener)])
    return False


def engine_departure(engine: Engine, shortcut: Shortcut) -> Departure | None:
    """As `session_departure`, for an engine."""
    if _ABSENT is not None:
        return Departure.INTERNALS
    if type(engine) not in ENGINES or not ENGINE_METHODS.isdisjoint(vars(engine)) or not dialect_is_known(engine):
        return Departure.ENGINE_CLASS
    if shortcut.by_driver:
        if engine.get_execution_options():
            return Departure.ENGINE_OPTIONS
        if engine.logger.isEnabledFor(logging.INFO):
            return Departure.ENGINE_LOG
    return Departure.ENGINE_LISTENER if _engine_listened(engine, shortcut) else None


def connection_departure(connection: Connection, shortcut: Shortcut) -> Departure | None:
    """As `session_departure`, for what a connection adds to its engine: its options, and the listeners to it alone."""
    if not all(map(_is_harmless_option, connection.get_execution_options())):
        return Departure.ENGINE_OPTIONS
    # SQLAlchemy makes the collection of an event only when it is needed, so an event without one has no own listeners.
    collections: list[Any] = gc.get_referents(connection.dispatch)
    own = [each.local for each in collections if type(each) is JoinedListener and type(each.local) is not EmptyListener]
    unknown = own and any(each.name not in shortcut.engine and _any_unknown((each,), shortcut) for each in own)
    return Departure.ENGINE_LISTENER if unknown else None


def _engine_listened(engine: Engine, shortcut: Shortcut) -> bool:
    """Whether an unknown listener is registered on an engine, its dialect, its pool, or on all connections."""
    if has_connection_listeners() and _has_unknown_listener(_CONNECTIONS, shortcut.engine, shortcut):
        return True
    collections = _collections(engine, shortcut, engine.pool, lambda: _engine_targets(engine, shortcut))
    if not _are_known_since(engine, collections, shortcut):
        dispatch, dialect, pool = _engine_targets(engine, shortcut)
        # Every connection comes from the pool, so that listeners to the pool are called anyway.
        if (
            _has_unknown_listener(*dispatch, shortcut)
            or _has_unknown_listener(*dialect, shortcut)
            or _has_unknown_listener(*pool, shortcut, observers_known=True)
        ):
            return True
        _note_known(engine, collections, shortcut)
    listeners = statement_listeners(engine) if shortcut.reporting is Reporting.OBSERVERS else None
    return listeners is not None and not all(map(_only_observes, listeners.all()))


def _engine_targets(engine: Engine, shortcut: Shortcut) -> Sequence[tuple[Any, frozenset[str]]]:
    """The dispatchers of an engine, its dialect and its pool, each with the events that are not affected."""
    reported = _REPORTED[shortcut.reporting]
    return (
        (engine.dispatch, shortcut.engine | reported),
        (engine.dialect.dispatch, shortcut.dialect | reported),
        (engine.pool.dispatch, shortcut.pool),
    )


_REPORTED = {each: frozenset[str]() if each is Reporting.NONE else STATEMENT_EVENTS for each in Reporting}


class StatementListeners(NamedTuple):
    """The listeners to an engine's statements that are neither the toolkit's nor SQLAlchemy's."""

    before: tuple[Callable[..., Any], ...]
    after: tuple[Callable[..., Any], ...]
    errors: tuple[Callable[..., Any], ...]

    def all(self) -> tuple[Callable[..., Any], ...]:
        """All of them."""
        return self.before + self.after + self.errors


def statement_listeners(engine: Engine) -> StatementListeners | None:
    """The listeners that the driver must call for each statement; None: there are none."""
    before, after = _cursor_events(engine.dispatch)
    errors: EventListeners = _error_event(engine.dialect.dispatch)
    present = (
        (*before.parent_listeners, *before.listeners),
        (*after.parent_listeners, *after.listeners),
        (*errors.parent_listeners, *errors.listeners),
    )
    examined: tuple[object, StatementListeners | None] = vars(engine).get(_STATEMENT_LISTENERS, ((), None))
    if examined[0] != present:
        own = StatementListeners(*map(_external, present))
        examined = present, own if own.all() else None
        setattr(engine, _STATEMENT_LISTENERS, examined)
    return examined[1]


def _external(listeners: Iterable[Any]) -> tuple[Callable[..., Any], ...]:
    """The listeners that are neither the toolkit's nor SQLAlchemy's."""
    return tuple([each for each in listeners if not is_internal(each)])


_cursor_events: Callable[[object], tuple[EventListeners, EventListeners]] = attrgetter(
    "before_cursor_execute", "after_cursor_execute"
)
_error_event: Callable[[object], EventListeners] = attrgetter("handle_error")


_STATEMENT_LISTENERS = "_dotmac_statement_listeners"
"""The attribute of an engine with the listeners that `statement_listeners` has examined, and its result."""


def _collections(
    owner: object, shortcut: Shortcut, version: object, targets: Callable[[], Iterable[tuple[Any, frozenset[str]]]]
) -> list[EventListeners]:
    """The present listeners of an owner's dispatchers, in a collection for each event that the shortcut affects.

    ``targets()`` are the dispatchers, each with the names of the other events. It is called again if the ``version``
    has changed.
    """
    cached: dict[Shortcut, tuple[object, list[tuple[object, Any]]]] | None = vars(owner).get(_GETTERS)
    if cached is None:
        cached = {}
        setattr(owner, _GETTERS, cached)
    last = cached.get(shortcut)
    if last is None or last[0] != version:
        getters = ((dispatch, _affected_listeners(events_of(dispatch), others)) for dispatch, others in targets())
        last = cached[shortcut] = (version, [each for each in getters if each[1] is not None])
    return [each for dispatch, getter in last[1] for each in getter(dispatch)]


_GETTERS = "_dotmac_getters"
"""The attribute of an engine or a mapper with a dict: for each `Shortcut`, how `_collections` gets the listeners."""


def _are_known_since(owner: object, collections: list[EventListeners], shortcut: Shortcut) -> bool:
    """Whether these are the collections of the last `_note_known`, and have not changed since."""
    examined: dict[Shortcut, KnownListeners] = vars(owner).get(_KNOWN_LISTENERS, {})
    last = examined.get(shortcut)
    return last is not None and last.still_holds(collections)


def _note_known(owner: object, collections: list[EventListeners], shortcut: Shortcut) -> None:
    """Note that all listeners in the collections are known."""
    if all(isinstance(each, (EmptyListener, ListenerCollection)) for each in collections):
        if _KNOWN_LISTENERS not in vars(owner):
            setattr(owner, _KNOWN_LISTENERS, {})
        vars(owner)[_KNOWN_LISTENERS][shortcut] = KnownListeners(collections)


class KnownListeners:
    """Collections of listeners that were all known when they were examined. It shows quickly whether they changed."""

    __slots__ = ("collections", "contents", "empty", "filled")

    def __init__(self, collections: list[EventListeners]) -> None:
        self.collections = collections
        # First the listeners of the class, for example to all engines; then those of the object, such as one engine.
        own = [*(each.parent_listeners for each in collections), *(each.listeners for each in collections)]
        self.empty = tuple(each for each in own if not each)
        self.filled = tuple(each for each in own if each)
        self.contents = tuple(map(tuple, self.filled))

    def still_holds(self, collections: list[EventListeners]) -> bool:
        """Whether the collections are the same objects, with the same listeners."""
        return self.collections == collections and self.are_the_same()

    def are_the_same(self) -> bool:
        """Whether the listeners are the same as before."""
        return not any(self.empty) and tuple(map(tuple, self.filled)) == self.contents


_KNOWN_LISTENERS = "_dotmac_known_listeners"
"""The attribute of an engine or a mapper with a dict: for each `Shortcut`, the `KnownListeners` that were examined.

A global dictionary would keep the engine alive, since listeners may refer to it. The attribute is freed together with
the engine.
"""

_KNOWN_BY_CLASS: dict[tuple[type, Shortcut], KnownListeners] = {}
"""The known listeners of each session class and shortcut, at most `MAX_CLASSES`."""


def mapper_departure(mapper: Mapper[M], shortcut: Shortcut) -> Departure | None:
    """As `session_departure`, for a mapped class."""
    if _ABSENT is not None:
        return Departure.INTERNALS
    manager = mapper.class_manager
    if type(mapper) is not Mapper or type(manager) is not ClassManager:
        return Departure.MODEL_CLASS
    collections = _collections(mapper, shortcut, len(manager), lambda: _mapper_targets(mapper, shortcut))
    if _are_known_since(mapper, collections, shortcut):
        return None
    if _any_unknown(tuple(collections), shortcut):
        return Departure.MODEL_LISTENER
    _note_known(mapper, collections, shortcut)
    return None


def _mapper_targets(mapper: Mapper[M], shortcut: Shortcut) -> Iterator[tuple[Any, frozenset[str]]]:
    """The dispatchers of a class, its objects and its attributes, each with the events that are not affected."""
    manager = mapper.class_manager
    yield mapper.dispatch, shortcut.mapper
    yield manager.dispatch, shortcut.instances
    for key in mapper.column_attrs.keys():  # noqa: SIM118 - column_attrs is no dict
        if key in manager:  # a discriminator that is computed by an SQL expression has no attribute
            yield manager[key].dispatch, shortcut.attributes


def is_internal(listener: object) -> bool:
    """Whether a listener belongs to SQLAlchemy, or to the toolkit, whose listeners need not see a shortcut."""
    return getattr(listener, "dotmac_internal", False) is True or _is_internal_by_module(listener)


def _is_internal_by_module(listener: object) -> bool:
    """Whether a listener is the tenant guard's, or one that SQLAlchemy registers on every engine or class."""
    if not isinstance(listener, FunctionType):
        return False
    inner = _unwrapped(listener)
    module = getattr(inner, "__module__", None) or ""
    if (
        # The guard's listeners need not see a shortcut: they check statements that do not come from a repository, and
        # they note when a transaction ends.
        module.startswith("dotmac_database.tenancy.")
        or getattr(inner, "dotmac_internal", False) is True
        or (module, getattr(inner, "__qualname__", "")) in _SQLALCHEMY_LISTENERS
    ):
        listener.dotmac_internal = True  # type: ignore[attr-defined]  # a function takes any attribute
        return True
    return False


_SQLALCHEMY_LISTENERS = frozenset(
    (
        ("sqlalchemy.engine.create", "create_engine.<locals>.on_connect"),
        ("sqlalchemy.engine.create", "create_engine.<locals>.first_connect"),
        ("sqlalchemy.orm.mapper", "_event_on_init"),
    )
)


def _only_observes(listener: object) -> bool:
    """Whether a listener is marked as an observer that sends nothing, or belongs to a known tracer."""
    inner = _unwrapped(listener)
    marked = getattr(inner, "dotmac_observes", False) is True
    return marked or (getattr(inner, "__module__", None) or "").startswith(_OBSERVERS)


def _unwrapped(listener: object) -> object:
    """The function that was registered, without SQLAlchemy's wrappers around it."""
    while isinstance(listener, FunctionType) and listener.__module__.startswith("sqlalchemy.") and listener.__closure__:
        closure = dict(zip(listener.__code__.co_freevars, listener.__closure__, strict=True))
        cell = closure.get("orig_fn") or closure.get("fn")
        if cell is None:
            break
        listener = cell.cell_contents
    return listener


def _has_unknown_listener(
    dispatch: object, unaffected: frozenset[str], shortcut: Shortcut, *, observers_known: bool = False
) -> bool:
    """Whether an unknown listener is registered for any event except ``unaffected``; see `_any_unknown`."""
    listeners = _affected_listeners(events_of(dispatch), unaffected)
    return listeners is not None and _any_unknown(listeners(dispatch), shortcut, observers_known=observers_known)


def _any_unknown(collections: tuple[EventListeners, ...], shortcut: Shortcut, *, observers_known: bool = False) -> bool:
    """Whether a listener is unknown. Known are those of SQLAlchemy and the toolkit (`is_internal`).

    Listeners that only observe are known too if ``observers_known`` is True, or if the shortcut is not ``by_driver``.
    """
    observers_known = observers_known or not shortcut.by_driver
    for collection in filter(None, collections):
        for listener in collection:
            if not (is_internal(listener) or (observers_known and _only_observes(listener))):
                return True
    return False


@cache
def _affected_listeners(
    dispatch: object, unaffected: frozenset[str]
) -> Callable[[object], tuple[EventListeners, ...]] | None:
    """A function that gets the listeners of all events except ``unaffected`` that this version of SQLAlchemy has.

    None: there are no such events.
    """
    names = [name for name in event_names(dispatch) if name not in unaffected]
    if not names:
        return None
    # An attrgetter for a single name does not return a tuple.
    return attrgetter(*names) if len(names) > 1 else lambda target: (getattr(target, names[0]),)


_CONNECTIONS: object = None if _ABSENT else listeners_to_class(Connection, Connection)
"""The listeners to all connections."""


def _is_harmless_option(name: str) -> bool:
    """Whether an execution option of a connection does not forbid a shortcut.

    The isolation level is set on the driver's connection, so statements of the driver have it too. The options that
    begin with ``dotmac_`` are the toolkit's own.
    """
    return name == "isolation_level" or name.startswith("dotmac_")
