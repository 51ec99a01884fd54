"""Observers of the statements of this process, by both ways: SQLAlchemy's execution, and the driver alone.

An observer sees each statement exactly once: after it has ended (`attach`, for one engine), or before it is sent
(`attach_everywhere`, for all engines). The places that send statements call `observe` only if `OBSERVED` is not empty,
so that nobody pays for observers that do not exist. BEGIN, COMMIT, savepoints and settings are not observed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from time import perf_counter
from typing import Any, TypeAlias

from sqlalchemy import Connection, Dialect, Engine, ExceptionContext, event

_log = logging.getLogger(__name__)

_OBSERVERS = "_dotmac_observers"
"""The attribute of a dialect with the observers of its engine's statements. Each engine has a dialect of its own."""

_STATEMENT = "dotmac_statement"
"""The attribute of SQLAlchemy's execution context with the `Statement` that it is sending."""

_SETTINGS = ("SELECT set_config(", "SELECT pg_catalog.set_config(")
_CONTROL = frozenset(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "START", "END", "SET", "RESET", "PRAGMA"))


class Statement:
    """One statement that is being sent, or was sent.

    ``sql`` is its text with placeholders. ``source`` is SQLAlchemy's construct, such as a `Select`; None: text, or the
    driver sends it for a repository. ``seconds`` and ``error`` are known once it has ended; ``error`` None: it has
    succeeded.
    """

    __slots__ = ("_observers", "dialect", "error", "seconds", "source", "sql", "started")

    def __init__(self, sql: str, dialect: Dialect, source: object, observers: tuple[Observer, ...]) -> None:
        self.sql = sql
        self.dialect = dialect
        self.source = source
        self.seconds = 0.0
        self.error: BaseException | None = None
        self._observers = observers
        self.started = perf_counter()
        """From when on the time is measured. What came before, such as a savepoint, is not part of the statement."""

    def end(self, error: BaseException | None = None) -> None:
        """Note that the database has answered, or that the statement has failed, and call the observers."""
        self.seconds = perf_counter() - self.started
        self.error = error
        for observer in self._observers:
            try:
                observer(self)
            except Exception:  # noqa: BLE001 - a failing observer must not affect the statement
                _log.exception("An observer of statements failed")


Observer: TypeAlias = Callable[[Statement], None]
"""Gets each statement, in the thread or greenlet that sends it.

An exception of an observer that is called before a statement keeps that from being sent, and leaves unchanged. One that
is raised after it is logged and suppressed.
"""


OBSERVED: list[Observer] = []
"""All observers of this process. While it is empty, no statement is observed."""

_EVERYWHERE: tuple[Observer, ...] = ()
"""The observers of all engines, each once. It is replaced, since threads may be calling them."""

_attached: Counter[Observer] = Counter()
"""How often each of them is attached."""

_lock = Lock()
_listening = False


def attach(engine: Engine, observer: Observer) -> Callable[[], None]:
    """Call ``observer`` after each statement of one engine. Returns a function that ends this."""
    with _lock:
        _listen()
        dialect = engine.dialect
        setattr(dialect, _OBSERVERS, (*vars(dialect).get(_OBSERVERS, ()), observer))
        OBSERVED.append(observer)

    def detach() -> None:
        with _lock:
            remaining = tuple([each for each in vars(dialect)[_OBSERVERS] if each != observer])
            setattr(dialect, _OBSERVERS, remaining)
            OBSERVED.remove(observer)

    return detach


def attach_everywhere(observer: Observer) -> None:
    """Call ``observer`` before each statement of all engines, until `detach_everywhere` is called as often as this.

    It is called once for each statement, however often it is attached.
    """
    global _EVERYWHERE  # noqa: PLW0603 - the observers belong to the process
    with _lock:
        _listen()
        _attached[observer] += 1
        if _attached[observer] == 1:
            _EVERYWHERE = (*_EVERYWHERE, observer)
            OBSERVED.append(observer)


def detach_everywhere(observer: Observer) -> None:
    """End what one call of `attach_everywhere` has begun."""
    global _EVERYWHERE  # noqa: PLW0603 - as above
    with _lock:
        _attached[observer] -= 1
        if not _attached[observer]:
            del _attached[observer]
            _EVERYWHERE = tuple([each for each in _EVERYWHERE if each != observer])
            OBSERVED.remove(observer)


def observe(dialect: Dialect, sql: str, source: object = None) -> Statement | None:
    """The record of a statement that is sent now; None: nobody observes it. Call its ``end`` when it has ended."""
    observers: tuple[Observer, ...] = vars(dialect).get(_OBSERVERS, ())
    everywhere = _EVERYWHERE
    if not (observers or everywhere) or _is_control(sql):
        return None
    statement = Statement(sql, dialect, source, observers)
    for observer in everywhere:
        observer(statement)
    return statement


@lru_cache(maxsize=512)
def _is_control(sql: str) -> bool:
    """Whether a statement only controls the transaction or the connection."""
    word = sql[:10].split(maxsplit=1)
    return bool(word) and (word[0].rstrip(";").upper() in _CONTROL or sql.startswith(_SETTINGS))


def _listen() -> None:
    """Listen to the statements of all engines, once. The listeners are never removed.

    Another thread may be calling the listeners of an engine, and SQLAlchemy does not lock them.
    """
    global _listening  # noqa: PLW0603 - the listeners belong to the process
    if not _listening:
        _listening = True
        event.listen(Engine, "before_cursor_execute", _before)
        event.listen(Engine, "after_cursor_execute", _after)
        event.listen(Engine, "handle_error", _failed)


def _before(connection: Connection, _cursor: object, sql: str, _parameters: object, context: Any, _many: bool) -> None:
    if OBSERVED:
        source = None if context.compiled is None else context.compiled.statement
        setattr(context, _STATEMENT, observe(connection.dialect, sql, source))


def _after(_connection: Connection, _cursor: object, _sql: str, _parameters: object, context: Any, _many: bool) -> None:
    _end(context, None)


def _failed(failure: ExceptionContext) -> None:
    # The error of a statement that the driver has sent has a context too, but no record.
    if failure.execution_context is not None:
        _end(failure.execution_context, failure.original_exception)


def _end(context: object, error: BaseException | None) -> None:
    statement: Statement | None = vars(context).pop(_STATEMENT, None)
    if statement is not None:
        statement.end(error)


_listener: Any
for _listener in (_before, _after, _failed):
    _listener.dotmac_internal = True  # see `dotmac_database.departures`
