"""The private names of SQLAlchemy that the toolkit reads or calls, except those in three other files.

These are: `dialects.driver_internals` uses those of the drivers and of
SQLAlchemy's adapters for them, and `tenancy.guard.compiler` and `tenancy.guard.fragments` override methods of
SQLAlchemy's compilers. ``tests/unit/test_internals.py`` fails if another file uses a private name, or if an upgrade has
removed one of these names, and says which one.

If a name that only a shortcut needs is missing at run time, the shortcut is off: `absent` finds it, one warning is
logged, and every statement is sent in SQLAlchemy's ordinary way.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, Insert, NestedTransaction, Select, String, TextClause
from sqlalchemy import inspect as inspect_mapped
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.event import attr as event_attributes
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    ORMExecuteState,
    PassiveFlag,
    Session,
    SessionTransaction,
    WriteOnlyCollection,
    attributes,
    decl_base,
    defer,
)
from sqlalchemy.orm import session as sessions
from sqlalchemy.orm.mapper import _all_registries
from sqlalchemy.pool import Pool, QueuePool, _ConnectionFairy
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql import util as sql_util
from sqlalchemy.sql.compiler import IdentifierPreparer, ResultColumnsEntry, SQLCompiler
from sqlalchemy.types import TypeEngine
from sqlalchemy.util.queue import AsyncAdaptedQueue

M = TypeVar("M")
E = TypeVar("E", bound=ClauseElement)
L = TypeVar("L")
IdentityKey: TypeAlias = tuple[type, tuple[object, ...], object]

_log = logging.getLogger(__name__)

_CLOSE_STATE: type[sessions._SessionCloseState] | None = getattr(sessions, "_SessionCloseState", None)

DEFAULT_CONSTRUCTOR: Callable[..., None] | None = getattr(decl_base, "_declarative_constructor", None)
"""The constructor that SQLAlchemy gives to a declarative class without one."""

ONCE = "only_once.<locals>.go"
"""The qualified name of a listener that SQLAlchemy calls only once."""


# Events: which listeners are registered, without calling any.


class EventListeners(Protocol):
    """The listeners to one event of an object: an `EmptyListener` or a `ListenerCollection`."""

    parent_listeners: Collection[object]
    listeners: Collection[object]

    def __bool__(self) -> bool: ...
    def __iter__(self) -> Iterator[object]: ...


EmptyListener: type[EventListeners] = getattr(event_attributes, "_EmptyListener", None)  # type: ignore[assignment]  # if it is None, all shortcuts are off
ListenerCollection: type[EventListeners] = getattr(event_attributes, "_ListenerCollection", None)  # type: ignore[assignment]  # as above


JoinedListener: Any = getattr(event_attributes, "_JoinedListener", None)
"""The listeners to one event of a connection (``local``) together with those of its engine."""


def events_of(dispatch: Any) -> object:
    """The dispatcher of all events of the same kind as ``dispatch``, such as session events. See `event_names`."""
    return dispatch._events.dispatch


def event_names(dispatch: Any) -> Sequence[str]:
    """The names of all events that this version of SQLAlchemy has for a dispatcher that `events_of` returned."""
    names: Sequence[str] = dispatch._event_names
    return names


def listeners_to_class(owner: Any, of: type) -> object:
    """The listeners to all objects of the class ``of``. ``owner`` is SQLAlchemy's class that defines the events."""
    return owner.dispatch._for_class(of)


def has_connection_listeners() -> bool:
    """Whether a listener to all connections was ever registered. It stays True after the listener is removed."""
    return bool(Connection._has_events)


# Sessions and their transactions.


def has_ended(session: Session) -> bool:
    """Whether the session was closed for good (``close_resets_only=False``)."""
    return _CLOSE_STATE is not None and session._close_state is _CLOSE_STATE.CLOSED


def close_for_good(session: Session) -> bool:
    """Mark a session as closed for good if it was made with ``close_resets_only=False``, and return whether it was."""
    if _CLOSE_STATE is None or session._close_state is not _CLOSE_STATE.ACTIVE:
        return False
    session._close_state = _CLOSE_STATE.CLOSED
    return True


