"""Prints the figures."""

from __future__ import annotations

from .axes import Axis, Line


def header(axis: Axis) -> str:
    """The first line of an axis."""
    numbers = "".join(f"{number:>24,}" for number in axis.numbers)
    return f"\n{axis.name + ': median ms, CPU ms, buffers':<42}{numbers}"


def show_line(axis: Axis, line: Line) -> None:
    """Print an operation: a line for each way, with the figures at each size."""
    if len(axis.lines) == 1:
        print(header(axis))
    for name, side in (("toolkit", line.toolkit), ("by hand", line.by_hand)):
        cells = (f"{each.median / 1e3:>9.2f}{each.cpu / 1e3:>7.2f}{each.buffers:>8,.1f}" for each in side)
        sent = f"{side[-1].statements} in {side[-1].trips}"
        mark = "  grows!" if name == "toolkit" and line.is_beyond else ""
        print(f"{line.title if name == 'toolkit' else '':<20}{name:<10}{sent:>12}" + "".join(cells) + mark, flush=True)
