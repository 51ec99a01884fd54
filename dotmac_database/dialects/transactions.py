"""The differences between the databases in transactions: BEGIN, failed transactions, and busy connections."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, ExceptionContext, event
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from .driver_internals import is_executing
from .drivers import Pooled, driver_of, link_of
from .savepoints import forget_savepoints, note_savepoint, note_savepoint_ended
from .settings import doubt_announced, forget_announced
from .sqlite_functions import register_functions
from .stale_plans import watch_plans

ABORTED = "dotmac_database.aborted"
"""The key that a pooled connection's ``info`` has if a statement has failed in its transaction, and was not undone."""
_EQUIPPED = "dotmac_database.equipped"
CHANGES_AT_BEGIN = "dotmac_database.changes"
CANCEL_TIMEOUT = 2.0
"""How long sending a cancellation request to the server may take, in seconds."""
BUSY = "dotmac_database.busy"
"""The key that a pooled connection's ``info`` has while the driver runs a statement that SQLAlchemy does not see."""
_WATCHED = "_dotmac_watched"
"""The attribute of an engine that has the toolkit's listeners."""
BEFORE_UNDO: ContextVar[Callable[[], None] | None] = ContextVar("dotmac_database_before_undo", default=None)
"""A function to call after a statement has failed, and before SQLAlchemy rolls back because of that."""


def ensure_begun(connection: Connection) -> None:
    """Begin a transaction of SQLite before a savepoint, if BEGIN was not sent yet.

    Outside of a transaction, the RELEASE of a savepoint would commit: https://www.sqlite.org/lang_savepoint.html
    """
    if connection.dialect.name != "sqlite" or connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    driver: Any = connection.connection.driver_connection
    if driver is not None and not driver.in_transaction:
        send_begin(connection)


def send_begin(connection: Connection) -> None:
    """Send BEGIN to SQLite by the driver: SQLAlchemy's execution costs more than twice as much."""
    _send(connection, "BEGIN")


def end_snapshot(connection: Connection) -> None:
    """Begin SQLite's transaction anew if it has only read. Other databases need nothing of the kind.

    A transaction that has read sees the database as it was then. It can't write any more once another transaction has:
    https://www.sqlite.org/rescode.html#busy_snapshot. One that begins with a write waits for the other one instead.
    """
    if connection.dialect.name != "sqlite" or connection.invalidated:
        return
    driver: Any = connection.connection.driver_connection
    before = connection.info.get(CHANGES_AT_BEGIN)
    if driver.in_transaction and before is not None and before == total_changes(connection):
        _send(connection, "ROLLBACK")
        _send(connection, "BEGIN")


def _send(connection: Connection, command: str) -> None:
    driver, pooled = driver_of(connection.dialect), connection.connection
    if driver is None:
        connection.exec_driver_sql(command)
        return
    try:
        driver.run(link_of(pooled), command)
    except (connection.dialect.loaded_dbapi.Error, ValueError):  # a ValueError is aiosqlite's, for a closed connection
        connection.exec_driver_sql(command)  # which fails too, with SQLAlchemy's error


def _begin_first(connection: Connection, *_: Any) -> None:
    ensure_begun(connection)


def watch(bind: Engine | Connection | None) -> None:
    """Add the toolkit's listeners to an engine, once.

    On SQLite they install the functions, note at BEGIN how many rows the connection has changed, and send BEGIN before
    a savepoint. On PostgreSQL they note failed transactions, and send statements with stale plans again. On both they
    call `BEFORE_UNDO` if a statement fails.
    """
    if bind is None:
        return
    engine = bind.engine
    if _WATCHED in vars(engine):
        return
    setattr(engine, _WATCHED, True)
    event.listen(engine, "handle_error", _before_undo)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "engine_connect", _equip)
        event.listen(engine, "begin", _count_changes)
        event.listen(engine, "savepoint", _begin_first)
        event.listen(engine, "rollback_savepoint", _clear_savepoint)
        event.listen(engine, "rollback", _clear)
        event.listen(engine, "begin", _clear)
        return
    watch_plans(engine)
    event.listen(engine, "handle_error", _mark)
    event.listen(engine, "rollback", _clear)
    event.listen(engine, "begin", _clear)
    event.listen(engine, "rollback_savepoint", _clear_savepoint)
    event.listen(engine, "savepoint", note_savepoint)
    event.listen(engine, "release_savepoint", note_savepoint_ended)
    event.listen(engine, "rollback_savepoint", note_savepoint_ended)


def equip(session: Session) -> None:
    """Install the toolkit's SQLite functions if the session is bound to a Connection.

    That Connection may have been opened before `watch` was called, and then it does not have them yet.
    """
    if isinstance(session.bind, Connection) and session.bind.dialect.name == "sqlite":
        _equip(session.bind)