def autobegin(session: Session) -> None:
    """Begin the session's transaction as its first statement would, without sending anything."""
    session._autobegin_t()


def has_nothing_to_flush(session: Session) -> bool:
    """Whether a flush would do nothing, or a flush is already running."""
    return session._flushing or session._is_clean()


def begin_nested_unflushed(session: Session) -> SessionTransaction:
    """As `Session.begin_nested`, without its flush, so that a failed flush can be undone by this savepoint."""
    session._flushing = True
    try:
        return session.begin_nested()
    finally:
        session._flushing = False


def note_inserted(session: Session, states: Iterable[InstanceState[M]]) -> None:
    """Let a rollback of the session's innermost transaction make these objects transient, as it does after a flush."""
    transaction: Any = session.get_nested_transaction() or session.get_transaction()
    transaction._new.update(dict.fromkeys(states, True))


def remove_deleted(session: Session, states: Sequence[InstanceState[M]]) -> None:
    """Remove objects from the session because their rows were deleted. A rollback brings them back."""
    session._remove_newly_deleted(states)


def savepoint_name(transaction: NestedTransaction) -> str:
    """The name of the savepoint of a connection's nested transaction."""
    return transaction._savepoint


def bind_async_session(outer: AsyncSession, session: Session) -> None:
    """Make ``session`` the sync session of an `AsyncSession` that was created without ``__init__``."""
    outer.sync_session = outer._proxied = outer._assign_proxied(session)


# Mapped classes and their objects.


def all_mappers() -> list[Mapper[Any]]:
    """The mappers of all registries of the process."""
    # `registry.mappers` raises if the mapping of one class has failed.
    managers = (manager for registry in _all_registries() for manager in list(registry._managers))
    return [manager.mapper for manager in managers if manager.is_mapped]


def identity_class(mapper: Mapper[M]) -> type:
    """The class that is part of the identity key of a mapper's objects."""
    return mapper._identity_class


def identity_adder(session: Session) -> Callable[[InstanceState[Any], IdentityKey], None]:
    """The function that adds an object to the session's identity map. The map must not have its key already."""
    return session.identity_map._add_unpresent


def unload(state: InstanceState[M], values: dict[str, object], name: str) -> None:
    """Unload an attribute of an object, so that its next use loads it."""
    state._reset(values, name)


def replace_loader(state: InstanceState[M], name: str, load: Callable[[Any, Any], object]) -> None:
    """Unload an attribute of an object, and call ``load(state, passive)`` when it is read."""
    state._reset(state.dict, name)
    if "callables" not in vars(state):
        state.callables = {}
    state.callables[name] = load


def wrap_loader(mapper: Mapper[Any], name: str, wrapped: Callable[[Any], Callable[[Any, Any], object]]) -> None:
    """Let ``wrapped(load)`` load a relationship of a class's objects in place of ``load``, which loads it now."""
    impl: Any = mapper.class_manager[name].impl
    if getattr(impl, "callable_", None) is not None:
        impl.callable_ = wrapped(impl.callable_)


def rule_collection(mapper: Mapper[Any], name: str, extended: Callable[[object, Any], Any]) -> None:
    """Extend the statements of a ``dynamic`` or ``write_only`` relationship of a class's objects.

    ``extended(entity, statement)`` returns the statement that is sent instead: a `Query` or a `Select`, or an `Update`
    or `Delete` of a ``write_only`` relationship. A flush sends its own statements.
    """
    impl: Any = mapper.class_manager[name].impl
    base: Any = impl.query_class

    def extending(method: str) -> Callable[..., Any]:
        original = getattr(base, method)

        def extend(self: Any, *args: Any) -> Any:
            return extended(self.instance, original(self, *args))

        return extend

    if issubclass(base, WriteOnlyCollection):
        methods = {method: extending(method) for method in ("select", "insert", "update", "delete")}
        impl.query_class = type(base.__name__, (base,), {"__slots__": (), **methods})
        return

    def by_query(method: str) -> Callable[..., Any]:
        return lambda self, *args, **options: getattr(self._generate(), method)(*args, **options)

    methods = {"_generate": extending("_generate"), "update": by_query("update"), "delete": by_query("delete")}
    impl.query_class = type(base.__name__, (base,), methods)


