"""Checks of settings: timeouts, and the connections that processes may open."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from ..examination import Examination
from ..findings import Severity
from ..registry import POSTGRESQL, Symptom, Unchecked, check

_CLIENT = "https://www.postgresql.org/docs/current/runtime-config-client.html"

_TIMEOUTS = {
    "statement_timeout": (
        "30s",
        "A statement runs for as long as it takes: a few slow ones occupy the whole pool.",
        Severity.WARNING,
    ),
    "idle_in_transaction_session_timeout": (
        "60s",
        "A program that hangs in a transaction keeps its locks, and VACUUM from its work, until somebody notices.",
        Severity.WARNING,
    ),
    "lock_timeout": (
        "10s",
        "A statement waits for a lock as long as statement_timeout lets it; behind an ALTER TABLE all others wait.",
        Severity.NOTE,
    ),
}


@check("timeout-missing", Severity.WARNING, on=POSTGRESQL, source=f"{_CLIENT}#GUC-STATEMENT-TIMEOUT")
def timeout_missing(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The connection has no statement_timeout or idle_in_transaction_session_timeout; without lock_timeout: a note."""
    role = examination.connection.execute(text("SELECT quote_ident(session_user)")).scalar_one()
    for name, (value, risk, severity) in _TIMEOUTS.items():
        if examination.settings[name] == "0":
            sql = [f"ALTER ROLE {role} SET {name} = '{value}'"]
            words = f"{sql[0]}; or create_database(…, {_OPTIONS[name]}=…)" if name in _OPTIONS else ""
            yield Symptom(f"setting {name}", risk, sql, words, severity)


_OPTIONS = {
    "statement_timeout": "statement_timeout",
    "idle_in_transaction_session_timeout": "idle_in_transaction_timeout",
}
"""The options of the toolkit that set a timeout."""


@check(
    "too-many-connections",
    Severity.WARNING,
    on=POSTGRESQL,
    source="https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS",
)
def too_many_connections(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The pools of all processes may open more connections than the server has."""
    pools = examination.pools
    if pools is None:
        yield Unchecked(
            "it needs the number of processes, and a pool with a limit; pass --processes, or in Python processes=."
        )
        return
    settings = examination.settings
    reserved = sum(int(settings.get(name, 0)) for name in ("superuser_reserved_connections", "reserved_connections"))
    available = int(settings["max_connections"]) - reserved
    wanted = pools.connections * pools.processes
    if wanted > available * examination.limits.connections_share:
        most = max(int(available * examination.limits.connections_share) // pools.processes, 1)
        yield Symptom(
            "setting max_connections",
            f"{pools.processes} processes with pools of {pools.connections} may open {wanted} connections, but the "
            f"server has {available} for them: under load, new connections are refused.",
            remedy=f"Give the pools pool_size + max_overflow of at most {most} together, or put PgBouncer before the "
            f"server. To raise the limit: ALTER SYSTEM SET max_connections = {wanted + reserved + 10}, and restart.",
        )
