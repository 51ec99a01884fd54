"""`instrument`: metrics, spans and logs of one database."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, Engine, event

from ..dialects.features import has_transaction_settings
from ..engines import Database
from ..errors import MisuseError
from ..execution.settings import provide_for_transactions
from ..observers import Statement, attach
from .application_name import APPLICATION_NAME
from .extras import require
from .logs import DatabaseLogFilter, add_to_toolkit
from .slow import SlowStatements
from .subject import Subject, subject_of

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry

    from .metrics import DatabaseMetrics

_STARTED = "dotmac_database.transaction_started"
"""The key in a connection's ``info`` of the time at which its transaction began."""


class HasDatabase(Protocol):
    """A plugin, as `instrument` knows it."""

    @property
    def database(self) -> Database:
        """The database of the plugin."""
        ...

    @property
    def name(self) -> str:
        """The name that distinguishes the plugins of an app."""
        ...


class Sink(Protocol):
    """Records statements that have ended: as metrics, spans, or log records."""

    def record(self, statement: Statement, subject: Subject, tenant: object) -> None:
        """Record a statement, and the tenant of the repository that has sent it."""


class Instrumentation:
    """What `instrument` has attached to a database. ``name`` is the database's name in metrics.

    ``slow`` gets only statements that take ``slow.threshold`` seconds or more; None: there is no log of them.
    """

    def __init__(self, name: str, sinks: list[Sink], slow: SlowStatements | None = None) -> None:
        self.name = name
        self._records = tuple([sink.record for sink in sinks])
        self._slow = slow
        self._slow_from = inf if slow is None else slow.threshold
        self._ends: list[Callable[[], None]] = []

    def remove(self) -> None:
        """Detach everything. The metrics stay on the registry, and do not change any more."""
        while self._ends:
            self._ends.pop()()

    def at_removal(self, end: Callable[[], None]) -> None:
        """Call ``end`` when the instrumentation is removed."""
        self._ends.append(end)

    def observe_engine(self, engine: Engine) -> None:
        """See the statements of an engine from now on."""
        if self._records or self._slow is not None:
            self.at_removal(attach(engine, self._record))

    def _record(self, statement: Statement) -> None:
        is_slow = statement.seconds >= self._slow_from
        if not (is_slow or self._records):
            return
        subject, tenant = subject_of(statement)
        for record in self._records:
            record(statement, subject, tenant)
        if is_slow and self._slow is not None:
            self._slow.record(statement, subject)