def accept(state: InstanceState[M], values: dict[str, object], keys: Sequence[str]) -> None:
    """Mark these attributes of an object as unchanged: their values are those of the database."""
    state._commit(values, keys)


def accept_all(state: InstanceState[M], values: dict[str, object], session: Session) -> None:
    """Mark an object as unchanged: all its values are those of the database."""
    state._commit_all(values, session.identity_map)


# Statements.


_HIDDEN = "dotmac_hidden"
"""The execution option of a statement whose options only leave out columns: these options, and the columns."""


def hide_columns(statement: E, attributes: Mapping[str, Any]) -> E:
    """The statement of a mapped class without the columns of these attributes, by key. `hidden_columns` returns them.

    The objects have the other columns only.
    """
    whole: Any = statement
    deferred: Any = whole.options(*map(defer, attributes.values()))
    if not whole._with_options:
        deferred = deferred.execution_options(**{_HIDDEN: (deferred._with_options, frozenset(attributes))})
    return deferred  # type: ignore[no-any-return]  # a statement of the same class


def hidden_columns(statement: Executable) -> frozenset[str] | None:
    """The attributes that a statement leaves out; empty: it leaves out none.

    None: it has other options, such as the loading of relationships.
    """
    options = statement._with_options
    if not options:
        return frozenset()
    mark, hidden = statement.get_execution_options().get(_HIDDEN, (None, None))
    return hidden if mark is options else None


def annotations_of(element: object) -> Mapping[str, Any]:
    """The annotations of an element of a statement, such as the entity of a column."""
    return getattr(element, "_annotations", None) or {}


def without_annotations(element: Any) -> Any:
    """The element without the ORM's annotations, for example the `Table` itself."""
    return element._deannotate() if getattr(element, "_annotations", None) else element


def annotated_deeply(element: E, marks: Mapping[str, object]) -> E:
    """A condition with annotations on all its parts, as `with_loader_criteria` makes it."""
    return sql_util._deep_annotate(element, marks, detect_subquery_cols=True, ind_cols_on_fromclause=True)


def criteria_around(compile_state: Any) -> Collection[object]:
    """The options whose criteria contain the SELECT that is being compiled."""
    around: Collection[object] | None = getattr(compile_state, "_containing_loader_criteria", None)
    if around is not None:
        return around
    mark = annotations_of(compile_state.select_statement).get("for_loader_criteria")
    return () if mark is None else (mark,)


def on_alias(condition: E, alias: object) -> E:
    """A condition on a mapped class as a condition on an alias of it."""
    adapted: E = inspect_mapped(alias)._adapter.traverse(condition)
    return adapted


def clone(statement: Any) -> Any:
    """A shallow copy of a statement."""
    return statement._clone()


def order_clauses(statement: Select[Any]) -> Sequence[ClauseElement]:
    """The clauses of ORDER BY."""
    return statement._order_by_clauses


def is_grouped(statement: Select[Any]) -> bool:
    """Whether a SELECT has GROUP BY or DISTINCT."""
    return bool(statement._group_by_clauses or statement._distinct)


def has_parameters(text: TextClause) -> bool:
    """Whether a `text` has bound parameters."""
    return bool(text._bindparams)


def values_of(statement: ClauseElement) -> Mapping[Any, object]:
    """The values of an INSERT or UPDATE with one set of values, by column. A DELETE has none."""
    return getattr(statement, "_values", None) or {}


def values_of_rows(statement: Insert) -> Sequence[Sequence[object]]:
    """The rows of an INSERT with several rows in VALUES: one sequence of rows for each call of ``values()``."""
    return statement._multi_values


def selected_names(statement: Insert) -> Sequence[object]:
    """The columns of an INSERT … SELECT."""
    return statement._select_names or ()


def conflict_clause(statement: Insert) -> Any:
    """The ON CONFLICT clause of an INSERT, or None."""
    return getattr(statement, "_post_values_clause", None)


