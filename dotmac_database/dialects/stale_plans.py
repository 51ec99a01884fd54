"""Prepared statements that the server does not accept any more, since the schema has changed under them.

A driver prepares what it sends often, and the server refuses to run a plan whose rows would be of other types than they
were (SQLSTATE 0A000). The statement has done nothing then. What the driver has prepared is forgotten, and the statement
is sent once more where nothing is lost by it: outside of a transaction, as the first statement of one, and as the first
one after a savepoint of the toolkit's own. Elsewhere the whole transaction must be run again.

What drivers keep is private to psycopg 3.3 (``_prepared``), asyncpg 0.32 and SQLAlchemy 2.1.9's dialect of it
(``_invalidate_schema_cache``; ``_cached_metadata`` of what is compiled). ``tests/integration/test_stale_plans.py``
names each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.pool import _ConnectionFairy
from sqlalchemy.util import await_only

OPENING = "dotmac_opening"
"""The execution option of a statement that is sent right before another one, and is sent again with it."""

_POINT = "dotmac_database.point"
_FORGOTTEN_AT = "dotmac_database.forgotten"
"""When a connection's plans were last forgotten. Both are kept in the ``info`` of its pool's record."""

_STALE_AT = "dotmac_stale_at"
"""The attribute of a dialect that says when a plan of one of its connections was last refused."""

_OWN_NAMES = ('"_pg3_', '"__asyncpg_', '"__dotmac_')
"""How the names begin that psycopg, asyncpg and the toolkit give to prepared statements, as the server quotes them."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a transaction can go back to without a loss, since nothing was sent after it but ``opening``.

    ``savepoint`` None: to its beginning.
    """

    savepoint: str | None = None
    opening: tuple[tuple[str, Any], ...] = ()


_BEGINNING = Point()


def is_stale_plan(cause: Any) -> bool:
    """Whether a driver's error says that a plan is out of date, and nothing else is wrong.

    SQLSTATE 0A000 is also that of features that the server does not have, and its text is in the server's language; but
    it names the function of the server's that has failed. The text of a type that was dropped is never translated. A
    statement that somebody else has deallocated, a pooler perhaps, is known by its name.
    """
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate == "0A000":
        fields = getattr(cause, "diag", None)  # psycopg's; asyncpg has it on the error
        named = getattr(cause, "server_source_function", None) if fields is None else fields.source_function
        return bool(named == "RevalidateCachedQuery")
    if sqlstate == "XX000":
        return str(cause).startswith("cache lookup failed for type ")
    return sqlstate == "26000" and any(name in str(cause) for name in _OWN_NAMES)


def watch_plans(engine: Engine) -> None:
    """Have an engine's statements sent again whose plans are stale. SQLAlchemy lists a listener once for a dialect."""
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
        return False  # some of its rows may be there to stay
    many = context.dialect.do_executemany
    return _sent(many, cursor, statement, parameters, context, context.dialect.dispatch.do_executemany)


def _sent(send: Any, cursor: Any, statement: str, parameters: Any, context: Any, listeners: Any) -> bool:
    """Send a statement as SQLAlchemy does, and once more where its plan is stale and nothing is lost by it."""
    dialect, pooled = context.dialect, context.root_connection.connection
    # Not if another listener must send or see the statement, nor for a dialect's first queries, outside of a pool.
    if len(listeners) > 1 or not isinstance(pooled, _ConnectionFairy):
        return False
    point = point_of(dialect, pooled)
    try:
        send(cursor, statement, parameters, context)
    except dialect.loaded_dbapi.Error as error:
        if not is_stale_plan(_of_driver(error)):
            raise
        note_stale(dialect)
        context.engine.clear_compiled_cache()  # compiled statements know how columns of the former types are read
        if point is None:
            raise
        go_back(dialect, pooled, point)
        if context.compiled is not None:
            context.compiled._cached_metadata = None
        if dialect.driver == "asyncpg":
            cursor._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof
        send(cursor, statement, parameters, context)
    if point is not None and OPENING in context.execution_options:
        pooled.info[_POINT] = Point(point.savepoint, (*point.opening, (statement, parameters)))
    return True


def _note(context: ExceptionContext) -> None:
    """Have the connections forget their plans, also where the statement is not sent again."""
    if is_stale_plan(_of_driver(context.original_exception)):
        note_stale(context.dialect)


def _of_driver(error: BaseException) -> BaseException:
    """Asyncpg's own error is the cause of that of SQLAlchemy's adapter."""
    return error if error.__cause__ is None or hasattr(error, "diag") else error.__cause__


def point_of(dialect: Any, pooled: Any) -> Point | None:
    """Where a connection's transaction can go back to if the statement fails that is sent next; None: nowhere.

    A connection outside of a transaction forgets its plans first where one of another connection was refused meanwhile.
    """
    driver = pooled.driver_connection
    if driver.pgconn.transaction_status if dialect.driver == "psycopg" else driver.is_in_transaction():
        found: Point | None = pooled.info.pop(_POINT, None)
        return found
    if _STALE_AT in vars(dialect):
        forget_plans(dialect, pooled)
    return _BEGINNING


def mark_savepoint(connection: Connection) -> None:
    """Note that nothing was sent since the connection's innermost savepoint, and that no code of the user's is run."""
    savepoint: Any = connection.get_nested_transaction()
    if savepoint is not None and connection.dialect.driver in ("psycopg", "asyncpg"):
        connection.info[_POINT] = Point(savepoint._savepoint)


def note_stale(dialect: Any) -> None:
    """Remember that the schema has changed: each connection is to forget its plans before it is used again."""
    setattr(dialect, _STALE_AT, time.monotonic())
    if dialect.driver == "asyncpg":
        dialect._invalidate_schema_cache()


def go_back(dialect: Any, pooled: Any, point: Point) -> None:
    """Undo the failed statement, forget the connection's plans, and send again what opens the transaction."""
    adapted = pooled.dbapi_connection
    if point.savepoint is None:
        adapted.rollback()
    else:
        _send(adapted, f"ROLLBACK TO SAVEPOINT {point.savepoint}")
    forget_plans(dialect, pooled)
    for statement, parameters in point.opening:
        _send(adapted, statement, parameters)


def _send(adapted: Any, statement: str, parameters: Any = None) -> None:
    cursor = adapted.cursor()
    try:
        cursor.execute(statement, parameters)
    finally:
        cursor.close()


def forget_plans(dialect: Any, pooled: Any) -> None:
    """Forget what a connection has prepared before anybody last met a stale plan; nothing where it has done so.

    One statement on psycopg, which would else keep its plans until a rollback.
    """
    stale_at = getattr(dialect, _STALE_AT)
    if pooled.info.get(_FORGOTTEN_AT) == stale_at:
        return
    pooled.info[_FORGOTTEN_AT] = stale_at
    driver = pooled.driver_connection
    if dialect.driver == "asyncpg":
        pooled.dbapi_connection._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof
        await_only(driver.reload_schema_state())
        return
    driver._prepared.clear()
    sent = driver.execute("DEALLOCATE ALL", prepare=False)
    if dialect.is_async:
        await_only(sent)


_listener: Any
for _listener in (_execute, _execute_many, _note):
    _listener.dotmac_internal = True  # see `dotmac_database.departures`
