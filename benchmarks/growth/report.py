"""Prints the figures."""

from __future__ import annotations

import sys

from .axes import Axis, Line
from .endurance import Endurance
from .memory import Peak


def header(axis: Axis) -> str:
    """The first line of an axis."""
    numbers = "".join(f"{number:>27,}" for number in axis.numbers)
    return f"\n{axis.name + ': median ms, CPU ms, buffers':<42}{numbers}"


def show_line(axis: Axis, line: Line) -> None:
    """Print an operation: a line for each way, with the figures at each size."""
    if len(axis.lines) == 1:
        print(header(axis))
    for name, side in (("toolkit", line.toolkit), ("by hand", line.by_hand)):
        cells = (f"{each.median / 1e3:>9.2f}{each.cpu / 1e3:>8.2f}{each.buffers:>10,.1f}" for each in side)
        sent = f"{side[-1].statements} in {side[-1].trips}"
        mark = "  grows!" if name == "toolkit" and line.is_beyond else ""
        print(f"{line.title if name == 'toolkit' else '':<20}{name:<10}{sent:>12}" + "".join(cells) + mark, flush=True)


def show_peak(peak: Peak) -> None:
    """Print the memory of one way."""
    traced = "" if peak.traced is None else f", traced {peak.traced:,.1f} MiB"
    times = f"{peak.seconds:>8.1f} s ({peak.cpu:,.1f} s CPU)"
    print(f"{peak.title:<50}{peak.rows:>10,} rows{peak.resident:>10,.1f} MiB{times}{traced}", flush=True)


def show_run(run: Endurance) -> None:
    """Print a run with random shapes."""
    outcomes = ", ".join(f"{count:,} {name}" for name, count in run.outcomes.items())
    print(f"\n{run.name}: {run.calls:,} calls ({outcomes})")
    print(f"  blocks after each quarter: {', '.join(f'{blocks:,}' for blocks in run.blocks)}")
    print(f"  highest in each quarter: {', '.join(f'{blocks:,}' for blocks in run.peaks)}")
    for place, (entries, bound) in run.largest.items():
        print(f"  {place:<70}{entries:>8,}{'' if bound is None else f' of {bound:,}'}")
    for failure in run.failures:
        print(f"  GROWS: {failure}")
    sys.stdout.flush()