def set_conflict_clause(statement: Insert, clause: ClauseElement) -> None:
    """Replace the ON CONFLICT clause of an INSERT, which should be a `clone`."""
    statement._post_values_clause = clause


def result_columns(compiled: SQLCompiler) -> Sequence[ResultColumnsEntry]:
    """The columns of a compiled statement's rows, each with its ``objects`` and ``type``."""
    return compiled._result_columns


def is_text(type_: TypeEngine[Any]) -> bool:
    """Whether a type stores texts, such as a `String`, or a `TypeDecorator` of one."""
    return type_._type_affinity is String


def forget_result_columns(compiler: Any) -> None:
    """Remove the result columns of the inner statement from a compiled EXPLAIN, whose result has other columns."""
    compiler._result_columns = []


def execution_context(
    connection: Connection, compiled: SQLCompiler, parameters: Mapping[str, object], statement: Executable
) -> Any:
    """The execution context that SQLAlchemy makes to execute a compiled statement; it has the cursor and parameters."""
    dialect: Any = connection.dialect
    options = connection.get_execution_options()
    return dialect.execution_ctx_cls._init_compiled(
        dialect, connection, connection.connection, options, compiled, [parameters], statement, None
    )


def raise_as_statement_error(
    connection: Connection, error: BaseException, sql: str, parameters: Any, context: Any
) -> None:
    """Raise a DBAPI error as `Connection.execute` raises it, after the listeners of the engine were called."""
    connection._handle_dbapi_exception(error, sql, parameters, context.cursor, context)


def forget_cached_metadata(compiled: Any) -> None:
    """Remove what a compiled statement caches of the types of its rows."""
    compiled._cached_metadata = None


# Engines.


def remove_once_listeners(pool: Pool) -> None:
    """Remove a pool's ``connect`` listeners that SQLAlchemy calls only once, for the first connection.

    One of them initializes the dialect. `Pool.recreate` gives it to the new pool too, but each pool has a lock of its
    own for its first connection. So if the new pool connects first, the other pool lets a connection be used before the
    dialect is initialized.
    """
    listeners: Any = getattr(pool.dispatch.connect, "listeners", ())
    for listener in [each for each in listeners if getattr(each, "__qualname__", "") == ONCE]:
        listeners.remove(listener)


def is_pooled(connection: object) -> bool:
    """Whether a DBAPI connection comes from a pool, as all do except the first of a new dialect."""
    return isinstance(connection, _ConnectionFairy)


def max_overflow(pool: QueuePool) -> int:
    """How many connections a pool may open beyond its size. A negative number means that there is no limit."""
    return pool._max_overflow


def waiting_for(pool: QueuePool) -> int:
    """How many calls wait for a connection of a pool. A call that waits in another event loop counts too."""
    queue: Any = pool._pool
    is_async = isinstance(pool._pool, AsyncAdaptedQueue)
    return len(queue._queue._getters if is_async else queue.not_empty._waiters)


def raise_as_connect_error(error: BaseException, engine: Engine) -> None:
    """Raise a driver's error as `Engine.connect` raises it, after the listeners of the engine were called."""
    Connection._handle_dbapi_exception_noconnection(error, engine.dialect, engine)


def doubles_percents(preparer: IdentifierPreparer) -> bool:
    """Whether a dialect doubles percent signs in quoted names."""
    return bool(preparer._double_percents)


class AttributeLoad(NamedTuple):
    """A lazy load that the use of an attribute causes."""

    state: InstanceState[object]
    key: str


_LOADS_BY_METHODS = frozenset(
    method.__code__ for method in (Session.flush, Session.merge, Session.delete, Session.refresh)
)
"""The methods of sessions that load attributes because they need them."""


_LOADS_ATTRIBUTE = attributes._AttributeImpl._fire_loader_callables.__code__


