"""What is looked at: one small query a probe. A probe that fails says so, and leaves the others alone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from ..dialects import translate

Probe = Callable[[Connection], Any]


def connectivity(connection: Connection) -> dict[str, Any]:
    """One round trip, timed."""
    started = time.perf_counter()
    connection.execute(text("SELECT 1")).scalar_one()
    return {"latency_ms": round((time.perf_counter() - started) * 1000, 3)}


def _row(sql: str) -> Probe:
    def probe(connection: Connection) -> dict[str, Any]:
        return dict(connection.execute(text(sql)).mappings().one())

    return probe


def _rows(sql: str) -> Probe:
    def probe(connection: Connection) -> list[dict[str, Any]]:
        return [dict(row) for row in connection.execute(text(sql)).mappings()]

    return probe


def _slow_queries(connection: Connection) -> Any:
    installed = connection.execute(text("SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'")).scalar()
    return None if installed is None else _rows(_SLOW_SQL)(connection)


_SLOW_SQL = """
SELECT left(query, 200) AS query, calls, round(mean_exec_time::numeric, 1)::float AS mean_ms
FROM pg_stat_statements ORDER BY mean_exec_time DESC LIMIT 5
"""

POSTGRESQL: dict[str, Probe] = {
    "server": _row(
        "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS in_recovery,"
        " current_setting('default_transaction_read_only') = 'on' AS read_only"
    ),
    "connections": _row(
        "SELECT count(*) AS used, current_setting('max_connections')::int AS allowed"
        " FROM pg_stat_activity WHERE backend_type = 'client backend'"
    ),
    "longest_transaction_s": lambda connection: connection.execute(
        text(
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float"
            " FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    ).scalar_one(),
    "waiting_locks": lambda connection: connection.execute(
        text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    ).scalar_one(),
    "replication_lag_s": lambda connection: connection.execute(
        text(
            "SELECT CASE WHEN pg_is_in_recovery()"
            " THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float END"
        )
    ).scalar_one(),
    "slow_queries": _slow_queries,
    "dead_tuples": _rows(
        "SELECT relname AS table, n_dead_tup AS dead, n_live_tup AS live FROM pg_stat_user_tables"
        " WHERE n_dead_tup > 10000 AND n_dead_tup > n_live_tup / 5 ORDER BY n_dead_tup DESC LIMIT 5"
    ),
}


def _sqlite_server(connection: Connection) -> dict[str, Any]:
    return {"version": connection.execute(text("SELECT sqlite_version()")).scalar_one()}


def _sqlite_integrity(connection: Connection) -> str:
    return str(connection.execute(text("PRAGMA quick_check(1)")).scalar_one())


def _sqlite_journal(connection: Connection) -> str:
    return str(connection.execute(text("PRAGMA journal_mode")).scalar_one())


def _sqlite_storage(connection: Connection) -> dict[str, Any]:
    path = connection.execute(text("PRAGMA database_list")).mappings().first()
    file = path["file"] if path else ""
    if not file:
        return {"file": None}
    wal = f"{file}-wal"
    return {
        "size_bytes": os.path.getsize(file),
        "wal_bytes": os.path.getsize(wal) if os.path.exists(wal) else 0,
        "disk_free_bytes": shutil.disk_usage(os.path.dirname(file)).free,
    }


SQLITE: dict[str, Probe] = {
    "server": _sqlite_server,
    "integrity": _sqlite_integrity,
    "journal_mode": _sqlite_journal,
    "storage": _sqlite_storage,
}


def examine(connection: Connection, seconds: float) -> dict[str, Any]:
    """All probes of the connection's database, until ``seconds`` have passed; those left over say so."""
    deadline = time.monotonic() + seconds
    details: dict[str, Any] = {}
    for name, probe in (POSTGRESQL if connection.dialect.name == "postgresql" else SQLITE).items():
        if time.monotonic() > deadline:
            details[name] = {"error": "no time was left"}
            continue
        try:
            details[name] = probe(connection)
        except (SQLAlchemyError, OSError) as error:
            details[name] = {"error": str(translate(error))}
            connection.rollback()
    return details
