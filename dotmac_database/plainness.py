"""Whether a session, its engine and a class are exactly as SQLAlchemy and the toolkit make them.

The ways that pass SQLAlchemy by (a statement by the driver alone, COPY, a read or a write without BEGIN) ask
`departure` first. It says what is allowed: SQLAlchemy's own classes and methods, and listeners that the toolkit knows.
Whatever else it meets, an event of a later SQLAlchemy too, is a reason to go SQLAlchemy's ordinary way.

SQLAlchemy keeps private some of what is read here (``_event_names``, ``_close_state``, a dispatch of a class), as it is
in 2.1.9; ``tests/integration/test_hooks.py`` names each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.event.attr import _EmptyListener, _ListenerCollection
from sqlalchemy.ext.asyncio import AsyncSession, async_session
from sqlalchemy.orm import AttributeEvents, Mapper, Session
from sqlalchemy.orm.instrumentation import ClassManager
from sqlalchemy.orm.session import _SessionCloseState


class Departure(Enum):
    """What is not as SQLAlchemy and the toolkit made it; the value is a sentence for people."""

    SESSION_CLASS = "The session's class overrides a method of SQLAlchemy's."
    SESSION_ENDED = "The session has ended."
    SESSION_BINDS = "The session has several binds, or none that is an engine."
    SESSION_OPTIONS = "The session has execution options, does not begin or flush by itself, or is two-phase."
    SESSION_LISTENER = "Something listens to the session."
    ENGINE_CLASS = "The engine or its dialect is of a class, or has a method, that is not SQLAlchemy's."
    ENGINE_OPTIONS = "The engine or the connection has execution options."
    ENGINE_LISTENER = "Something listens to the engine, its dialect, its pool or its connections."
    ENGINE_LOG = "The engine logs its statements."
    MODEL_CLASS = "The class is not mapped and instrumented as SQLAlchemy does it by itself."
    MODEL_LISTENER = "Something listens to the class, its objects or its attributes."


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


@dataclass(frozen=True, eq=False)
class Way:
    """A way to run a statement, and the events that it does not concern; it concerns all others.

    ``by_driver``: SQLAlchemy does not see the statement. Else it does, and only BEGIN and COMMIT are left out, which
    does not matter to those who only look on.
    """

    by_driver: bool
    session: frozenset[str] = frozenset()
    mapper: frozenset[str] = _CONFIGURING
    instances: frozenset[str] = _COPIES | {"expire"}
    attributes: frozenset[str] = _COLLECTIONS
    engine: frozenset[str] = frozenset(("engine_disposed",))
    dialect: frozenset[str] = frozenset(("do_connect",))
    pool: frozenset[str] = frozenset(("close", "close_detached", "detach", "invalidate", "soft_invalidate"))


_READ: dict[str, frozenset[str]] = {
    "session": _UNITS_OF_WORK | _ENDS,
    "mapper": _CONFIGURING | _INSERTS | _CHANGES,
    "instances": _COPIES | {"expire", "init", "init_failure", "refresh_flush"},
    "attributes": _COLLECTIONS | {"set", "modified", "init_scalar"},
}
READ_BY_DRIVER = Way(by_driver=True, **_READ)
READ_ALONE = Way(by_driver=False, **_READ)
WRITE_ALONE = Way(by_driver=False)
INSERT = Way(by_driver=True, mapper=_CONFIGURING | _CHANGES)
"""An INSERT instead of a flush; what else is by the driver is a matter of session and engine."""

_FLUSHES = frozenset(("before_flush", "after_flush", "after_flush_postexec"))
CHANGE = Way(
    by_driver=True,
    session=((_UNITS_OF_WORK | _ENDS) - _FLUSHES)
    | {"do_orm_execute", "loaded_as_persistent", "after_begin", "after_transaction_create", "after_transaction_end"},
    mapper=_CONFIGURING | _INSERTS,
    instances=_COPIES | {"expire", "init", "init_failure", "load", "refresh"},
)
"""An UPDATE or DELETE of rows instead of a flush; that objects of the rows are loaded then is a read's concern."""

WRITE_BY_DRIVER = Way(by_driver=True)
"""Of one row, or of many by COPY: there no event of a class or its objects is promised, but the others are."""

_OBSERVERS = ("opentelemetry.", "sentry_sdk.")
"""The packages whose listeners tell what happened, and need no transaction for it."""


