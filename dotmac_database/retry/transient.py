"""Classifies failures as transient, by SQLSTATE and exception class, never by message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc as sa
from sqlalchemy.orm import exc as orm_exc

from ..dialects import cause_of, lost_connection, translate
from ..errors import DatabaseError, DatabaseUnavailableError, TransactionError

_LASTING = ("28", "3D", "531", "58")
"""Beginnings of SQLSTATEs that are not transient: invalid credentials, no such database, disk full, I/O error."""

_DRIVERS = ("aiosqlite", "asyncpg", "psycopg", "sqlite3")
_FROM_DATABASE = (sa.StatementError, sa.TimeoutError, sa.PendingRollbackError, orm_exc.StaleDataError)


def is_transient(error: BaseException, *, idempotent: bool = False) -> bool:
    """Whether it is safe to run the same operation again in a new transaction, where it may succeed.

    That is the case after a serialization failure, a deadlock, a busy SQLite, and a lost or refused connection. If the
    connection was lost during COMMIT, the operation may have taken effect already, so the failure is transient only if
    the operation is ``idempotent``.
    """
    failure = database_error(error)
    if isinstance(failure, TransactionError):
        return failure.transient or (idempotent and failure.outcome == "unknown")
    if not isinstance(failure, DatabaseUnavailableError):
        return False
    cause = failure.__cause__
    if hasattr(cause, "sqlite_errorcode"):
        return False  # SQLite: a full disk, or a read-only or damaged file
    return not str(getattr(cause, "sqlstate", None) or "").startswith(_LASTING)


def database_error(error: BaseException) -> DatabaseError | None:
    """The toolkit's exception for an exception of SQLAlchemy or a driver; None if ``error`` is the user's own.

    If the connection was lost during COMMIT, it is a `TransactionError` with ``outcome="unknown"``.
    """
    if isinstance(error, DatabaseError):
        return error
    if type(error).__module__.partition(".")[0] in _DRIVERS:
        # The user has called the driver itself. The exception is wrapped as SQLAlchemy wraps exceptions of drivers.
        error = sa.DBAPIError.instance(None, None, error, Exception).with_traceback(error.__traceback__)
    # If asyncpg can't connect, it raises a plain OSError. The user's own network errors have the same class.
    if not isinstance(error, _FROM_DATABASE) and not (isinstance(error, OSError) and _came_through(error)):
        return None
    if lost_connection(error) and _came_through(error, "_commit_impl"):
        failure: DatabaseError = TransactionError(
            "The connection was lost during COMMIT; the transaction may have been committed.", outcome="unknown"
        )
    else:
        failure = translate(error)
    cause = cause_of(error)
    if failure is not cause:
        failure.__cause__ = cause
    return failure


@contextmanager
def as_toolkit_errors() -> Iterator[None]:
    """Raise the exceptions of SQLAlchemy and the drivers in this block as the toolkit's. Others are not changed."""
    try:
        yield
    except Exception as error:
        failure = database_error(error)
        if failure is None or failure is error:
            raise
        raise failure from failure.__cause__


def _came_through(error: BaseException, function: str | None = None) -> bool:
    """Whether ``error`` was raised inside this function of ``sqlalchemy.engine``. None: inside any function of it."""
    trace = error.__traceback__
    while trace is not None:
        code, module = trace.tb_frame.f_code, str(trace.tb_frame.f_globals.get("__name__"))
        if module.startswith("sqlalchemy.engine.") and function in (None, code.co_name):
            return True
        trace = trace.tb_next
    return False
