"""PostgreSQL's COPY protocol, which inserts many rows faster than INSERT.

https://www.postgresql.org/docs/current/sql-copy.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, cast, func, select
from sqlalchemy import exc as sa
from sqlalchemy import table as plain_table
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.sql import column
from sqlalchemy.util import await_only

from ..departures import COPY_BY_DRIVER, connection_departure, engine_departure
from ..observers import OBSERVED, observe
from ..sqlalchemy_internals import doubles_percents
from .errors import loses_connection
from .own_statements import OWN


def copies(connection: Connection, table: Table) -> bool:
    """Whether rows can be inserted into ``table`` by COPY. Sends one statement on PostgreSQL.

    COPY does not support row-level security and views. It is also refused if the engine has unknown event listeners
    (telemetry, a log) or is of another class: these would not see a COPY, since the driver sends it. For the same
    reason COPY does not begin SQLAlchemy's transaction, but the statement that is sent here does.
    """
    if (
        connection.dialect.name != "postgresql"
        or engine_departure(connection.engine, COPY_BY_DRIVER)
        or connection_departure(connection, COPY_BY_DRIVER)
    ):
        return False
    preparer = connection.dialect.identifier_preparer
    name = _single_percents(preparer, preparer.format_table(table))
    catalogue = plain_table("pg_class", column("oid"), column("relkind"), schema="pg_catalog")
    query = select(catalogue.c.relkind.in_(["r", "p"]), func.row_security_active(catalogue.c.oid)).where(
        catalogue.c.oid == cast(name, REGCLASS)
    )
    is_table, is_secured = connection.execute(query, execution_options={OWN: True}).one()
    return bool(is_table) and not is_secured


def copy(
    connection: Connection, table: Table, columns: Sequence[Column[Any]], lists: Sequence[Sequence[object]]
) -> None:
    """Send rows by COPY. ``lists`` are the lists of values, one for each column. Raises `DBAPIError` if it fails."""
    dialect = connection.dialect
    values = [_processed(each.type.dialect_impl(dialect).bind_processor(dialect), list_) for each, list_ in
              zip(columns, lists, strict=True)]  # fmt: skip
    rows = zip(*values, strict=True)
    names = [each.name for each in columns]
    driver: Any = connection.connection.driver_connection
    observed = observe(dialect, f"COPY {table.name}", table) if OBSERVED else None
    try:
        if dialect.driver == "asyncpg":
            await_only(driver.copy_records_to_table(table.name, records=rows, columns=names, schema_name=table.schema))
        else:
            _by_psycopg(connection, table, names, rows)
    except BaseException as error:
        if observed is not None:
            observed.end(error)
        if not isinstance(error, Exception):
            raise
        lost = loses_connection(dialect, connection.connection, error)
        if lost:
            connection.invalidate(error)
        raise sa.DBAPIError(f"COPY {table.name}", None, error, connection_invalidated=lost) from error
    if observed is not None:
        observed.end()


def _single_percents(preparer: Any, quoted: str) -> str:
    """A quoted name with single percent signs. SQLAlchemy doubles them if the driver's parameters begin with one."""
    return quoted.replace("%%", "%") if doubles_percents(preparer) else quoted


def _processed(process: Callable[[object], object] | None, values: Sequence[object]) -> Sequence[object]:
    return values if process is None else [process(value) for value in values]


def _by_psycopg(connection: Connection, table: Table, names: Sequence[str], rows: Iterator[tuple[object, ...]]) -> None:
    quoted = connection.dialect.identifier_preparer
    target = f"{quoted.format_table(table)} ({', '.join(map(quoted.quote, names))})"
    driver: Any = connection.connection.driver_connection
    statement = _single_percents(quoted, f"COPY {target} FROM STDIN")
    if connection.dialect.is_async:
        await_only(_by_async_psycopg(driver, statement, rows))
        return
    with driver.cursor() as cursor, cursor.copy(statement) as stream:
        for row in rows:
            stream.write_row(row)


async def _by_async_psycopg(driver: Any, statement: str, rows: Iterator[tuple[object, ...]]) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as stream:
        for row in rows:
            await stream.write_row(row)