def departure(session: Session, target: Engine | Connection, mapper: Mapper[Any] | None, way: Way) -> Departure | None:
    """The first reason why not to go this way; None: session, engine and class are exactly as they are known.

    ``target`` is the connection where the session has one already. Sends nothing; takes some ten microseconds.
    """
    return (
        session_departure(session, way)
        or engine_departure(target, way)
        or (None if mapper is None else mapper_departure(mapper, way))
    )


def session_departure(session: Session, way: Way) -> Departure | None:
    """As `departure`, of the session alone."""
    if has_ended(session):
        return Departure.SESSION_ENDED
    if session.info.get(_KNOWN_SIZE) != len(vars(session)) and not is_known(session):
        return Departure.SESSION_CLASS
    if session.binds or type(session.bind) not in _ENGINES:
        return Departure.SESSION_BINDS
    if session.execution_options or session.twophase or not (session.autobegin and session.autoflush):
        return Departure.SESSION_OPTIONS
    return Departure.SESSION_LISTENER if session_listened(session, way) else None


def session_listened(session: Session, way: Way) -> bool:
    """Whether something of the user's listens to what the way would leave out of a session's events."""
    if "dispatch" in vars(session):
        return _listened(session.dispatch, way.session, way)
    # Nobody has asked for the listeners of this very session yet, so it has those of its class, and no others.
    of = type(session)
    last = _CLASSES.get((of, way))
    if last is not None and last.are_the_same():
        return False
    everyone: Any = Session.dispatch
    listeners = _concerned(everyone._events.dispatch, way.session)
    collections = () if listeners is None else listeners(everyone._for_class(of))
    if _any_unknown(collections, way):
        return True
    if len(_CLASSES) >= _MAX_CLASSES:
        _CLASSES.clear()
    _CLASSES[of, way] = Seen([each for each in collections if isinstance(each, _EmptyListener)])
    return False


def engine_departure(target: Engine | Connection, way: Way) -> Departure | None:
    """As `departure`, of an engine, or of a connection whose statements the way would pass by."""
    engine = target.engine
    if type(engine) not in _ENGINES or not _ENGINE_METHODS.isdisjoint(vars(engine)) or not _dialect_is_known(engine):
        return Departure.ENGINE_CLASS
    if way.by_driver:
        if not all(map(_is_harmless_option, target.get_execution_options())) or engine.get_execution_options():
            return Departure.ENGINE_OPTIONS
        if engine.logger.isEnabledFor(logging.INFO):
            return Departure.ENGINE_LOG
    connection = target is not engine and _listened(target.dispatch, way.engine, way)
    return Departure.ENGINE_LISTENER if connection or _engine_listened(engine, way) else None


def _engine_listened(engine: Engine, way: Way) -> bool:
    """Whether anything unknown listens to an engine."""
    if _ANY_CONNECTION._has_events and _listened(_CONNECTIONS, way.engine, way):
        return True
    collections: list[Any] = []
    for where, untouched in ((engine, way.engine), (engine.dialect, way.dialect), (engine.pool, way.pool)):
        _collect(where.dispatch, untouched, collections)
    return _any_unknown_since(engine, collections, way)


def _collect(dispatch: Any, untouched: frozenset[str], collections: list[Any]) -> None:
    """Add the collections of listeners to all events but ``untouched``."""
    listeners = _concerned(dispatch._events.dispatch, untouched)
    if listeners is not None:
        collections += listeners(dispatch)


def _any_unknown_since(owner: Any, collections: list[Any], way: Way) -> bool:
    """As `_any_unknown`; what was found to be known is not looked through again."""
    seen: dict[Way, Seen] | None = vars(owner).get(_SEEN)
    if seen is None:
        seen = {}
        setattr(owner, _SEEN, seen)
    last = seen.get(way)
    if last is not None and last.still_holds(collections):
        return False
    if _any_unknown(tuple(collections), way):
        return True
    if all(isinstance(each, (_EmptyListener, _ListenerCollection)) for each in collections):
        seen[way] = Seen(collections)
    return False


class Seen:
    """Listeners to an engine that are all known, and how to see at once that there are still no others."""

    __slots__ = ("collections", "contents", "empty", "filled")

    def __init__(self, collections: list[Any]) -> None:
        self.collections = collections
        # Those to all engines, and those to this one.
        own = [*(each.parent_listeners for each in collections), *(each.listeners for each in collections)]
        self.empty = tuple(each for each in own if not each)
        self.filled = tuple(each for each in own if each)
        self.contents = tuple(map(tuple, self.filled))

    def still_holds(self, collections: list[Any]) -> bool:
        """Whether nothing was added since, or exchanged."""
        return self.collections == collections and self.are_the_same()

    def are_the_same(self) -> bool:
        """Whether nothing was added to the listeners since."""
        return not any(self.empty) and tuple(map(tuple, self.filled)) == self.contents


