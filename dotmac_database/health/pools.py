"""The engine and the pools of a health check, and the use of the pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool, QueuePool

from ..engines import Database
from ..execution.state import sync_session
from ..sqlalchemy_internals import max_overflow


@dataclass(frozen=True, slots=True)
class Subject:
    """The ``engine`` to check, and all ``pools`` whose use is reported. The first pool is the pool of the engine."""

    engine: Engine
    pools: tuple[Pool, ...]

    def details(self) -> dict[str, Any]:
        """The use of the engine's pool, and of all pools if there are several."""
        use: dict[str, object] = {"pool": pool_use(self.engine.pool)}
        if len(self.pools) > 1:
            use["pools"] = [pool_use(pool) for pool in self.pools]
        return use

    def full(self) -> list[str]:
        """One message for each pool that has no free connection."""
        counts = ((pool.checkedout(), capacity(pool)) for pool in self.pools if isinstance(pool, QueuePool))
        return [
            f"the app's connection pool is full: {taken} of {allowed} connections are in use"
            for taken, allowed in counts
            if allowed is not None and taken >= allowed
        ]


def subject_of(target: Any, *, is_async: bool) -> Subject:
    """The engine and the pools of a session, an engine or a `Database`.

    If a `Database` has two engines, an engine with open connections is preferred. If that does not decide, it is the
    async engine for an async caller (``is_async``), and the sync engine for a sync caller. The pool of the other engine
    is counted only if it has open connections, too.
    """
    if not isinstance(target, Database):
        engine = _sync_engine(target)
        return Subject(engine, (engine.pool,))
    engines = [_sync_engine(each) for each in target.engines] or [_first_engine(target)]
    engines.sort(key=lambda each: (not _opened(each.pool), each.dialect.is_async is not is_async))
    used = (each for each in engines[1:] if _opened(each.pool))
    return Subject(engines[0], (engines[0].pool, *(each.pool for each in used)))


def capacity(pool: QueuePool) -> int | None:
    """The maximum number of connections of a pool; None: unlimited."""
    overflow = max_overflow(pool)
    return None if overflow < 0 else pool.size() + overflow


def pool_use(pool: Pool) -> dict[str, Any]:
    """The use of a pool, as details of a result."""
    if not isinstance(pool, QueuePool):
        return {"kind": type(pool).__name__}
    return {
        "kind": type(pool).__name__,
        "size": pool.size(),
        "checked_out": pool.checkedout(),
        "overflow": max(pool.overflow(), 0),
    }


def _opened(pool: Pool) -> bool:
    return isinstance(pool, QueuePool) and pool.checkedin() + pool.checkedout() > 0


def _first_engine(database: Database) -> Engine:
    """An engine for an app that has not used one yet: the async one if its driver is installed, else the sync one."""
    try:
        return database.async_engine.sync_engine
    except ModuleNotFoundError:
        return database.engine


def _sync_engine(target: object) -> Engine:
    if isinstance(target, AsyncEngine):
        return target.sync_engine
    return target if isinstance(target, Engine) else sync_session(target).get_bind().engine
