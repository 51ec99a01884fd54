"""The plots of the health page: inline SVG, one for each value that was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

from dotmac_database import HealthCheckResult, HealthStatus

from .history import HealthHistory, Sample, pools_of

_WIDTH, _HEIGHT = 600, 80
_MAX_GAP = 90.0
"""Samples that are farther apart, in seconds, are not joined by a line, because nobody measured between them."""

_FAILED = (HealthStatus.UNHEALTHY, HealthStatus.UNKNOWN)


@dataclass(frozen=True, slots=True)
class _Series:
    """A value to plot. ``least_top`` is the least value of the upper edge."""

    title: str
    value: Callable[[Sample], float | None]
    least_top: float
    unit: str = ""


def plots(result: HealthCheckResult, history: HealthHistory) -> Iterator[str]:
    """The plots of latency, connections and locks, as far as a check of the window has measured them."""
    samples = history.samples()
    capacity = sum(pool.get("size", 0) for pool in pools_of(result.details))
    pool = f" (pool of {capacity})" if capacity else ""
    for series in (
        _Series("Latency", lambda each: each.latency_ms, 1.0, " ms"),
        _Series(f"Connections in use{pool}", lambda each: each.in_use, capacity or 1),
        _Series("Waiting locks", lambda each: each.waiting_locks, 1.0),
    ):
        if any(series.value(each) is not None for _, each in samples):
            yield _figure(series, samples, history.window)


def _figure(series: _Series, samples: list[tuple[float, Sample]], window: float) -> str:
    values = [value for _, each in samples if (value := series.value(each)) is not None]
    top = max(series.least_top, *values)
    title, minutes = escape(series.title), round(window / 60)
    failures = sum(each.status in _FAILED for _, each in samples)
    words = f"last {_number(values[-1])}{series.unit}, at most {_number(max(values))}{series.unit}"
    words += f", {failures} failed" if failures else ""
    line, dots, failed = _paths(series, samples, window, top)
    return (
        f"<figure><figcaption><b>{title}</b> <span>{words}</span></figcaption>"
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 8}" preserveAspectRatio="none" role="img" '
        f'aria-label="{title}: {words} in {minutes} minutes">'
        f'<path class="axis" d="M0 0H{_WIDTH}M0 {_HEIGHT}H{_WIDTH}"/><path class="failed" d="{failed}"/>'
        f'<path class="line" d="{line}"/><path class="dots" d="{dots}"/></svg>'
        f'<p class="scale"><span>{minutes} minutes ago</span>'
        f"<span>0 to {_number(top)}{series.unit}</span><span>now</span></p></figure>"
    )


def _paths(series: _Series, samples: list[tuple[float, Sample]], window: float, top: float) -> tuple[str, str, str]:
    """The line, the dots and the marks of failed checks. A failed check, or a long gap, interrupts the line."""
    line, dots, failed = "", "", ""
    before: float | None = None
    for age, each in samples:
        x = round(_WIDTH * (1 - age / window), 1)
        value = series.value(each)
        if each.status in _FAILED:
            failed += f"M{x} 0V{_HEIGHT}"
            before = None
        if value is not None:
            y = round(_HEIGHT * (1 - value / top), 1)
            line += f"{'L' if before is not None and before - age <= _MAX_GAP else 'M'}{x} {y}"
            dots += f"M{x} {y}h0"
            before = age
    return line, dots, failed


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"
