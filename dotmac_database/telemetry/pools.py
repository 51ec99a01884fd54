"""The use of the connection pools, read when Prometheus scrapes them. Needs ``prometheus-client``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import ref

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy.pool import QueuePool

from ..engines import Database
from ..sqlalchemy_internals import waiting_for

_GAUGES: dict[str, tuple[str, Callable[[QueuePool], int]]] = {
    "size": ("Connections that the pool keeps open.", QueuePool.size),
    "checked_out": ("Connections that are in use.", QueuePool.checkedout),
    "checked_in": ("Open connections that are not in use.", QueuePool.checkedin),
    "overflow": ("Open connections beyond the pool's size.", lambda pool: max(pool.overflow(), 0)),
    "waiting": ("Calls that wait for a connection, because all are in use.", waiting_for),
}


class PoolCollector:
    """The pools of all instrumented databases."""

    def __init__(self) -> None:
        self._databases: dict[str, ref[Database]] = {}

    def name_for(self, name: str, database: Database) -> str:
        """The label of a database: its name, with a number if another database has the name already."""
        candidate, number = name, 2
        while self._is_taken(candidate, database):
            candidate, number = f"{name}-{number}", number + 1
        self._databases[candidate] = ref(database)
        return candidate

    def forget(self, name: str) -> None:
        """Show the pools of this database no more."""
        self._databases.pop(name, None)

    def _is_taken(self, name: str, database: Database) -> bool:
        reference = self._databases.get(name)
        other = None if reference is None else reference()
        return other is not None and other is not database

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauges without values, so that registering them reads no pool."""
        for name, (text, _) in _GAUGES.items():
            yield GaugeMetricFamily(f"dotmac_database_pool_{name}", text, labels=("database", "engine"))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of all pools that were opened so far. Sends nothing."""
        pools = [
            ((name, "async" if engine.dialect.is_async else "sync"), engine.pool)
            for name, reference in list(self._databases.items())
            for database in (reference(),)
            for engine in (() if database is None else database.engines)
            if isinstance(engine.pool, QueuePool)
        ]
        for gauge, (_, read) in zip(self.describe(), _GAUGES.values(), strict=True):
            for labels, pool in pools:
                gauge.add_metric(labels, read(pool))
            yield gauge
