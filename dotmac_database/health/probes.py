"""The probes of a health check, each with one small query. A probe that fails does not affect the others."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, Select, column, func, select, table, text

from ..dialects import translate
from ..dialects.features import has_server_statistics, has_transaction_settings, ping
from ..tenancy import RowLevelSecurity
from .replication import replication

Probe = Callable[[Connection], Any]

_SMALL_FILE = 64 * 2**20


class Verifier(Protocol):
    """An object that verifies a database, such as `RowLevelSecurity`."""

    def verify(self, connection: Connection) -> Sequence[Any]:
        """The findings, as frozen dataclasses."""
        ...


@dataclass(frozen=True, slots=True)
class CheckQueries:
    """Runs the queries of a check on a connection.

    ``seconds`` is the time limit of all probes together. Statements that take longer than ``slow`` seconds on average
    are listed. ``security`` is verified if it is given.
    """

    seconds: float
    slow: float
    security: Verifier | None = None

    def connectivity(self, connection: Connection) -> dict[str, Any]:
        """The duration of one round trip."""
        with connection.begin():
            _limit(connection, self.seconds)
            statement = text(ping(connection.dialect.name))
            started = time.perf_counter()
            connection.execute(statement).scalar_one()
            return {"latency_ms": round((time.perf_counter() - started) * 1000, 3)}

    def whole(self, connection: Connection) -> dict[str, Any]:
        """The details of `connectivity` and of each probe. Each probe runs in a transaction of its own.

        For a probe that fails, or for which no time is left, the details have the key ``error``.
        """
        # Some time is reserved, so that the result is ready before the caller's timeout.
        deadline = time.monotonic() + self.seconds * 0.9
        details = self.connectivity(connection)
        for name, probe in self._probes(connection.dialect.name).items():
            left = deadline - time.monotonic()
            if left <= 0:
                details[name] = {"error": "no time was left"}
                continue
            try:
                with connection.begin() as transaction:
                    # Half of the remaining time, so that one slow probe leaves time for the others.
                    _limit(connection, left / 2)
                    details[name] = probe(connection)
                    transaction.rollback()
            except Exception as error:
                if connection.invalidated:
                    raise
                details[name] = {"error": str(translate(error))}
        return details

    def _probes(self, dialect: str) -> Mapping[str, Probe]:
        if not has_server_statistics(dialect):
            return SQLITE
        own: dict[str, Probe] = {"slow_queries": self._slow_queries}
        if self.security is not None:
            own["row_level_security"] = self._verify_security
        return {**POSTGRESQL, **own}

    def _slow_queries(self, connection: Connection) -> list[dict[str, object]] | None:
        query = "SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        schema = connection.execute(text(f"{query} WHERE extname = 'pg_stat_statements'")).scalar()
        if schema is None:
            return None
        statements = table(
            "pg_stat_statements",
            *(column(name) for name in ("query", "calls", "mean_exec_time", "dbid")),
            schema=schema,
        ).c
        here: Select[object] = (
            select(column("oid")).select_from(table("pg_database")).where(column("datname") == func.current_database())
        )
        slow = (
            select(func.left(statements.query, 200).label("query"), statements.calls, statements.mean_exec_time)
            .where(statements.dbid == here.scalar_subquery(), statements.mean_exec_time > self.slow * 1000)
            .order_by(statements.mean_exec_time.desc())
            .limit(5)
        )
        return [
            {"query": row.query, "calls": row.calls, "mean_ms": round(row.mean_exec_time, 1)}
            for row in connection.execute(slow)
        ]

    def _verify_security(self, connection: Connection) -> list[dict[str, object]]:
        if isinstance(self.security, RowLevelSecurity):
            # Without ``attempts`` nothing is written, not even in a transaction that is rolled back.
            # This is right for checks, which are frequent.
            findings: Sequence[Any] = self.security.verify(connection, attempts=False)
        else:
            findings = self.security.verify(connection) if self.security is not None else ()
        return [asdict(finding) for finding in findings]


def _limit(connection: Connection, seconds: float) -> None:
    """Set a statement timeout for the transaction only, since behind a pooler others use the same connection later."""
    if has_transaction_settings(connection.dialect.name):
        limit = str(max(round(seconds * 1000), 1))
        connection.execute(select(func.set_config("statement_timeout", limit, True)))


def _row(sql: str) -> Probe:
    return lambda connection: dict(connection.execute(text(sql)).mappings().one())


def _rows(sql: str) -> Probe:
    return lambda connection: [dict(row) for row in connection.execute(text(sql)).mappings()]


def _value(sql: str) -> Probe:
    return lambda connection: connection.execute(text(sql)).scalar_one()


POSTGRESQL: dict[str, Probe] = {
    "server": _row(
        "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS in_recovery,"
        " current_setting('default_transaction_read_only') = 'on' AS read_only"
    ),
    # pg_stat_database shows all connections to every role; pg_stat_activity only those of the role itself.
    "connections": _row(
        "SELECT coalesce(sum(numbackends), 0)::int AS used, current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - coalesce(current_setting('reserved_connections', true), '0')::int AS allowed FROM pg_stat_database"
    ),
    "longest_transaction_s": _value(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8"
        " FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    ),
    "waiting_locks": _value("SELECT count(*) FROM pg_locks WHERE NOT granted"),
    "replication": replication,
    "dead_tuples": _rows(
        "SELECT relname AS table, n_dead_tup AS dead, n_live_tup AS live FROM pg_stat_user_tables"
        " WHERE n_dead_tup > 10000 AND n_dead_tup > n_live_tup / 5 ORDER BY n_dead_tup DESC LIMIT 5"
    ),
}


def _file(connection: Connection) -> str:
    row = connection.execute(text("PRAGMA database_list")).mappings().first()
    return str(row["file"] or "") if row else ""


def _sqlite_integrity(connection: Connection) -> str:
    file = _file(connection)
    if file and os.path.getsize(file) > _SMALL_FILE:
        # The integrity check reads the whole file, and can't be interrupted.
        return "not checked: the file is large"
    return str(connection.execute(text("PRAGMA quick_check(1)")).scalar_one())


def _sqlite_storage(connection: Connection) -> dict[str, Any]:
    file = _file(connection)
    if not file:
        return {"file": None}
    wal = f"{file}-wal"
    return {
        "size_bytes": os.path.getsize(file),
        "wal_bytes": os.path.getsize(wal) if os.path.exists(wal) else 0,
        "disk_free_bytes": shutil.disk_usage(os.path.dirname(file)).free,
    }


SQLITE: dict[str, Probe] = {
    "server": _row("SELECT sqlite_version() AS version"),
    "integrity": _sqlite_integrity,
    "journal_mode": _value("PRAGMA journal_mode"),
    "storage": _sqlite_storage,
}