_SEEN = "_dotmac_seen"
"""The attribute of an engine or a mapper with what was seen. Listeners may hold it, so it must hold them itself."""

_CLASSES: dict[tuple[type, Way], Seen] = {}
"""The listeners to a class of sessions, of which an app has a few for its whole life."""

_MAX_CLASSES = 1024
"""How many classes of sessions are remembered before it is begun anew; each guarded maker has one of its own."""


def mapper_departure(mapper: Mapper[Any], way: Way) -> Departure | None:
    """As `departure`, of a mapped class alone."""
    manager = mapper.class_manager
    if type(mapper) is not Mapper or type(manager) is not ClassManager:
        return Departure.MODEL_CLASS
    collections: list[Any] = []
    _collect(mapper.dispatch, way.mapper, collections)
    _collect(manager.dispatch, way.instances, collections)
    if _concerned(_ATTRIBUTES.dispatch, way.attributes) is not None:
        for key in mapper.column_attrs.keys():  # noqa: SIM118 - it is no dict
            _collect(manager[key].dispatch, way.attributes, collections)
    return Departure.MODEL_LISTENER if _any_unknown_since(mapper, collections, way) else None


def has_ended(session: Session) -> bool:
    """Whether the session was closed for good (``close_resets_only=False``)."""
    return session._close_state is _SessionCloseState.CLOSED


def is_internal(listener: Any) -> bool:
    """Whether a listener is the toolkit's, which knows the ways that pass it by, or SQLAlchemy's own."""
    return getattr(listener, "dotmac_internal", False) is True or _is_by_origin(listener)


def _is_by_origin(listener: Any) -> bool:
    """Whether a listener is the guard's, or one that SQLAlchemy registers with every engine or class."""
    if not isinstance(listener, FunctionType):
        return False
    inner = _unwrapped(listener)
    where = getattr(inner, "__module__", None) or ""
    if (
        # The guard's look at what is not a repository's, and remember what happens to transactions.
        where.startswith("dotmac_database.tenancy.")
        or getattr(inner, "dotmac_internal", False) is True
        or (where, getattr(inner, "__qualname__", "")) in _SQLALCHEMYS
    ):
        listener.dotmac_internal = True  # type: ignore[attr-defined]  # found out once for each
        return True
    return False


_SQLALCHEMYS = frozenset(
    (
        ("sqlalchemy.engine.create", "create_engine.<locals>.on_connect"),
        ("sqlalchemy.engine.create", "create_engine.<locals>.first_connect"),
        ("sqlalchemy.orm.mapper", "_event_on_init"),
    )
)


def _only_looks_on(listener: Any) -> bool:
    """Whether a listener is marked as one that sends nothing, or belongs to a tracer that is known."""
    inner = _unwrapped(listener)
    marked = getattr(inner, "dotmac_observes", False) is True
    return marked or (getattr(inner, "__module__", None) or "").startswith(_OBSERVERS)


def _unwrapped(listener: Any) -> Any:
    """The function that SQLAlchemy was given to call, without what it puts around some of them."""
    while isinstance(listener, FunctionType) and listener.__module__.startswith("sqlalchemy.") and listener.__closure__:
        around = dict(zip(listener.__code__.co_freevars, listener.__closure__, strict=True))
        cell = around.get("orig_fn") or around.get("fn")
        if cell is None:
            break
        listener = cell.cell_contents
    return listener


def _listened(dispatch: Any, untouched: frozenset[str], way: Way) -> bool:
    """Whether anything but a known listener is called for an event that is not one of ``untouched``."""
    listeners = _concerned(dispatch._events.dispatch, untouched)
    return listeners is not None and _any_unknown(listeners(dispatch), way)


def _any_unknown(collections: tuple[Any, ...], way: Way) -> bool:
    for collection in filter(None, collections):
        for listener in collection:
            if not (is_internal(listener) or (not way.by_driver and _only_looks_on(listener))):
                return True
    return False


@cache
def _concerned(dispatch: Any, untouched: frozenset[str]) -> Callable[[Any], tuple[Any, ...]] | None:
    """What gets the listeners of all events but ``untouched``, whatever events this version of SQLAlchemy has.

    None: there are no others.
    """
    names = [name for name in dispatch._event_names if name not in untouched]
    if not names:
        return None
    # One name alone would not give a tuple.
    return attrgetter(*names) if len(names) > 1 else lambda target: (getattr(target, names[0]),)


