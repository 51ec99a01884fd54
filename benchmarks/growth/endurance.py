"""Runs many random calls, and checks at each sample that no cache exceeds its bound, and that the memory stays flat."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from .caches import Caches, Size

_SAMPLES = 25
"""The samples in each quarter of a run."""

MOST_BLOCKS = 0.5
"""The highest accepted number of further blocks of memory for each call of the second half of a run.

An object that stays behind after each call is at least one block. The drivers' own caches make a difference of some
thousands of blocks from one quarter to the next.
"""

MOST_PEAK = 1.1
"""The highest accepted ratio of the highest number of blocks in the last quarter to that in the second."""

FEWEST_CALLS = 20_000
"""The calls that a run needs for a verdict on memory, and for more than one sample in each quarter.

In a shorter run, many things are used for the first time.
"""


@dataclass
class Endurance:
    """A run. Blocks are the blocks of memory that Python has allocated: ``sys.getallocatedblocks()``.

    ``samples``: the number of calls, the blocks, and the memory of the process in MiB, with whatever is in the caches.
    ``blocks``: the blocks after each quarter, when the caches were emptied. ``largest``: the largest size of each
    cache, and its bound. ``exceeded``: caches that exceeded their bounds. ``outcomes``: how often calls had which
    outcome.
    """

    name: str
    calls: int
    samples: list[tuple[int, int, float]] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    largest: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    exceeded: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def blocks_per_call(self) -> float:
        """The blocks that a call of the second half has left behind."""
        return (self.blocks[3] - self.blocks[1]) / (self.calls / 2)

    @property
    def peaks(self) -> list[int]:
        """The highest number of blocks in each quarter."""
        quarter = len(self.samples) // 4
        return [max(blocks for _, blocks, _ in self.samples[n * quarter : (n + 1) * quarter]) for n in range(4)]

    @property
    def failures(self) -> list[str]:
        """What grows, although it must not."""
        failures = [*self.exceeded]
        if self.calls >= FEWEST_CALLS:
            if self.blocks_per_call > MOST_BLOCKS:
                failures.append(f"{self.blocks_per_call:.2f} blocks of memory stay behind for each call")
            if self.peaks[3] > MOST_PEAK * self.peaks[1]:
                failures.append(f"the peak of memory grows from {self.peaks[1]:,} to {self.peaks[3]:,} blocks")
        return failures

    def as_json(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, figures: dict[str, Any]) -> Endurance:
        """The run from the figures of a JSON file."""
        return cls(**figures)


async def endured(name: str, calls: int, call: Callable[[], Awaitable[str]], caches: Callable[[], Caches]) -> Endurance:
    """Make the calls. ``call`` makes one and returns the name of its outcome. ``caches`` is called for each sample."""
    run = Endurance(name, calls)
    outcomes: Counter[str] = Counter()
    process = psutil.Process()
    samples = _SAMPLES if calls >= FEWEST_CALLS else 1
    step = max(1, calls // samples // 4)
    at_first, baseline = caches().sizes(), dict[str, Size]()
    for number in range(1, calls + 1):
        outcomes[await call()] += 1
        if number % step:
            continue
        gc.collect()
        sizes = caches().sizes()
        run.samples.append((number, sys.getallocatedblocks(), process.memory_info().rss / 2**20))
        if len(run.samples) == samples:
            baseline = sizes
        _check(run, sizes, baseline)
        if len(run.samples) % samples == 0:
            caches().clear()
            gc.collect()
            run.blocks.append(sys.getallocatedblocks())
    run.outcomes = dict(outcomes.most_common())
    constants = [place for place, size in at_first.items() if run.largest[place] == (size.entries, None)]
    for place in constants:
        del run.largest[place]
    return run


def _check(run: Endurance, sizes: dict[str, Size], baseline: dict[str, Size]) -> None:
    """Note the largest sizes. Caches without a bound may not grow after the first quarter, the ``baseline``."""
    for place, size in sizes.items():
        if size.entries > run.largest.get(place, (-1, None))[0]:
            run.largest[place] = size.entries, size.bound
        bound = size.bound
        if bound is None:
            bound = baseline[place].entries if place in baseline else size.entries
        if size.entries > bound:
            run.exceeded.append(f"{place} has {size.entries:,} entries, more than {bound:,}")
