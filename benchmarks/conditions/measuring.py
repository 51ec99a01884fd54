"""Measures both ways of an operation in turns, after a comparison of their rows, and counts what they send."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ..wire import Proxy, Sent
from .ways import Operation, Way, Ways

_WARM_UP = 8
"""The calls before the measurement. psycopg prepares a statement, and asyncpg's plans become generic, after five."""

_NUMBERS = count()
"""The numbers of the calls. Each is used once, so that no update writes the value that a row has already."""


@dataclass
class Timing:
    """The time and the CPU time of each turn, in µs a call; and what one call sends, if it was counted."""

    times: list[float] = field(default_factory=list)
    cpu_times: list[float] = field(default_factory=list)
    sent: Sent | None = None

    @property
    def median(self) -> float:
        """The median time."""
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        low, _, high = statistics.quantiles(self.times, n=4)
        return (high - low) / self.median / 2

    @property
    def cpu(self) -> float:
        """The median CPU time of this process."""
        return statistics.median(self.cpu_times)

    def figures(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        sent = vars(self.sent) if self.sent is not None else {}
        return {"median_us": self.median, "spread": self.spread, "cpu_us": self.cpu, **sent}


@dataclass
class Cell:
    """The comparison of both ways for one operation. ``failure`` is the reason why nothing was measured."""

    by_hand: Timing = field(default_factory=Timing)
    toolkit: Timing = field(default_factory=Timing)
    failure: str | None = None

    @property
    def ratio(self) -> float:
        """The toolkit's time divided by the time by hand."""
        return self.toolkit.median / self.by_hand.median

    @property
    def cpu_ratio(self) -> float:
        """The toolkit's CPU time divided by the CPU time by hand. Other work on the machine affects it less."""
        return self.toolkit.cpu / self.by_hand.cpu

    def figures(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        if self.failure is not None:
            return {"failure": self.failure}
        return {
            "ratio": self.ratio,
            "cpu_ratio": self.cpu_ratio,
            "by_hand": self.by_hand.figures(),
            "toolkit": self.toolkit.figures(),
        }


@asynccontextmanager
async def _without_collections() -> AsyncIterator[None]:
    """Keep the garbage collector off in this block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _called(operation: Operation, way: Way, n: int) -> Any:
    """The outcome of one call, after which the way rests."""
    outcome = operation.work(way, n)
    if way.is_async:
        outcome = await outcome
    await way.rest()
    return outcome


async def _difference(operation: Operation, ways: Ways) -> str | None:
    """Why the ways can't be compared; None: they return the same rows. The calls also warm up both ways."""
    try:
        for n in (next(_NUMBERS) for _ in range(_WARM_UP)):
            by_hand = await _called(operation, ways.by_hand, n)
            toolkit = await _called(operation, ways.toolkit, n)
            if by_hand != toolkit:
                return f"different rows: {str(by_hand)[:200]} by hand, {str(toolkit)[:200]} by the toolkit"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


async def _turn(operation: Operation, way: Way, timing: Timing) -> None:
    """Measure one turn. A sync way is called in the thread of the loop, so that no change of threads is measured."""
    work, numbers = operation.work, [next(_NUMBERS) for _ in range(operation.calls)]
    started, cpu_started = time.perf_counter(), time.process_time()
    if way.is_async:
        for n in numbers:
            await work(way, n)
    else:
        for n in numbers:
            work(way, n)
    ended, cpu_ended = time.perf_counter(), time.process_time()
    await way.rest()
    timing.times.append((ended - started) / operation.calls * 1e6)
    timing.cpu_times.append((cpu_ended - cpu_started) / operation.calls * 1e6)


async def measured(operation: Operation, ways: Ways, rounds: int) -> Cell:
    """The times of both ways. In each round both have a turn; the first of a round is the second of the next one."""
    cell = Cell(failure=await _difference(operation, ways))
    if cell.failure is not None:
        return cell
    turns = [(ways.toolkit, cell.toolkit), (ways.by_hand, cell.by_hand)]
    async with _without_collections():
        for _ in range(rounds):
            for way, timing in turns:
                await _turn(operation, way, timing)
            turns.reverse()
    return cell


async def counted(operation: Operation, way: Way, proxy: Proxy) -> Sent:
    """What one call sends through the proxy, after calls that prepare its statements.

    A sync way is called in another thread, since the proxy runs in this one.
    """
    sent = Sent()
    for _ in range(_WARM_UP):
        proxy.sent = Sent()
        n = next(_NUMBERS)
        if way.is_async:
            await operation.work(way, n)
        else:
            await asyncio.to_thread(operation.work, way, n)
        sent = proxy.sent
        proxy.sent = Sent()
        await way.rest()
    return sent
