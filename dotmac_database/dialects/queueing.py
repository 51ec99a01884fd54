"""What differs between databases for a table that is a queue: writing its rows, the time, and locks of the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Insert,
    Table,
    bindparam,
    cast,
    delete,
    false,
    func,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text, TypeEngine

from ..types import UTCDateTime, utc_now
from .isolation import lock_by_name, set_timeouts
from .sqlite_engine import shared_pool

_POSTGRESQL = "postgresql"

Values = Mapping[str, object]
"""The values of one row, or the parameters of a statement."""


def notifies(dialect: str) -> bool:
    """Whether the database can wake another connection: https://www.postgresql.org/docs/current/sql-notify.html."""
    return dialect == _POSTGRESQL


def shares_connection(engine: Engine) -> bool:
    """Whether all users of the engine share one connection, as for SQLite in memory, and so one transaction."""
    return shared_pool(engine) is not None


def insertion(table: Table, names: Sequence[str], dialect: str, *, channel: str | None) -> Insert:
    """An INSERT of any number of rows with values for these columns; `insertion_parameters` makes its parameters.

    The values of JSON columns are texts. On PostgreSQL it is one statement, and the rows are numbered in their order.
    With a ``channel`` it also notifies those who listen to it, at the commit.
    """
    if dialect != _POSTGRESQL:
        return insert(table).values({name: bindparam(name, type_=_sent_type(table, name)) for name in names})
    arrays = [bindparam(f"all_{name}", type_=ARRAY(_sent_type(table, name))) for name in names]
    rows = func.unnest(*arrays).table_valued(*names, with_ordinality="number", name="dotmac_rows").render_derived()
    values = [cast(rows.c[name], JSON()) if _is_json(table, name) else rows.c[name] for name in names]
    statement = insert(table).from_select(list(names), select(*values).order_by(rows.c.number))
    return statement if channel is None else statement.returning(func.pg_notify(channel, ""))


def insertion_parameters(names: Sequence[str], rows: Sequence[Values], dialect: str) -> Values | Sequence[Values]:
    """The parameters of an `insertion` of these rows."""
    if dialect != _POSTGRESQL:
        return list(rows)
    return {f"all_{name}": [row[name] for row in rows] for name in names}


def _is_json(table: Table, name: str) -> bool:
    return isinstance(table.c[name].type, JSON)


def _sent_type(table: Table, name: str) -> TypeEngine[Any]:
    return Text() if _is_json(table, name) else table.c[name].type


def now_of(dialect: str) -> ColumnElement[Any]:
    """The time of a statement. A server's is its own, so that the clocks of its clients need not agree."""
    if dialect == _POSTGRESQL:
        return func.statement_timestamp(type_=UTCDateTime())
    return bindparam("now", type_=UTCDateTime(), callable_=utc_now)


def later_of(dialect: str, name: str) -> ColumnElement[Any]:
    """The time that is some seconds after `now_of`; `seconds_value` makes the value of the parameter ``name``."""
    if dialect == _POSTGRESQL:
        interval = bindparam(name, type_=Float()) * literal_column("INTERVAL '1 second'")
        return func.statement_timestamp(type_=UTCDateTime()).op("+", return_type=UTCDateTime())(interval)
    return bindparam(name, type_=UTCDateTime())


def seconds_value(dialect: str, seconds: float) -> object:
    """The value of the parameter of `later_of`."""
    return float(seconds) if dialect == _POSTGRESQL else utc_now() + timedelta(seconds=seconds)


def limit_transaction(connection: Connection, seconds: float) -> None:
    """Let the server end the transaction if a statement, or a pause between two, takes so long. One statement.

    A client that was stopped in the middle of the transaction would otherwise keep its locks. SQLite has no such limit.
    """
    if connection.dialect.name == _POSTGRESQL:
        timeouts = set_timeouts(statement=seconds, lock=seconds, idle=seconds)
        if timeouts is not None:
            connection.execute(timeouts)


def lock_queue(connection: Connection, table: Table) -> None:
    """Wait for the lock of this table, and hold it until the transaction ends. One statement.

    On SQLite it is the lock for writing. A transaction that had read before could not write after another one has.
    """
    if connection.dialect.name == _POSTGRESQL:
        connection.execute(lock_by_name(f"dotmac queue {table.fullname}", wait=True))
    else:
        connection.execute(delete(table).where(false()))


def isolation_of_queue(dialect: str) -> dict[str, str]:
    """The execution options for an engine whose transactions see what was committed while they waited for a lock."""
    return {"isolation_level": "READ COMMITTED"} if dialect == _POSTGRESQL else {}


def hides_rows(connection: Connection, table: Table, policy: str) -> bool:
    """Whether row-level security hides rows of the table from the connection's role. Up to two statements.

    ``policy`` is the name of the toolkit's policy. Another one may let the role see all rows, so it counts as one that
    does.
    """
    if connection.dialect.name != _POSTGRESQL:
        return False
    name = connection.dialect.identifier_preparer.format_table(table)
    if not connection.scalar(select(func.row_security_active(name))):
        return False
    own = text("SELECT count(*) FROM pg_policy WHERE polrelid = CAST(:name AS regclass) AND polname <> :toolkits")
    return not connection.scalar(own, {"name": name, "toolkits": policy})