def attribute_load() -> AttributeLoad | None:
    """The load of an attribute during which this function is called.

    None: there is no such load, or the caller of SQLAlchemy did not use the attribute itself. It called a method of the
    session, or is the toolkit.
    """
    load: AttributeLoad | None = None
    frame = inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if frame.f_code is _LOADS_ATTRIBUTE:
            if frame.f_locals["passive"] & PassiveFlag.NO_RAISE:
                return None  # SQLAlchemy's own raiseload() would not refuse it
            load = AttributeLoad(frame.f_locals["state"], frame.f_locals["key"])
        elif frame.f_code in _LOADS_BY_METHODS:
            return None
        elif load is not None and not module.startswith("sqlalchemy."):
            return None if module.startswith("dotmac_database.") else load
        frame = frame.f_back
    return load


def loading_attribute() -> str | None:
    """The attribute whose use, by whatever code, causes the load during which this function is called."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is _LOADS_ATTRIBUTE:
            key: str = frame.f_locals["key"]
            return key
        frame = frame.f_back
    return None


_REFRESHES, _NEEDS_ALL = Session.refresh.__code__, _LOADS_BY_METHODS - {Session.refresh.__code__}


def refreshed_names() -> frozenset[str] | None:
    """The attributes that the call of `Session.refresh` names that called this function; empty: all columns.

    None: nothing called `Session.refresh`, or a flush or a cascade did.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in _NEEDS_ALL:
        if frame.f_code is _REFRESHES:
            return frozenset(frame.f_locals["attribute_names"] or ())
        frame = frame.f_back
    return None


def after_rows(context: Any, key: object, make: Callable[[], L]) -> L:
    """What a statement's context keeps under ``key``; if there is nothing yet, ``make()``.

    Its method ``invoke(context, path)`` is called when the rows are read, as the loaders of relationships are.
    """
    present: L = context.post_load_paths.get(key)
    if present is None:
        present = context.post_load_paths[key] = make()
    return present


def refreshed_state(execution: ORMExecuteState) -> InstanceState[object] | None:
    """The object whose columns the statement loads; None: it is no load of an object's columns."""
    state: InstanceState[object] | None = getattr(execution.load_options, "_refresh_state", None)
    return state


@dataclass(frozen=True, slots=True)
class Internal:
    """A private name that a shortcut needs.

    ``owner()`` is the object that has the name. ``reason`` says what the name does, as a part of a sentence. ``seen``
    is a version that has it.
    """

    name: str
    owner: Callable[[], object]
    reason: str
    seen: str


SHORTCUTS: tuple[Internal, ...] = (
    Internal("_EmptyListener", lambda: event_attributes, "shows that an event has no listeners", "1.4"),
    Internal("_ListenerCollection", lambda: event_attributes, "holds the listeners to an event of an object", "1.4"),
    Internal("_JoinedListener", lambda: event_attributes, "holds the listeners to an event of a connection", "0.8"),
    Internal("_events", lambda: Session.dispatch, "leads to the family of events of a dispatcher", "0.8"),
    Internal("_event_names", lambda: events_of(Session.dispatch), "names the events that this version has", "1.1"),
    Internal("_for_class", lambda: Session.dispatch, "holds the listeners to all sessions of a class", "0.9"),
    Internal("_has_events", lambda: Connection, "shows whether connections have listeners", "0.7"),
    Internal("_init_compiled", lambda: DefaultExecutionContext, "makes what listeners to statements get", "1.4"),
    Internal("_handle_dbapi_exception", lambda: Connection, "calls the listeners to errors", "0.6"),
    Internal("_close_state", Session, "shows whether a session was closed for good", "2.0.22"),
    Internal("_SessionCloseState", lambda: sessions, "has the values of _close_state", "2.0.22"),
    Internal("_declarative_constructor", lambda: decl_base, "shows whether a class has a constructor", "1.0"),
)
"""The names that every shortcut needs: without them `departures` could not check what a shortcut leaves out."""


def absent(names: Iterable[Internal]) -> str | None:
    """The first of these names that the installed versions don't have, after a warning in the log. None: all exist."""
    for internal in names:
        try:
            getattr(internal.owner(), internal.name)
        except AttributeError:
            _log.warning(
                "The installed versions have no %s, which %s. Statements are sent in the ordinary, slower way.",
                internal.name,
                internal.reason,
            )
            return internal.name
    return None