_KNOWN_SIZE = "dotmac_database.known"
"""How many attributes a session had when it was found to be known: to replace a method of it is to add one."""


def is_known(session: Session) -> bool:
    """Whether the session, and the `AsyncSession` in front of it, have SQLAlchemy's own methods and no others."""
    if not _has_own_methods(type(session)) or not _SESSION_METHODS.isdisjoint(vars(session)):
        return False
    outer = async_session(session)
    if outer is not None and not (_has_own_methods(type(outer)) and _ASYNC_METHODS.isdisjoint(vars(outer))):
        return False
    session.info[_KNOWN_SIZE] = len(vars(session))
    return True


def _methods(of: type) -> frozenset[str]:
    return frozenset(name for name in dir(of) if not name.startswith("__") and _is_code(getattr(of, name)))


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property)


_SESSION_METHODS = _methods(Session)
_ASYNC_METHODS = _methods(AsyncSession) - {"sync_session_class"}
_SPECIAL = ("__getattribute__", "__setattr__", "__new__")
_OWN: dict[type, tuple[Callable[[Any], Any], Any]] = {
    base: (getter, getter(base))
    for base, names in ((Session, _SESSION_METHODS), (AsyncSession, _ASYNC_METHODS))
    for getter in (attrgetter(*sorted(names)),)
}
"""What gets a class's methods, and those that SQLAlchemy's own class had when this was imported."""

_MAIN: Any = attrgetter("execute", "scalars", "scalar", "connection", "get_bind", "flush", "commit", "rollback", "add",
                        "get", "refresh", "close", "begin", "begin_nested", "__getattribute__")  # fmt: skip
"""What gets the methods that are looked at again for each session, since a class can be patched later."""

_KNOWN: dict[type, Any] = {}
"""The main methods that a class had when it was found to be known; None: it is not."""

_OURS = frozenset(
    (
        ("sqlmodel.orm.session", "Session"),
        ("sqlmodel.ext.asyncio.session", "AsyncSession"),
        ("dotmac_database.tenancy.guard", "_guarded_class.<locals>.GuardedSession"),
    )
)
"""Subclasses whose methods add nothing that a repository's statements could miss."""


def _has_own_methods(of: type) -> bool:
    known = _KNOWN.get(of, of)
    if known is of:
        if len(_KNOWN) >= _MAX_CLASSES:
            _KNOWN.clear()
        known = _KNOWN[of] = _known_methods(of)
    return known is not None and _MAIN(of) == known


def _known_methods(of: type) -> Any:
    base = AsyncSession if issubclass(of, AsyncSession) else Session
    getter, own = _OWN[base]
    if getter(base) != own:
        return None
    names = {*(_ASYNC_METHODS if base is AsyncSession else _SESSION_METHODS), *_SPECIAL, "__getattr__"}
    for each in of.__mro__[: of.__mro__.index(base)]:
        if (each.__module__, each.__qualname__) in _OURS:
            continue
        if any(value is not vars(base).get(name) for name, value in vars(each).items() if name in names):
            return None
    return _MAIN(of)


_ANY_CONNECTION: Any = Connection
_ATTRIBUTES: Any = AttributeEvents
_ENGINES = (Engine, OptionEngine)
_ENGINE_METHODS = _methods(Engine)
_CONNECTIONS: Any = getattr(Connection.dispatch, "_for_class")(Connection)  # noqa: B009 - it is typed for instances
"""The listeners to all connections."""


def _is_harmless_option(name: str) -> bool:
    """Whether an execution option of a connection, the guard's among them, says nothing of how statements are run."""
    return name == "isolation_level" or name.startswith("dotmac_")


_DIALECT_METHODS = frozenset(name for name in _methods(DefaultDialect) if not name.startswith("_"))
"""The public ones; SQLAlchemy keeps the results of others under their names."""
_DIALECTS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""How many attributes a dialect had when it was found to be SQLAlchemy's own: to replace a method is to add one."""


def _dialect_is_known(engine: Engine) -> bool:
    dialect: Any = engine.dialect
    size = len(vars(dialect))
    if _DIALECTS.get(dialect) == size:
        return True
    own = all(each.__module__.startswith("sqlalchemy.") for each in type(dialect).__mro__[:-1])
    if not own or not _DIALECT_METHODS.isdisjoint(vars(dialect)):
        return False
    _DIALECTS[dialect] = size
    return True
