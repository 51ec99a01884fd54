"""Checks of what the sessions of the database do now."""

# ruff: noqa: S608 - constants

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from ..examination import Examination
from ..findings import Severity
from ..registry import POSTGRESQL, Symptom, Unchecked, check


@check(
    "long-transaction",
    Severity.WARNING,
    on=POSTGRESQL,
    source="https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND",
)
def long_transaction(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A transaction that runs statements for a long time, or a prepared one that nobody ends."""
    yield from _sessions(
        examination,
        _LONG,
        examination.limits.transaction_seconds,
        "The transaction is {seconds:.0f} s old. VACUUM can't remove rows that it may still see, and its locks stay.",
    )


@check(
    "idle-in-transaction",
    Severity.WARNING,
    on=POSTGRESQL,
    source="https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT",
)
def idle_in_transaction(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A session that does nothing in an open transaction."""
    yield from _sessions(
        examination,
        _IDLE,
        examination.limits.idle_seconds,
        "The session has sent nothing for {seconds:.0f} s in an open transaction: its locks stay, and VACUUM can't "
        "remove rows that it may still see.",
    )


def _sessions(examination: Examination, query: str, seconds: float, risk: str) -> Iterator[Symptom | Unchecked]:
    hidden = 0
    for row in examination.connection.execute(text(query), {"seconds": seconds}):
        if row.seconds is None:
            hidden += 1
            continue
        yield Symptom(row.label, risk.format(seconds=row.seconds), [row.remedy])
    if hidden:
        yield Unchecked(f"the role sees nothing of {hidden} sessions of other roles; grant it pg_monitor.")


# pg_stat_activity shows a role only its own sessions, unless it is a member of pg_read_all_stats. The statements of
# sessions are left out of the report, since they can contain values.
_SESSION = """
SELECT 'session ' || pid || ' of ' || coalesce(usename, 'the server')
    || coalesce(' (' || nullif(application_name, '') || ')', '') AS label,
  'SELECT pg_terminate_backend(' || pid || ')' AS remedy
"""

_LONG = f"""
{_SESSION}, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND (backend_type IS NULL OR backend_type = 'client backend' AND state IN ('active', 'fastpath function call')
    AND clock_timestamp() - xact_start >= make_interval(secs => :seconds))
UNION ALL
SELECT 'prepared transaction ' || quote_literal(gid), 'ROLLBACK PREPARED ' || quote_literal(gid),
  extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_prepared_xacts WHERE database = current_database()
  AND clock_timestamp() - prepared >= make_interval(secs => :seconds)
ORDER BY 3 DESC
"""

_IDLE = f"""
{_SESSION}, extract(epoch FROM clock_timestamp() - state_change)::float8 AS seconds
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND (backend_type IS NULL OR state LIKE 'idle in transaction%'
    AND clock_timestamp() - state_change >= make_interval(secs => :seconds))
ORDER BY 3 DESC
"""
