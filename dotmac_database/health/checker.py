"""Health checks that never raise and never outlast their timeouts.

A check runs on a connection of its own, beside the pool: a full pool can't keep it waiting, and it can't fill the
pool. There is one check at a time for an engine and kind, however many callers ask: they share its result.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool, StaticPool

from ..dialects import translate
from ..errors import DatabaseError
from ..sessions import sync_session
from .probes import connectivity, examine
from .result import HealthCheckResult, HealthStatus

Target = Session | Engine | AsyncSession | AsyncEngine
Work = Callable[[Connection], dict[str, Any]]


class Breaker(Protocol):
    """Whatever has the state of a circuit breaker."""

    @property
    def state(self) -> str:
        """``"closed"``, ``"open"`` or ``"half_open"``."""
        ...


_LOCK = threading.Lock()
_THREADS: WeakKeyDictionary[Engine, dict[str, Future[HealthCheckResult]]] = WeakKeyDictionary()
_TASKS: WeakKeyDictionary[Engine, dict[Any, asyncio.Task[HealthCheckResult]]] = WeakKeyDictionary()


class DatabaseHealthChecker:
    """Checks a database. Times are in seconds.

    A check returns within ``connection_timeout`` + ``query_timeout``, whatever the server does. A round trip longer than
    ``slow_query_threshold`` counts as degraded. ``breaker`` has its state shown.
    """

    def __init__(
        self,
        connection_timeout: float = 5.0,
        query_timeout: float = 10.0,
        slow_query_threshold: float = 1.0,
        *,
        breaker: Breaker | None = None,
    ) -> None:
        self.connection_timeout = connection_timeout
        self.query_timeout = query_timeout
        self.slow_query_threshold = slow_query_threshold
        self.breaker = breaker

    def check_connectivity(self, session: Session | Engine) -> HealthCheckResult:
        """Whether the database answers one statement, and how quickly. The session's own transaction is not touched."""
        return self._check(session, "connectivity", connectivity)

    def check_health(self, session: Session | Engine) -> HealthCheckResult:
        """The database's health, with latency, server, pool, connections, locks, replication and storage as details."""
        return self._check(session, "health", self._examined)

    async def async_check_connectivity(self, session: AsyncSession | AsyncEngine) -> HealthCheckResult:
        """As `check_connectivity`."""
        return await self._check_async(session, "connectivity", connectivity)

    async def async_check_health(self, session: AsyncSession | AsyncEngine) -> HealthCheckResult:
        """As `check_health`."""
        return await self._check_async(session, "health", self._examined)

    @property
    def _allowed(self) -> float:
        return self.connection_timeout + self.query_timeout

    def _examined(self, connection: Connection) -> dict[str, Any]:
        return {**connectivity(connection), **examine(connection, self.query_timeout)}

    def _check(self, target: Any, kind: str, work: Work) -> HealthCheckResult:
        started = time.perf_counter()
        try:
            engine = _engine_of(target)
        except DatabaseError as error:
            return HealthCheckResult(HealthStatus.UNKNOWN, str(error), error=type(error).__name__)
        with _LOCK:
            flights = _THREADS.setdefault(engine, {})
            flight = flights.get(kind)
            if flight is None or flight.done():
                flight = flights[kind] = Future()
                # A daemon: where the server is frozen for good it must not keep the process alive.
                threading.Thread(target=self._fly, args=(engine, work, flight), daemon=True).start()
        try:
            return flight.result(self._allowed)
        except FutureTimeout:
            return self._silent(started)

    def _fly(self, engine: Engine, work: Work, flight: Future[HealthCheckResult]) -> None:
        flight.set_result(self._run(engine, work))

    async def _check_async(self, target: Any, kind: str, work: Work) -> HealthCheckResult:
        started = time.perf_counter()
        try:
            engine = _engine_of(target)
        except DatabaseError as error:
            return HealthCheckResult(HealthStatus.UNKNOWN, str(error), error=type(error).__name__)
        key = (kind, id(asyncio.get_running_loop()))
        flights = _TASKS.setdefault(engine, {})
        flight = flights.get(key)
        if flight is None or flight.done():
            flight = flights[key] = asyncio.create_task(self._fly_async(engine, work))
        done, _ = await asyncio.wait({flight}, timeout=self._allowed)
        if not done:
            flight.cancel()
            return self._silent(started)
        if flight.cancelled():
            return self._silent(started)
        return flight.result()

    async def _fly_async(self, engine: Engine, work: Work) -> HealthCheckResult:
        beside = AsyncEngine(_beside_the_pool(engine))
        started = time.perf_counter()
        try:
            async with beside.connect() as connection:
                details = await connection.run_sync(lambda sync: self._work(sync, work))
            return self._judged(engine, details, started)
        except (SQLAlchemyError, OSError) as error:
            return self._failed(error, started)
        finally:
            if not isinstance(engine.pool, StaticPool):
                await beside.dispose()

    def _run(self, engine: Engine, work: Work) -> HealthCheckResult:
        started = time.perf_counter()
        try:
            beside = _beside_the_pool(engine)
            try:
                with beside.connect() as connection:
                    details = self._work(connection, work)
            finally:
                if not isinstance(engine.pool, StaticPool):
                    beside.dispose()
            return self._judged(engine, details, started)
        except (SQLAlchemyError, OSError) as error:
            return self._failed(error, started)
        except Exception as error:  # noqa: BLE001 - a health check never raises
            return HealthCheckResult(HealthStatus.UNKNOWN, "The check itself failed.", error=type(error).__name__)

    def _work(self, connection: Connection, work: Work) -> dict[str, Any]:
        if connection.dialect.name == "postgresql":
            limit = round(self.query_timeout * 1000)
            connection.execute(text(f"SET statement_timeout = {limit}"))
            connection.commit()
        return work(connection)

    def _judged(self, engine: Engine, details: dict[str, Any], started: float) -> HealthCheckResult:
        if self.breaker is not None:
            details["circuit"] = self.breaker.state
        details["pool"] = _pool_use(engine)
        concerns = list(self._concerns(details))
        return HealthCheckResult(
            HealthStatus.DEGRADED if concerns else HealthStatus.HEALTHY,
            "; ".join(concerns) or "The database answers.",
            (time.perf_counter() - started) * 1000,
            details,
        )

    def _concerns(self, details: dict[str, Any]) -> list[str]:
        concerns: list[str] = []
        server, connections = details.get("server", {}), details.get("connections", {})
        if details["latency_ms"] > self.slow_query_threshold * 1000:
            concerns.append("the round trip is slow")
        if server.get("in_recovery") or server.get("read_only"):
            concerns.append("the server takes no writes")
        if "used" in connections and connections["used"] > connections["allowed"] * 0.9:
            concerns.append("the server's connections are nearly used up")
        if details.get("integrity", "ok") != "ok":
            concerns.append("the file is damaged")
        if details.get("circuit", "closed") != "closed":
            concerns.append("the circuit breaker is not closed")
        free = details.get("storage", {}).get("disk_free_bytes")
        if free is not None and free < 100 * 2**20:
            concerns.append("the disk is nearly full")
        return concerns

    def _failed(self, error: BaseException, started: float) -> HealthCheckResult:
        failure = translate(error)
        return HealthCheckResult(
            HealthStatus.UNHEALTHY,
            str(failure),
            (time.perf_counter() - started) * 1000,
            {} if self.breaker is None else {"circuit": self.breaker.state},
            error=f"{type(failure).__name__}: {failure}",
        )

    def _silent(self, started: float) -> HealthCheckResult:
        message = f"The database did not answer within {self._allowed:g} s."
        return HealthCheckResult(
            HealthStatus.UNHEALTHY,
            message,
            (time.perf_counter() - started) * 1000,
            {} if self.breaker is None else {"circuit": self.breaker.state},
            error=f"DatabaseTimeoutError: {message}",
        )


def _engine_of(target: Any) -> Engine:
    if isinstance(target, AsyncEngine):
        return target.sync_engine
    if isinstance(target, Engine):
        return target
    try:
        return sync_session(target).get_bind().engine
    except SQLAlchemyError as error:
        raise translate(error) from None


def _beside_the_pool(engine: Engine) -> Engine:
    """An engine whose connections are its own; a database in memory has just the one that there is."""
    if isinstance(engine.pool, StaticPool):
        return engine
    return Engine(engine.pool.recreate(), engine.dialect, engine.url)


def _pool_use(engine: Engine) -> dict[str, Any]:
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return {"kind": type(pool).__name__}
    return {
        "kind": type(pool).__name__,
        "size": pool.size(),
        "checked_out": pool.checkedout(),
        "overflow": max(pool.overflow(), 0),
    }
