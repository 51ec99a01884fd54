"""Prints the table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .conditions import Condition
from .measuring import Cell, Timing
from .ways import Operation

_WIDTH = 14


@dataclass
class Row:
    """The cells of a condition, by the names of the operations. ``skipped`` is the reason why there are none."""

    condition: Condition
    cells: dict[str, Cell]
    skipped: str | None = None

    def beyond(self, cell: Cell) -> bool:
        """Whether a cell is above the reach of its condition, or could not be measured."""
        return cell.failure is not None or cell.ratio > self.condition.reach

    @property
    def is_beyond_reach(self) -> bool:
        """Whether any cell is."""
        return any(map(self.beyond, self.cells.values()))

    def figures(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        cells = {name: cell.figures() for name, cell in self.cells.items()}
        return {"title": self.condition.title, "reach": self.condition.reach, "skipped": self.skipped, **cells}


def header(operations: Collection[Operation]) -> str:
    """The first line of the table."""
    return f"{'condition':<30}{'reach':>6}" + "".join(f"{each.title:>{_WIDTH}}" for each in operations)


def _text(row: Row, cell: Cell) -> str:
    """The content of a cell, with a mark if it is beyond reach."""
    content = "failed" if cell.failure is not None else f"{cell.ratio:.2f}"
    return f"{content}{'!' if row.beyond(cell) else ' '}".rjust(_WIDTH)


def _side(name: str, timing: Timing) -> str:
    """The times of one way, and what it sends."""
    sent = timing.sent
    wire = "" if sent is None else f", {sent.statements} statements in {sent.trips} trips"
    return f"{name} {timing.median:,.0f} µs ±{timing.spread:.0%} ({timing.cpu:,.0f} µs CPU{wire})"


def _details(operation: Operation, cell: Cell) -> str:
    """The line of a cell that follows the row."""
    if cell.failure is not None:
        return f"    {operation.title:<13} {cell.failure}"
    sides = f"{_side('by hand', cell.by_hand)} | {_side('toolkit', cell.toolkit)}"
    return f"    {operation.title:<13} {sides} | CPU {cell.cpu_ratio:.2f}"


def show(row: Row, operations: Collection[Operation], *, detail: bool) -> None:
    """Print a row. With ``detail`` a line for each cell follows; without it only for those that failed."""
    start = f"{row.condition.title:<30}{row.condition.reach:>6}"
    if row.skipped is not None:
        print(f"{start}  left out: {row.skipped}", flush=True)
        return
    print(start + "".join(_text(row, row.cells[each.name]) for each in operations), flush=True)
    for operation in operations:
        cell = row.cells[operation.name]
        if detail or cell.failure is not None:
            print(_details(operation, cell), flush=True)
