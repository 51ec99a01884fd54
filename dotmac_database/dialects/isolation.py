"""What each database can be told about one transaction, and asked about it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select


def may_have_written(connection: Connection) -> bool:
    """Whether the open transaction of ``connection`` may have changed rows; one statement on PostgreSQL.

    PostgreSQL gives a transaction its id at its first write. sqlite3 tells only whether a transaction is open.
    """
    if connection.dialect.name == "postgresql":
        return connection.scalar(select(func.pg_current_xact_id_if_assigned().is_not(None))) is not False
    driver: Any = connection.connection.driver_connection
    return bool(getattr(driver, "in_transaction", True))
