"""Recovers from stale plans: prepared statements that the server refuses because the schema has changed.

Drivers prepare frequent statements. If the schema has changed so that the rows of a prepared statement would have
other types, the server refuses to run it (SQLSTATE 0A000), and the statement has no effect. This module then makes the
driver forget its prepared statements. It sends the statement once more if no earlier work is lost by that: if the
statement is outside of a transaction, or the first one of a transaction, or the first one after a savepoint of the
toolkit. In all other cases the whole transaction must be run again.

The caches of prepared statements are private to psycopg 3.3 (``_prepared``), to asyncpg 0.32, and to SQLAlchemy 2.1.9
(``_invalidate_schema_cache`` of its asyncpg dialect, ``_cached_metadata`` of a compiled statement).
``tests/integration/test_stale_plans.py`` fails if one of these names is missing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.util import await_only

from ..sqlalchemy_internals import forget_cached_metadata, is_pooled, savepoint_name
from .driver_internals import accept_schema, expire_schema, forget_prepared
from .own_statements import OPENING
from .savepoints import note_sent

_POINT = "dotmac_database.point"
_FORGOTTEN_AT = "dotmac_database.forgotten"
"""The keys in a pooled connection's ``info`` of its `Point`, and of the time when it last forgot its plans."""

_STALE_AT = "dotmac_stale_at"
"""The attribute of a dialect with the time when a plan of one of its connections was last refused."""

_OWN_NAMES = ('"_pg3_', '"__asyncpg_', '"__dotmac_')
"""How the names of prepared statements of psycopg, asyncpg and the toolkit begin in the server's messages."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point that a transaction can be rolled back to without losing work.

    ``savepoint`` is its name; None is the beginning of the transaction. ``opening`` are the statements that were sent
    since then, with their parameters. Each has the option `OPENING`, and is sent again after the rollback.
    """

    savepoint: str | None = None
    opening: tuple[tuple[str, Any], ...] = ()


_BEGINNING = Point()


def is_stale_plan(cause: object) -> bool:
    """Whether a driver's error means that the plan of a statement is stale, and nothing else is wrong.

    SQLSTATE 0A000 can also mean that the server does not have a feature. To tell the two apart, the name of the
    server's internal function is compared, since the message depends on the server's language. XX000 is an internal
    error, and its message for a dropped type is never translated. 26000 is an unknown prepared statement, perhaps one
    that a pooler has deallocated; its name in the message shows whether the driver or the toolkit had prepared it.
    """
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate == "0A000":
        fields = getattr(cause, "diag", None)  # psycopg has the fields in diag, asyncpg on the error
        named = getattr(cause, "server_source_function", None) if fields is None else fields.source_function
        return bool(named == "RevalidateCachedQuery")
    if sqlstate == "XX000":
        return str(cause).startswith("cache lookup failed for type ")
    return sqlstate == "26000" and any(name in str(cause) for name in _OWN_NAMES)


def watch_plans(engine: Engine) -> None:
    """Add the listeners that send an engine's statements with stale plans again.

    Repeated calls have no effect, since SQLAlchemy adds the same listener only once to a dialect.
    """
    if engine.dialect.driver in ("psycopg", "asyncpg"):
        event.listen(engine, "do_execute", _execute)
        event.listen(engine, "do_executemany", _execute_many)
        event.listen(engine, "handle_error", _note)


def _execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    return _sent(
        context.dialect.do_execute, cursor, statement, parameters, context, context.dialect.dispatch.do_execute
    )


def _execute_many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    adapted = context.root_connection.connection.dbapi_connection
    if context.dialect.detect_autocommit_setting(adapted):
        return False  # some of the rows may have been committed already
    many = context.dialect.do_executemany
    return _sent(many, cursor, statement, parameters, context, context.dialect.dispatch.do_executemany)


def _sent(send: Any, cursor: Any, statement: str, parameters: Any, context: Any, listeners: Any) -> bool:
    """Send a statement as SQLAlchemy does, and once more if its plan is stale and no earlier work is lost by that.

    Returns False if nothing was sent, so that SQLAlchemy has to send the statement.
    """
    dialect, pooled = context.dialect, context.root_connection.connection
    # SQLAlchemy must send the statement if there is another listener, which must see it. The first queries of a new
    # dialect are sent by SQLAlchemy too, since their connection is not from the pool.
    if not is_pooled(pooled):
        return False
    note_sent(pooled.info, statement)
    point = point_of(dialect, pooled)
    if len(listeners) > 1:
        return False
    try:
        send(cursor, statement, parameters, context)
    except dialect.loaded_dbapi.Error as error:
        if not is_stale_plan(_of_driver(error)):
            raise
        note_stale(dialect)
        context.engine.clear_compiled_cache()  # a compiled statement caches how values of the old types are read
        if point is None:
            raise
        go_back(dialect, pooled, point)
        if context.compiled is not None:
            forget_cached_metadata(context.compiled)
        if dialect.driver == "asyncpg":
            accept_schema(dialect, cursor)
        send(cursor, statement, parameters, context)
    if point is not None and OPENING in context.execution_options:
        pooled.info[_POINT] = Point(point.savepoint, (*point.opening, (statement, parameters)))
    return True


