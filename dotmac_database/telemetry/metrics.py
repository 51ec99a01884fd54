"""The metrics of Prometheus. Needs ``prometheus-client``, of the extra ``telemetry``.

========================================================  ==========================================  =========
metric                                                    labels                                      kind
========================================================  ==========================================  =========
dotmac_database_statement_duration_seconds                database, operation, model, outcome         histogram
dotmac_database_transaction_duration_seconds              database, outcome (commit, rollback)        histogram
dotmac_database_retry_attempts_total                      operation, outcome                          counter
dotmac_database_circuit_breaker_changes_total             breaker, state                              counter
dotmac_database_tenant_refusals_total                     error                                       counter
dotmac_database_tenant_statements_total                   database, tenant (only if asked for)        counter
dotmac_database_tenant_statement_seconds_total            database, tenant (only if asked for)        counter
dotmac_database_pool_*                                    database, engine (async, sync)              gauge
========================================================  ==========================================  =========

No label has a value that a client chooses, except the tenant, whose values are limited in number.
"""

from __future__ import annotations

from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Histogram

from ..errors import REFUSAL_HOOKS, DatabaseError
from ..observers import Statement
from ..retry.breaker import EVERY_CHANGE, CircuitChange
from ..retry.policy import EVERY_ATTEMPT, RetryAttempt
from .pools import PoolCollector
from .subject import Subject

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The upper bounds of the histograms' buckets, in seconds."""

MAX_NAMES = 100
"""The most operations that are retried, and the most breakers, that are told apart; the others are ``other``."""


class BoundedNames:
    """At most ``limit`` different values of a label. The values that come later are ``other``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[str] = set()

    def __call__(self, name: str) -> str:
        """The value for the label."""
        if name not in self._names:
            if len(self._names) >= self._limit:
                return "other"
            self._names.add(name)
        return name


class Metrics:
    """The metrics on one registry, which all instrumented databases share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        histogram = partial(Histogram, buckets=BUCKETS, registry=registry)
        counter = partial(Counter, registry=registry)
        self.statements = histogram(
            "dotmac_database_statement_duration_seconds",
            "How long a statement took, from sending it to the database's answer.",
            ("database", "operation", "model", "outcome"),
        )
        self.transactions = histogram(
            "dotmac_database_transaction_duration_seconds",
            "How long a transaction was open, until its COMMIT or ROLLBACK.",
            ("database", "outcome"),
        )
        self.retries = counter(
            "dotmac_database_retry_attempts",
            "Attempts of operations that are retried after transient failures.",
            ("operation", "outcome"),
        )
        self.breakers = counter(
            "dotmac_database_circuit_breaker_changes",
            "Changes of the state of circuit breakers, by the new state.",
            ("breaker", "state"),
        )
        self.refusals = counter(
            "dotmac_database_tenant_refusals",
            "What the tenant guard, a repository or a policy has refused.",
            ("error",),
        )
        self.tenant_statements = counter(
            "dotmac_database_tenant_statements",
            "Statements of a tenant's repositories.",
            ("database", "tenant"),
        )
        self.tenant_seconds = counter(
            "dotmac_database_tenant_statement_seconds",
            "The time of the statements of a tenant's repositories.",
            ("database", "tenant"),
        )
        self.pools = PoolCollector()
        registry.register(self.pools)
        self._operations, self._names = BoundedNames(MAX_NAMES), BoundedNames(MAX_NAMES)
        EVERY_ATTEMPT.append(self._attempted)
        EVERY_CHANGE.append(self._changed)
        REFUSAL_HOOKS.append(self._refused)

    def _attempted(self, attempt: RetryAttempt) -> None:
        self.retries.labels(self._operations(attempt.operation), attempt.outcome).inc()

    def _changed(self, change: CircuitChange) -> None:
        self.breakers.labels(self._names(change.name or ""), change.after).inc()

    def _refused(self, error: DatabaseError) -> None:
        self.refusals.labels(type(error).__name__).inc()


_METRICS: WeakKeyDictionary[CollectorRegistry, Metrics] = WeakKeyDictionary()
_lock = Lock()


def metrics_of(registry: CollectorRegistry) -> Metrics:
    """The metrics on a registry, which are registered at the first call."""
    with _lock:
        metrics = _METRICS.get(registry)
        if metrics is None:
            metrics = _METRICS[registry] = Metrics(registry)
        return metrics


class DatabaseMetrics:
    """The metrics of one database. ``tenants`` is the most tenants that get a label; 0: none gets one."""

    def __init__(self, metrics: Metrics, database: str, tenants: int) -> None:
        self._metrics = metrics
        self._database = database
        self._tenants = BoundedNames(tenants) if tenants else None
        self._statements: dict[tuple[str, str, bool], Histogram] = {}
        self._transactions = {
            outcome: metrics.transactions.labels(database, outcome) for outcome in ("commit", "rollback")
        }

    def record(self, statement: Statement, subject: Subject, tenant: object) -> None:
        """Record a statement that has ended, and the tenant of the repository that has sent it."""
        key = (subject.operation, subject.model, statement.error is None)
        histogram = self._statements.get(key)
        if histogram is None:
            outcome = "ok" if statement.error is None else "error"
            labels = (self._database, subject.operation, subject.model, outcome)
            histogram = self._statements[key] = self._metrics.statements.labels(*labels)
        histogram.observe(statement.seconds)
        if self._tenants is not None and tenant is not None:
            name = self._tenants(str(tenant))
            self._metrics.tenant_statements.labels(self._database, name).inc()
            self._metrics.tenant_seconds.labels(self._database, name).inc(statement.seconds)

    def record_transaction(self, outcome: str, seconds: float) -> None:
        """Record a transaction that has ended by ``commit`` or ``rollback``."""
        self._transactions[outcome].observe(seconds)
