"""The samples of the last minutes, which the health page plots. Nothing runs in the background: each check adds one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from dotmac_database import HealthCheckResult, HealthStatus

from .results import worst

WINDOW = 600.0
"""How long a sample is kept, in seconds."""

STEP = 5.0
"""Checks within so many seconds are one sample, so that frequent checks don't displace the older ones."""

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Sample:
    """The worst values of the checks of one step. None: no check has measured the value.

    ``number`` counts the steps on the history's clock. ``in_use`` is the number of connections that are taken from the
    app's pools.
    """

    number: int
    status: HealthStatus
    latency_ms: float | None = None
    in_use: int | None = None
    waiting_locks: int | None = None


class HealthHistory:
    """The samples of a database in this process: at most ``window / step`` of them, a few kilobytes.

    ``clock`` returns seconds.
    """

    def __init__(self, window: float = WINDOW, step: float = STEP, clock: Callable[[], float] = time.monotonic) -> None:
        self.window = window
        self.step = step
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=round(window / step))
        self._lock = Lock()

    def add(self, result: HealthCheckResult) -> None:
        """Add a result to the sample of the current step."""
        number = int(self._clock() // self.step)
        sample = _sample(number, result)
        with self._lock:
            if self._samples and self._samples[-1].number == number:
                sample = _merged(self._samples.pop(), sample)
            self._samples.append(sample)

    def samples(self) -> list[tuple[float, Sample]]:
        """The samples of the window, oldest first, each with its age in seconds."""
        now = self._clock()
        with self._lock:
            samples = list(self._samples)
        aged = ((max(now - (each.number + 0.5) * self.step, 0.0), each) for each in samples)
        return [(age, each) for age, each in aged if age <= self.window]


def pools_of(details: Mapping[str, object]) -> list[Mapping[str, int]]:
    """The use of the pools that count their connections, from the details of a result."""
    pools = details.get("pools") or [details.get("pool")]
    listed = pools if isinstance(pools, list) else []
    return [pool for pool in listed if isinstance(pool, Mapping) and "checked_out" in pool]


def _sample(number: int, result: HealthCheckResult) -> Sample:
    details = result.details
    latency, locks, pools = details.get("latency_ms"), details.get("waiting_locks"), pools_of(details)
    return Sample(
        number,
        result.status,
        latency if isinstance(latency, (int, float)) else None,
        sum(pool["checked_out"] for pool in pools) if pools else None,
        locks if isinstance(locks, int) else None,
    )


def _merged(one: Sample, other: Sample) -> Sample:
    return Sample(
        other.number,
        worst((one.status, other.status)),
        _most((one.latency_ms, other.latency_ms)),
        _most((one.in_use, other.in_use)),
        _most((one.waiting_locks, other.waiting_locks)),
    )


def _most(values: Iterable[N | None]) -> N | None:
    return max((each for each in values if each is not None), default=None)
