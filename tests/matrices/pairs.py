"""Choose few cells of a large matrix, so that every two values that meet in the matrix also meet in a chosen cell.

A fault that needs one value, or two values together (an operator on a driver, a method in a block), is found in the
chosen cells as in all. One that needs three values together can be missed: for these, ``make matrices`` runs the rest.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from itertools import combinations

import pytest

Cell = Sequence[Hashable]

_DRIVER = ("dialect", "face")
_FEWEST = 5
"""Of fewer cells, two or three dimensions of two values, none is left out."""


def pairs_of(cell: Cell) -> set[tuple[int, Hashable, int, Hashable]]:
    """The pairs of values in a cell, each value with its dimension. A cell of one dimension is a pair of its own."""
    if len(cell) == 1:
        return {(0, cell[0], 0, cell[0])}
    return {(one, cell[one], other, cell[other]) for one, other in combinations(range(len(cell)), 2)}


def paired(cells: Sequence[Cell]) -> list[int]:
    """The places of the chosen cells, in order. The same cells give the same choice.

    Each cell has the same number of values, one for each dimension. The matrix need not be full: a pair that is in
    none of the cells is not asked for. The cell with the most new pairs is taken first, and of those the earliest.
    """
    pairs = [pairs_of(cell) for cell in cells]
    # A cell's number of new pairs only shrinks, so a number that is still right at the top of the heap is the largest.
    heap = [(-len(each), place) for place, each in enumerate(pairs)]
    heapq.heapify(heap)
    chosen: list[int] = []
    covered: set[tuple[int, Hashable, int, Hashable]] = set()
    while heap:
        gain, place = heapq.heappop(heap)
        new = len(pairs[place] - covered)
        if new and new == -gain:
            chosen.append(place)
            covered |= pairs[place]
        elif new:
            heapq.heappush(heap, (-new, place))
    return sorted(chosen)


def leave_pairs(items: Sequence[pytest.Item]) -> None:
    """Mark the cells that an ordinary run leaves out as `matrix`: of each test, all that `paired` does not choose.

    The dimensions of a test's matrix are its parameters and those of its fixtures. The database (`dialect`) and the
    face are one dimension, the driver, so that each value runs on each driver. A test with the marker `every_cell`
    keeps all its cells, and so does a test with fewer than three dimensions, because all its cells are pairs.
    """
    matrices: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and not item.get_closest_marker("matrix"):
            matrices.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cells in matrices.values():
        if len(cells) < _FEWEST or cells[0].get_closest_marker("every_cell"):
            continue
        dimensions = _dimensions([cell.callspec.params for cell in cells])
        if len(dimensions) > 1:
            chosen = set(paired(list(zip(*dimensions, strict=True))))
            for place, cell in enumerate(cells):
                if place not in chosen:
                    cell.add_marker("matrix")


def _dimensions(cells: list[dict[str, object]]) -> list[tuple[int, ...]]:
    """The values of each dimension in all cells, as numbers. Two parameters that always change together are one."""
    names = [name for name in cells[0] if all(name in cell for cell in cells)]
    driver = tuple(name for name in names if name in _DRIVER)
    groups = [*((name,) for name in names if name not in _DRIVER), *([driver] if driver else [])]
    dimensions = {_numbered([tuple(_key(cell[name]) for name in group) for cell in cells]) for group in groups}
    return sorted(each for each in dimensions if any(each))


def _numbered(values: list[Hashable]) -> tuple[int, ...]:
    """The same values as numbers from 0, in the order of their first appearance."""
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(value, len(numbers)) for value in values)


def _key(value: object) -> Hashable:
    """What tells a value from others: texts and numbers by their type and value, and objects by their identity."""
    return (type(value), value) if isinstance(value, str | bytes | int | float) else id(value)
