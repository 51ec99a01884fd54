"""Draws the figures as SVG files. The files depend on nothing but the figures and the version of matplotlib."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import Axis
from .endurance import Endurance
from .measuring import Figures
from .memory import Peak

INK, TOOLKIT, BY_HAND = "#57606a", "#2f81f7", "#d9730d"
_MORE = ("#2da44e", "#a371f7")
_DARK_INK = "#adbac7"
_DARK = f"""<style>
@media (prefers-color-scheme: dark) {{
[style*="fill: {INK}"] {{ fill: {_DARK_INK} !important }}
[style*="stroke: {INK}"] {{ stroke: {_DARK_INK} !important }}
}}
</style>
"""
"""The ink is readable on a light page. Where the page is dark, the browser takes the light ink."""

_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dotmac",  # the ids in a file are the same in each run
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}
_COLUMNS = 4
_ROOM = 4.0
"""The least ratio of the ends of a vertical axis, so that a flat line looks flat."""


def draw(figures: dict[str, Any], folder: Path) -> None:
    """Write a file for each part that was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name in ("rows", "tenants"):
            if name in figures:
                axis = Axis.from_json(figures[name])
                _save(_panels(axis, "ms a call, median and quartiles", _draw_times), folder / f"{name}-times.svg")
                _save(_panels(axis, "buffers a call", _draw_buffers), folder / f"{name}-buffers.svg")
        if figures.get("memory"):
            _save(_bars([Peak(**each) for each in figures["memory"]]), folder / "memory.svg")
        if figures.get("shapes"):
            _save(_courses(map(Endurance.from_json, figures["shapes"])), folder / "shapes.svg")


def _panels(axis: Axis, subject: str, curve: Callable[[Axes, list[int], list[Figures], str, str], None]) -> Figure:
    """A panel for each operation, with a curve for each way. Both directions are logarithmic."""
    lines = list(axis.lines.values())
    columns = min(_COLUMNS, len(lines))
    height = -(-len(lines) // columns)
    figure = Figure(figsize=(2.2 * columns, 1.6 * height + 0.5), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False).flat
    for panel, line in zip(grid, lines, strict=False):
        panel.set_title(line.title)
        panel.set_xscale("log")
        panel.set_yscale("log")
        for side, title, colour in ((line.by_hand, "ORM by hand", BY_HAND), (line.toolkit, "toolkit", TOOLKIT)):
            curve(panel, axis.numbers, side, title, colour)
        _widen(panel)
        panel.minorticks_off()
        panel.set_xticks(axis.numbers, [_short(number) for number in axis.numbers])
    for panel in list(grid)[len(lines) :]:
        panel.set_visible(False)
    handles, titles = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], titles[::-1], loc="outside upper center", ncols=2)
    figure.supxlabel(axis.name, fontsize=8)
    figure.supylabel(subject, fontsize=8)
    return figure


def _draw_times(panel: Axes, numbers: list[int], side: list[Figures], title: str, colour: str) -> None:
    panel.fill_between(
        numbers,
        [each.low / 1e3 for each in side],
        [each.high / 1e3 for each in side],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    panel.plot(numbers, [each.median / 1e3 for each in side], marker="o", color=colour, label=title)


def _draw_buffers(panel: Axes, numbers: list[int], side: list[Figures], title: str, colour: str) -> None:
    marker = {"marker": "s", "markersize": 5} if colour == BY_HAND else {"marker": "o"}
    panel.plot(numbers, [each.buffers for each in side], color=colour, label=title, **marker)


def _widen(panel: Axes) -> None:
    """Give a vertical axis at least its room, and ticks of which a reader sees the values."""
    low, high = panel.get_ylim()
    missing = _ROOM / (high / low)
    if missing > 1:
        low, high = low / missing**0.5, high * missing**0.5
    panel.set_ylim(low, high)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * 10**power for power in range(-2, 6) for step in steps]
        chosen = [tick for tick in ticks if low <= tick <= high]
        if len(chosen) > 1:
            break
    panel.set_yticks(chosen, [f"{tick:,.10g}" for tick in chosen])


def _short(number: int) -> str:
    """A number as it is written under a small panel."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if number >= unit and number % unit == 0:
            return f"{number // unit}{name}"
    return f"{number:,}"


def _bars(peaks: list[Peak]) -> Figure:
    """A bar for the peak of each call."""
    figure = Figure(figsize=(8.8, 0.22 * len(peaks) + 0.7), layout="constrained")
    panel = figure.subplots()
    names = [f"{peak.title}, {peak.rows:,} rows" for peak in peaks]
    colours = [TOOLKIT if peak.title.startswith("toolkit") else BY_HAND for peak in peaks]
    bars = panel.barh(names, [max(peak.resident, 0.0) for peak in peaks], color=colours, height=0.7)
    panel.bar_label(bars, [f"{peak.resident:,.1f}" for peak in peaks], padding=3)
    panel.set_xscale("symlog", linthresh=10)
    panel.set_xticks((0, 10, 100, 1000), ("0", "10", "100", "1,000"))
    panel.minorticks_off()
    panel.margins(x=0.1)
    panel.invert_yaxis()
    panel.set_xlabel("MiB more resident memory at the peak")
    return figure


def _courses(runs: Iterable[Endurance]) -> Figure:
    """The memory of each run with random shapes."""
    figure = Figure(figsize=(8.8, 2.8), layout="constrained")
    panel = figure.subplots()
    for run, colour in zip(runs, (TOOLKIT, BY_HAND, *_MORE), strict=False):
        calls = [number for number, _, _ in run.samples]
        panel.plot(calls, [resident for _, _, resident in run.samples], color=colour, label=run.name)
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.set_xlabel("calls with random shapes")
    panel.set_ylabel("MiB of the process")
    panel.legend(loc="lower right", ncols=2)
    return figure


def _save(figure: Figure, path: Path) -> None:
    """Write the file without a date and a version, with the ink for dark pages."""
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(path, format="svg", transparent=True, metadata=nothing)
    drawing = path.read_text()
    start = re.search(r"<svg[^>]*>\n", drawing)
    assert start is not None
    path.write_text(drawing[: start.end()] + _DARK + drawing[start.end() :])
