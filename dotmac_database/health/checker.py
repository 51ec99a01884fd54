"""Health checks that never raise, and always return within their timeouts."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from ..dialects import translate
from ..engines import Database
from .pools import Subject, subject_of
from .probes import CheckQueries, Verifier
from .result import HealthCheckResult, HealthStatus
from .shared_checks import Outcome, in_memory, shared_check, shared_check_async

Target = Session | Engine | AsyncSession | AsyncEngine | Database

_DISK_NEEDED = 100 * 2**20
_VERSION = "SELECT sqlite_version()"


class Breaker(Protocol):
    """An object with the state of a circuit breaker."""

    @property
    def state(self) -> str:
        """``"closed"``, ``"open"`` or ``"half_open"``."""
        ...


class DatabaseHealthChecker:
    """Checks a database. Times are in seconds.

    A check returns within ``connection_timeout`` + ``query_timeout``, whatever the server does, and never raises. It
    uses a connection of its own, so that the session's transaction and the pool are not affected, and concurrent
    callers share one check. For a `Database`, it checks the engine that is in use, and the pools of both engines if
    both are in use. The state of ``breaker`` and the findings of ``security`` (a `RowLevelSecurity`) are included.
    Statements whose average time is above ``slow_query_threshold`` are listed if ``pg_stat_statements`` is installed.

    The result is degraded, for example, if a pool is full (all its connections are in use, so that others wait), if a
    round trip takes longer than ``slow_query_threshold``, if replication lags by more than
    ``replication_lag_threshold`` (None: this does not matter), if the circuit of ``breaker`` is not closed, or if there
    are findings. The lag is checked on a primary as well as on a standby.
    """

    def __init__(
        self,
        connection_timeout: float = 5.0,
        query_timeout: float = 10.0,
        slow_query_threshold: float = 1.0,
        *,
        breaker: Breaker | None = None,
        security: Verifier | None = None,
        replication_lag_threshold: float | None = 60.0,
    ) -> None:
        self.connection_timeout = connection_timeout
        self.query_timeout = query_timeout
        self.slow_query_threshold = slow_query_threshold
        self.breaker = breaker
        self.security = security
        self.replication_lag_threshold = replication_lag_threshold

    def check_connectivity(self, session: Target) -> HealthCheckResult:
        """Whether the database responds to one statement, and how fast."""
        return self._check(session, "connectivity")

    def check_health(self, session: Target) -> HealthCheckResult:
        """The database's health. Details: latency, server, pool, connections, locks, replication and storage."""
        return self._check(session, "health")

    async def async_check_connectivity(self, session: Target) -> HealthCheckResult:
        """As `check_connectivity`."""
        return await self._check_async(session, "connectivity")

    async def async_check_health(self, session: Target) -> HealthCheckResult:
        """As `check_health`."""
        return await self._check_async(session, "health")

    @property
    def _time_limit(self) -> float:
        return self.connection_timeout + self.query_timeout

    def _work(self, kind: str) -> Any:
        queries = CheckQueries(self.query_timeout, self.slow_query_threshold, self.security)
        return queries.whole if kind == "health" else queries.connectivity

    def _key(self, kind: str) -> str:
        # A check with another verifier runs other queries, so it can't be shared.
        return kind if self.security is None or kind != "health" else f"{kind} {id(self.security)}"

    def _check(self, target: object, kind: str) -> HealthCheckResult:
        started = time.perf_counter()
        try:
            subject = subject_of(target, is_async=False)
            engine = subject.engine
            driver = in_memory(engine)
            if driver is not None and not engine.dialect.is_async:
                return self._completed(subject, _shared_connection(started, driver.execute(_VERSION).fetchone()))
            check = shared_check(engine, self._key(kind), self._time_limit, self._work(kind))
        except Exception as error:  # noqa: BLE001 - a health check never raises
            return self._unknown(error)
        try:
            outcome = check.outcome.result(self._remaining(started))
        except FutureTimeout:
            return self._timed_out(started)
        return self._completed(subject, outcome)

    async def _check_async(self, target: object, kind: str) -> HealthCheckResult:
        started = time.perf_counter()
        try:
            subject = subject_of(target, is_async=True)
            engine = subject.engine
            driver = in_memory(engine)
            if driver is not None:
                cursor = await driver.execute(_VERSION) if engine.dialect.is_async else driver.execute(_VERSION)
                row = await cursor.fetchone() if engine.dialect.is_async else cursor.fetchone()
                return self._completed(subject, _shared_connection(started, row))
            check = shared_check_async(engine, self._key(kind), self._time_limit, self._work(kind))
        except Exception as error:  # noqa: BLE001 - a health check never raises
            return self._unknown(error)
        # `wait_for` is not used here: if this caller were cancelled, it would cancel the check for all callers.
        waiting = asyncio.wrap_future(check.outcome)
        done, _ = await asyncio.wait({waiting}, timeout=self._remaining(started))
        if done:
            return self._completed(subject, waiting.result())
        result = self._timed_out(started)
        await check.ending()
        return result

    def _remaining(self, started: float) -> float:
        return max(self._time_limit - (time.perf_counter() - started), 0)

    def _completed(self, subject: Subject, outcome: Outcome) -> HealthCheckResult:
        if outcome.failure is not None:
            return self._failed(outcome)
        details = {**outcome.details, **self._circuit(), **subject.details()}
        concerns = [*self._concerns(details), *subject.full()]
        return HealthCheckResult(
            HealthStatus.DEGRADED if concerns else HealthStatus.HEALTHY,
            "; ".join(concerns) or "The database answers.",
            outcome.duration_ms,
            details,
        )

    def _circuit(self) -> dict[str, object]:
        return {} if self.breaker is None else {"circuit": self.breaker.state}

    def _concerns(self, details: dict[str, Any]) -> list[str]:
        server, connections = details.get("server", {}), details.get("connections", {})
        free = details.get("storage", {}).get("disk_free_bytes")
        integrity = details.get("integrity", "ok")
        replication, findings = details.get("replication", {}), details.get("row_level_security")
        conditions = {
            "the round trip is slow": details["latency_ms"] > self.slow_query_threshold * 1000,
            "the server takes no writes": server.get("in_recovery") or server.get("read_only"),
            "the standby receives nothing from its primary": replication.get("receiving") is False
            and replication["lag_bytes"] is not None,
            "replication lags": self._lags(replication.get("lag_s")),
            "the server's connections are nearly used up": "used" in connections
            and connections["used"] > connections["allowed"] * 0.9,
            "the file is damaged": isinstance(integrity, str)
            and integrity != "ok"
            and not integrity.startswith("not checked"),
            "the circuit breaker is not closed": details.get("circuit", "closed") != "closed",
            "the disk is nearly full": free is not None and free < _DISK_NEEDED,
            "row-level security has holes": bool(findings) and isinstance(findings, list),
            "row-level security could not be verified": isinstance(findings, dict),
        }
        return [concern for concern, holds in conditions.items() if holds]

    def _lags(self, seconds: float | None) -> bool:
        allowed = self.replication_lag_threshold
        return seconds is not None and allowed is not None and seconds > allowed

    def _failed(self, outcome: Outcome) -> HealthCheckResult:
        failure = outcome.failure
        is_database_error = isinstance(failure, (DBAPIError, OSError)) or hasattr(failure, "sqlstate")
        if failure is None or not is_database_error:
            return self._unknown(failure, outcome.duration_ms)
        error = translate(failure)
        return HealthCheckResult(
            HealthStatus.UNHEALTHY,
            str(error),
            outcome.duration_ms,
            self._circuit(),
            error=f"{type(error).__name__}: {error}",
        )

    def _unknown(self, error: Exception | None, duration_ms: float = 0.0) -> HealthCheckResult:
        return HealthCheckResult(
            HealthStatus.UNKNOWN, "The check itself failed.", duration_ms, self._circuit(), error=type(error).__name__
        )

    def _timed_out(self, started: float) -> HealthCheckResult:
        message = f"The database did not answer within {self._time_limit:g} s."
        return HealthCheckResult(
            HealthStatus.UNHEALTHY,
            message,
            (time.perf_counter() - started) * 1000,
            self._circuit(),
            error=f"DatabaseTimeoutError: {message}",
        )


def _shared_connection(started: float, row: Any) -> Outcome:
    """The outcome for a database in memory. It is only read once, since other code may use its only connection."""
    took = (time.perf_counter() - started) * 1000
    details = {"latency_ms": round(took, 3), "server": {"version": row[0]}, "storage": {"file": None}}
    return Outcome(details, took)
