"""SQL for single transactions: isolation level, timeouts, advisory locks, and whether rows were changed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Dialect, Engine, Select, func, select

from .errors import translated
from .transactions import CHANGES_AT_BEGIN, total_changes


def saves_begin(engine: Engine) -> bool:
    """Whether a single statement in AUTOCOMMIT saves the round trips of BEGIN and COMMIT.

    SQLite runs in this process, so there are no round trips to save.
    """
    return engine.dialect.name == "postgresql"


def is_initialized(dialect: Dialect) -> bool:
    """Whether the dialect has read its server's version and isolation level, which it does at its first connection."""
    return hasattr(dialect, "default_isolation_level")


def statement_is_transaction(engine: Engine) -> bool:
    """Whether a statement without a transaction has the same effect as in a transaction of its own.

    Under READ COMMITTED each statement has its own snapshot anyway. Connects once if the server's default level is not
    known yet, which can raise the toolkit's exceptions.
    """
    if not is_initialized(engine.dialect):
        with translated():
            engine.connect().close()
    level = engine.get_execution_options().get("isolation_level") or engine.dialect.default_isolation_level
    return level in ("READ COMMITTED", "AUTOCOMMIT") or engine.dialect.name == "sqlite"


def sees_snapshot(connection: Connection) -> bool:
    """Whether the transaction can't see what others commit after its first statement. One statement on PostgreSQL."""
    return connection.dialect.name == "postgresql" and connection.get_isolation_level() in (
        "REPEATABLE READ",
        "SERIALIZABLE",
    )


def begin_options(*, isolation_level: str | None, read_only: bool, deferrable: bool) -> Mapping[str, object]:
    """The execution options that add these settings to PostgreSQL's BEGIN. SQLAlchemy resets them afterwards."""
    options: dict[str, object] = {}
    if isolation_level is not None:
        options["isolation_level"] = isolation_level
    if read_only:
        options["postgresql_readonly"] = True
    if deferrable:
        options["postgresql_deferrable"] = True
    return options


def set_timeouts(*, statement: float | None, lock: float | None, idle: float | None = None) -> Select[object] | None:
    """One statement that sets these timeouts of PostgreSQL for the transaction. None if all arguments are None.

    The timeouts are in seconds, and 0 disables a timeout. PostgreSQL counts milliseconds, so a timeout of less than
    1 ms is rounded up to 1 ms, and not down to 0.
    """
    timeouts = {"statement_timeout": statement, "lock_timeout": lock, "idle_in_transaction_session_timeout": idle}
    calls = [
        func.set_config(name, str(max(round(seconds * 1000), 1 if seconds else 0)), True)
        for name, seconds in timeouts.items()
        if seconds is not None
    ]
    return select(*calls) if calls else None


def may_have_written(connection: Connection) -> bool:
    """Whether the open transaction of ``connection`` may have changed rows. Sends one statement on PostgreSQL.

    PostgreSQL assigns an id to a transaction at its first write. sqlite3 counts the changed rows of a connection.
    """
    if connection.dialect.name == "postgresql":
        return connection.scalar(select(func.pg_current_xact_id_if_assigned().is_not(None))) is not False
    if not getattr(connection.connection.driver_connection, "in_transaction", True):
        return False
    before = connection.info.get(CHANGES_AT_BEGIN)
    return before is None or before != total_changes(connection)


def lock_by_name(name: str, *, wait: bool) -> Select[object]:
    """The statement that takes PostgreSQL's advisory lock on a name until the transaction ends.

    With ``wait`` the statement waits for the lock and returns NULL. Without ``wait`` it returns at once, and says
    whether it has taken the lock. The name is hashed to 64 bits. Two names with the same hash share a lock, so that a
    caller can wait needlessly or, without ``wait``, not get the lock.
    """
    key = func.hashtextextended(name, 0)
    return select(func.pg_advisory_xact_lock(key) if wait else func.pg_try_advisory_xact_lock(key))
