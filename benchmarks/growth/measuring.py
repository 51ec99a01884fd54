"""Measures an operation at several sizes: times in turns, and exact numbers of buffers, statements and round trips."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.postgres import OwnServer

from ..conditions.measuring import Cell, Timing, counted, measured
from ..conditions.site import async_engine
from ..conditions.ways import Operation, Way, Ways
from ..wire import Proxy, Sent
from .operations import Grown
from .sizes import GrownSubject, Size, owner, tidy
from .ways import ways_on

_BLOCKS = """
SELECT coalesce(heap_blks_hit + heap_blks_read, 0) + coalesce(idx_blks_hit + idx_blks_read, 0)
FROM pg_statio_user_tables WHERE relname = 'bench_users'
"""
_COUNTED_CALLS = 40
"""The most calls whose buffers are counted."""

_TURNS = 3
"""The turns of each way at one size, before the next size has its turns. So a slow moment affects all sizes."""

_NUMBERS = count(1_000_000)


@dataclass(frozen=True)
class Figures:
    """One operation by one way at one size. Times are in µs a call, buffers (8 KiB each) are those of a call."""

    median: float
    low: float
    high: float
    cpu: float
    buffers: float
    statements: int
    trips: int


@dataclass
class Place:
    """A filled database, both ways on it, and the same ways through a proxy that counts."""

    server: OwnServer
    size: Size
    engine: AsyncEngine
    ways: Ways
    over_proxy: Ways

    async def buffers(self, operation: Operation, way: Way, calls: int) -> float:
        """The buffers of the table and its indexes that one call reads or changes, as PostgreSQL counts them."""
        before = await self._blocks()
        for _ in range(calls):
            await operation.work(way, next(_NUMBERS))
        return (await self._blocks() - before) / calls

    async def _blocks(self) -> int:
        async with self.engine.connect() as connection:  # the only connection of the pool, which the ways use too
            await connection.execute(text("SELECT pg_stat_force_next_flush()"))
            await connection.commit()
        with owner(self.server, self.size.database) as connection:
            return int(connection.scalar(text(_BLOCKS)) or 0)


@asynccontextmanager
async def opened(server: OwnServer, proxy: Proxy, subjects: dict[Size, GrownSubject]) -> AsyncIterator[list[Place]]:
    """The places of all sizes."""
    async with AsyncExitStack() as stack:
        places = []
        for size, subject in subjects.items():
            url = server.url("asyncpg", size.database)
            engine = await stack.enter_async_context(async_engine(url))
            counting = await stack.enter_async_context(async_engine(url.replace(f":{server.port}/", f":{proxy.port}/")))
            ways, over_proxy = await ways_on(engine, subject), await ways_on(counting, subject)
            places.append(Place(server, size, engine, ways, over_proxy))
        yield places


async def times_of(operation: Operation, places: list[Place], rounds: int) -> list[Cell]:
    """The times of both ways at each size. Raises `RuntimeError` if the ways return different rows."""
    cells = [Cell() for _ in places]
    for _ in range(max(1, rounds // _TURNS)):
        for place, cell in zip(places, cells, strict=True):
            part = await measured(operation, place.ways, _TURNS)
            if part.failure is not None:
                raise RuntimeError(f"{operation.title} at {place.size}: {part.failure}")
            for timing, more in ((cell.by_hand, part.by_hand), (cell.toolkit, part.toolkit)):
                timing.times += more.times
                timing.cpu_times += more.cpu_times
    return cells


async def grown(each: Grown, places: list[Place], proxy: Proxy, rounds: int) -> list[dict[str, Figures]]:
    """The figures of both ways at each size, by the names of the ways."""
    for place in places:
        tidy(place.server, place.size)
    cells = await times_of(each.operation, places, rounds)
    outcomes = []
    for place, cell in zip(places, cells, strict=True):
        figures = {}
        for name in ("toolkit", "by_hand"):
            buffers = await place.buffers(each.operation, getattr(place.ways, name), min(_COUNTED_CALLS, 2 * rounds))
            sent = await counted(each.operation, getattr(place.over_proxy, name), proxy)
            figures[name] = _figures(getattr(cell, name), buffers, sent)
        outcomes.append(figures)
    return outcomes


def _figures(timing: Timing, buffers: float, sent: Sent) -> Figures:
    low, median, high = statistics.quantiles(timing.times, n=4)
    return Figures(median, low, high, timing.cpu, round(buffers, 1), sent.statements, sent.trips)
