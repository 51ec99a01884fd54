"""Measures all operations along an axis: more rows, or more tenants in the same number of rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.postgres import OwnServer

from ..wire import Proxy
from .measuring import Figures, grown, opened
from .operations import Grown
from .sizes import Size, create, drop

MOST_BUFFERS = 2.0
"""The highest accepted ratio of the buffers at the largest size to those at the smallest.

It is above 1, because the indexes of a larger table have more levels.
"""


@dataclass
class Line:
    """The figures of one operation at each size, for each way."""

    title: str
    may_grow: bool
    toolkit: list[Figures] = field(default_factory=list)
    by_hand: list[Figures] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """The toolkit's buffers at the last size divided by those at the first."""
        return self.toolkit[-1].buffers / self.toolkit[0].buffers

    @property
    def is_beyond(self) -> bool:
        """Whether the toolkit reads more buffers in a larger table, although the operation does not have to."""
        return not self.may_grow and self.growth > MOST_BUFFERS


@dataclass
class Axis:
    """The lines of all operations, and the numbers of rows or tenants at which they were measured."""

    name: str
    numbers: list[int]
    lines: dict[str, Line]

    @property
    def failures(self) -> list[str]:
        """The operations that read more in a larger table, although they do not have to."""
        return [
            f"{line.title}: {line.growth:.1f} times the buffers at {self.numbers[-1]:,} {self.name}"
            for line in self.lines.values()
            if line.is_beyond
        ]

    def as_json(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, figures: dict[str, Any]) -> Axis:
        """The axis from the figures of a JSON file."""
        lines = {}
        for name, line in figures["lines"].items():
            sides = {side: [Figures(**each) for each in line[side]] for side in ("toolkit", "by_hand")}
            lines[name] = Line(line["title"], line["may_grow"], **sides)
        return cls(figures["name"], figures["numbers"], lines)


async def measured_axis(
    name: str,
    server: OwnServer,
    sizes: list[Size],
    operations: Collection[Grown],
    rounds: int,
    show: Callable[[Axis, Line], None],
) -> Axis:
    """Fill the databases, measure, and drop them. ``show`` is called after each operation."""
    numbers = [size.rows if name == "rows" else size.tenants for size in sizes]
    axis = Axis(name, numbers, {})
    async with Proxy(server.port) as proxy:
        least = min(1000, *(len(size.numbers) for size in sizes))
        subjects = {size: create(server, size, least) for size in sizes}
        async with opened(server, proxy, subjects) as places:
            for each in operations:
                line = axis.lines[each.name] = Line(each.title, name == "rows" and each.counts_rows)
                for outcome in await grown(each, places, proxy, rounds):
                    line.toolkit.append(outcome["toolkit"])
                    line.by_hand.append(outcome["by_hand"])
                show(axis, line)
    for size in sizes:
        drop(server, size)
    return axis