def _note(context: ExceptionContext) -> None:
    """Make the connections forget their plans, even if the statement is not sent again."""
    if is_stale_plan(_of_driver(context.original_exception)):
        note_stale(context.dialect)


def _of_driver(error: BaseException) -> BaseException:
    """The driver's error: with asyncpg it is the ``__cause__`` of the error that SQLAlchemy's adapter raises."""
    return error if error.__cause__ is None or hasattr(error, "diag") else error.__cause__


def point_of(dialect: Any, pooled: Any, driver: Any = None) -> Point | None:
    """The point that the transaction can be rolled back to if the next statement fails; None: there is no such point.

    If the connection is outside of a transaction, and a plan of another connection was refused since the last time,
    this connection first forgets its plans. ``driver`` is the driver's connection, if the caller knows it already.
    """
    if dialect.name != "postgresql":
        return None
    driver = driver or pooled.driver_connection
    if driver.pgconn.transaction_status if dialect.driver == "psycopg" else driver.is_in_transaction():
        point: Point | None = pooled.info.pop(_POINT, None)
        return point
    if _STALE_AT in vars(dialect):
        forget_plans(dialect, pooled)
    return _BEGINNING


def mark_point(pooled: Any, savepoint: str) -> None:
    """Mark a savepoint of the toolkit as the point to roll back to. Call this right after the savepoint was set."""
    pooled.info[_POINT] = Point(savepoint)


def mark_opening(pooled: Any, statement: str, parameters: Any) -> None:
    """Mark the beginning of the transaction, with the statement that opened it, as the point to roll back to."""
    pooled.info[_POINT] = Point(None, ((statement, parameters),))


def mark_savepoint(connection: Connection) -> None:
    """Mark the innermost savepoint as the point to roll back to.

    Call this right after the savepoint was set, before another statement is sent or code of the user runs.
    """
    savepoint: Any = connection.get_nested_transaction()
    if savepoint is not None and connection.dialect.driver in ("psycopg", "asyncpg"):
        connection.info[_POINT] = Point(savepoint_name(savepoint))


def note_stale(dialect: Any) -> None:
    """Remember that the schema has changed, so that each connection forgets its plans before it is used again."""
    setattr(dialect, _STALE_AT, time.monotonic())
    if dialect.driver == "asyncpg":
        expire_schema(dialect)


def go_back(dialect: Any, pooled: Any, point: Point) -> None:
    """Roll back to the point, make the connection forget its plans, and send the point's ``opening`` again."""
    adapted = pooled.dbapi_connection
    if point.savepoint is None:
        adapted.rollback()
    else:
        _send(adapted, f"ROLLBACK TO SAVEPOINT {point.savepoint}")
    forget_plans(dialect, pooled)
    for statement, parameters in point.opening:
        _send(adapted, statement, parameters)


def _send(adapted: Any, statement: str, parameters: object = None) -> None:
    cursor = adapted.cursor()
    try:
        cursor.execute(statement, parameters)
    finally:
        cursor.close()


def forget_plans(dialect: Any, pooled: Any) -> None:
    """Make a connection forget its prepared statements, unless it has done so since the last stale plan was noticed.

    Sends one statement with psycopg, which would otherwise keep its prepared statements until a rollback.
    """
    stale_at = getattr(dialect, _STALE_AT)
    if pooled.info.get(_FORGOTTEN_AT) == stale_at:
        return
    pooled.info[_FORGOTTEN_AT] = stale_at
    driver = pooled.driver_connection
    if dialect.driver == "asyncpg":
        accept_schema(dialect, pooled.dbapi_connection)
        await_only(driver.reload_schema_state())
        return
    forget_prepared(driver)
    sent = driver.execute("DEALLOCATE ALL", prepare=False)
    if dialect.is_async:
        await_only(sent)


_listener: Any
for _listener in (_execute, _execute_many, _note):
    _listener.dotmac_internal = True  # see `dotmac_database.departures`