def instrument(
    target: Database | HasDatabase,
    *,
    prometheus: CollectorRegistry | None = None,
    opentelemetry: TracerProvider | bool = True,
    name: str | None = None,
    slow_statement: float | None = None,
    tenant_label: int = 0,
    log_tenant: bool = False,
    application_name: bool = False,
) -> Instrumentation:
    """Measure the statements, transactions and pools of a `DatabasePlugin` or a `Database`. Sends nothing.

    ``prometheus`` is the registry of the metrics; None: there are none. Several databases may share a registry: their
    label ``database`` is ``name``, by default the plugin's name, or the name of the database. ``opentelemetry`` makes a
    span of each statement: by the global tracer provider (True), or by this one; False: none. ``slow_statement`` is the
    time from which on a statement is written to the log ``dotmac_database.slow_statements``, in seconds; None: never.

    ``tenant_label`` is the most tenants that have metrics of their own, 0: none has. Each tenant adds two series, and
    whoever can read the metrics can read the tenants' names; the tenants beyond the limit are one, ``other``. The
    toolkit's log records get the fields of `DatabaseLogFilter`, with the tenant if ``log_tenant`` is True.

    ``application_name``: each transaction of a request on PostgreSQL has the request's route, and the repository's
    method that has begun it, as its setting ``application_name``, at most 63 bytes, until it ends. It travels with
    BEGIN if a repository begins the transaction by asyncpg alone; otherwise it is one statement more in the
    transaction. Statements that the server commits by itself keep the connection's name.

    Calling it again for the same database replaces what the last call attached. Raises `MisuseError` if a package of
    the extra ``telemetry`` is missing, for a negative limit, or for ``application_name`` on another database.
    """
    database = target if isinstance(target, Database) else getattr(target, "database", None)
    if not isinstance(database, Database):
        raise MisuseError(f"instrument() takes a DatabasePlugin or a Database, not {type(target).__name__}.")
    if tenant_label < 0 or (slow_statement is not None and slow_statement < 0):
        raise MisuseError("tenant_label and slow_statement must not be negative.")
    if application_name and not has_transaction_settings(database.url.get_backend_name()):
        raise MisuseError("application_name is a setting of PostgreSQL's transactions.", field="application_name")
    label = name or (target.name if not isinstance(target, Database) else database.url.database) or "default"
    if isinstance(database.instrumentation, Instrumentation):
        database.instrumentation.remove()
    sinks: list[Sink] = []
    ends: list[Callable[[], None]] = []
    metrics: DatabaseMetrics | None = None
    if prometheus is not None:
        require("prometheus_client", "prometheus", None)
        from .metrics import DatabaseMetrics, metrics_of

        shared = metrics_of(prometheus)
        label = shared.pools.name_for(label, database)
        metrics = DatabaseMetrics(shared, label, tenant_label)
        sinks.append(metrics)
        ends.append(lambda: shared.pools.forget(label))
    if opentelemetry is not False:
        require("opentelemetry.trace", "opentelemetry", False)
        from .spans import Spans

        sinks.append(Spans(None if opentelemetry is True else opentelemetry, database.url))
    result = Instrumentation(label, sinks, None if slow_statement is None else SlowStatements(slow_statement))
    for end in ends:
        result.at_removal(end)
    _log_fields(result, tenant=log_tenant)
    result.at_removal(database.on_engine(result.observe_engine))
    if metrics is not None:
        timing = metrics
        result.at_removal(database.on_engine(lambda engine: result.at_removal(time_transactions(engine, timing))))
    if application_name:
        result.at_removal(
            database.on_engine(lambda engine: result.at_removal(provide_for_transactions(engine, APPLICATION_NAME)))
        )
    database.instrumentation, database.is_observed = result, True
    return result


def _log_fields(result: Instrumentation, *, tenant: bool) -> None:
    log_filter = DatabaseLogFilter(tenant=tenant)
    for logger in add_to_toolkit(log_filter):
        result.at_removal(lambda logger=logger: logger.removeFilter(log_filter))  # type: ignore[misc]  # mypy can't infer the default's type


def time_transactions(engine: Engine, metrics: DatabaseMetrics) -> Callable[[], None]:
    """Measure the transactions of an engine. Returns a function that ends this.

    The listeners stay, because another thread may be calling them, and SQLAlchemy does not lock them. A later call for
    the same engine uses them again.
    """
    current: list[DatabaseMetrics] | None = vars(engine).get(_TIMED)
    if current is None:
        current = []
        setattr(engine, _TIMED, current)
        _time_transactions(engine, current)
    current.append(metrics)
    return lambda: current.remove(metrics)


_TIMED = "_dotmac_timed"
"""The attribute of an engine whose transactions are measured, with a list of where they are recorded."""


def _time_transactions(engine: Engine, current: list[DatabaseMetrics]) -> None:
    def begin(connection: Connection) -> None:
        if current and connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.info[_STARTED] = perf_counter()

    def ending(outcome: str) -> Callable[[Connection], None]:
        def end(connection: Connection) -> None:
            started = connection.info.pop(_STARTED, None) if current and not connection.invalidated else None
            if started is not None:
                seconds = perf_counter() - started
                for metrics in current:
                    metrics.record_transaction(outcome, seconds)

        end.dotmac_internal = True  # type: ignore[attr-defined]  # see `dotmac_database.departures`
        return end

    begin.dotmac_internal = True  # type: ignore[attr-defined]  # as above
    event.listen(engine, "begin", begin)
    event.listen(engine, "commit", ending("commit"))
    event.listen(engine, "rollback", ending("rollback"))