def _equip(connection: Connection) -> None:
    equip_pooled(connection.dialect, connection.connection)


def equip_pooled(dialect: Dialect, pooled: Pooled) -> None:
    """Install the toolkit's SQLite functions on a pooled connection, once."""
    if dialect.name == "sqlite" and not pooled.info.get(_EQUIPPED):
        register_functions(pooled.dbapi_connection)
        pooled.info[_EQUIPPED] = True


def _count_changes(connection: Connection) -> None:
    connection.info[CHANGES_AT_BEGIN] = total_changes(connection)


def total_changes(connection: Connection) -> int | None:
    """The number of rows that SQLite's connection has changed since it was opened; None on other databases."""
    return getattr(connection.connection.driver_connection, "total_changes", None)


def _before_undo(_context: ExceptionContext) -> None:
    callback = BEFORE_UNDO.get()
    if callback is not None:
        callback()


def _mark(context: ExceptionContext) -> None:
    # If a listener raised the error before the statement was sent, the transaction is not aborted.
    sent = context.sqlalchemy_exception is not None
    if sent and context.connection is not None and not context.is_disconnect:
        mark_aborted(context.connection)


def mark_aborted(connection: Connection) -> None:
    """Remember that a statement has failed, so that the transaction can only be rolled back."""
    connection.info[ABORTED] = True


def unmark_aborted(connection: Connection) -> None:
    """Note that the failed statement was undone, so that the transaction can go on."""
    connection.info.pop(ABORTED, None)


def _clear(connection: Connection) -> None:
    if connection.invalidated:
        return  # an invalidated connection has no info, and to read it here would make the rollback fail
    info = connection.info
    info.pop(ABORTED, None)
    forget_savepoints(info)
    forget_announced(info)


def _clear_savepoint(connection: Connection, *_: object) -> None:
    if not connection.invalidated:
        unmark_aborted(connection)
        doubt_announced(connection.info)


_listener: Any
for _listener in (_before_undo, _equip, _count_changes, _begin_first, _mark, _clear, _clear_savepoint):
    _listener.dotmac_internal = True  # see `dotmac_database.departures`


def refuses_commit(session: Session) -> bool:
    """Whether a COMMIT would roll the transaction back without an error, because a statement has failed in it.

    PostgreSQL does that, and no driver reports it. On SQLite a transaction is marked only if a write failed in a block
    without savepoints: https://www.postgresql.org/docs/current/sql-commit.html
    """
    return any(map(is_aborted, connections_of(session)))


def is_aborted(connection: Connection) -> bool:
    """Whether a statement has failed in the connection's transaction, and was not undone."""
    return not connection.invalidated and ABORTED in connection.info


def has_vanished(connection: Connection) -> bool:
    """Whether SQLite has ended the connection's transaction by itself, because of an error.

    A trigger can do that, and some errors do: https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction
    """
    if connection.dialect.name != "sqlite" or connection.closed or connection.invalidated:
        return False
    driver: Any = connection.connection.driver_connection
    in_autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
    return not in_autocommit and CHANGES_AT_BEGIN in connection.info and not driver.in_transaction


def connections_of(session: Session) -> list[Connection]:
    """The connections of the session's innermost savepoint and of its transaction."""
    nested, outer = session.get_nested_transaction(), session.get_transaction()
    inner = [] if nested is None else [*nested.connections]
    return inner if outer is None else [*inner, *outer.connections]


def in_use(session: Session) -> bool:
    """Whether a statement of another task or thread is running on a connection of the session's transaction.

    SQLAlchemy's COMMIT does not wait for that statement, and would return the connection to the pool while it runs.
    """
    return any(map(is_busy, connections_of(session)))


def is_busy(connection: Connection) -> bool:
    """Whether a statement of another task or thread is running on a connection."""
    if connection.closed or connection.invalidated:
        return False
    pooled: Any = connection.connection
    return BUSY in pooled.info or is_executing(pooled)


def throw_away(connection: Connection) -> None:
    """Close the driver's connection.

    With psycopg, a running statement is cancelled first, and this function waits for its end, because libpq can crash
    if a connection is closed while a statement runs. Connections of other drivers are closed at once.
    """
    if connection.closed or connection.invalidated:
        return
    driver: Any = connection.connection.driver_connection
    lock = getattr(driver, "lock", None)
    if lock is None or not lock.locked():
        connection.invalidate()
        return
    wait: Callable[[Any], Any] = await_only if connection.dialect.is_async else lambda result: result
    with suppress(Exception):  # a statement that can't be cancelled ends by itself or by its timeout
        wait(driver.cancel_safe(timeout=CANCEL_TIMEOUT))
    wait(lock.acquire())
    try:
        if not (connection.closed or connection.invalidated):  # the task that used it may have invalidated it
            connection.invalidate()
    finally:
        lock.release()
