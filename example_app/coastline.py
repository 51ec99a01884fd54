"""Make ``static/coast.json``: the world's coasts and borders, simplified for the map.

The data are Natural Earth's (public domain), from the npm package ``world-atlas`` (ISC). This was run once::

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python -m example_app.coastline package/countries-50m.json

In the result, ``lines`` are texts of digits with the base 45. A digit above 44 has more digits after it; the lowest
digit is first. Each number is the difference between a coordinate and the one before it, doubled, and one more if it is
negative. The first ``islands`` lines are rings by themselves; ``land`` are the other rings, made of lines, where
``~n`` is line ``n`` backwards. ``borders`` are the lines between two countries.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

Point = tuple[int, int]
"""A longitude and a latitude, in units of ``1 / PER_DEGREE`` degrees."""

TARGET = Path(__file__).parent / "static" / "coast.json"
PER_DEGREE = 50
SOURCE = "Natural Earth, admin 0 countries, 1:50m, version 4.1.0; from the npm package world-atlas 2.0.2; simplified"
LICENCE = "Natural Earth: public domain; world-atlas: ISC, copyright 2013-2019 Michael Bostock"
LEAST_AREA = 22.0
"""A point whose triangle with its neighbours is smaller is left out; in square units."""

LEAST_WIDTH = 10
"""An island that is smaller in both directions is left out; in units."""

# No quotation mark, backslash or slash: JSON and HTML would escape them.
_DIGITS = [chr(code) for code in range(33, 127) if chr(code) not in '"\\/'][:90]
_BASE = len(_DIGITS) // 2


def coastline(topology: dict[str, Any]) -> dict[str, object]:
    """The simplified lines, land and borders of a TopoJSON file of countries."""
    uses = Counter(
        index if index >= 0 else ~index
        for geometry in topology["objects"]["countries"]["geometries"]
        for ring in _rings(geometry)
        for index in ring
    )
    land = [ring for geometry in topology["objects"]["land"]["geometries"] for ring in _rings(geometry)]
    borders = [index for index, count in uses.items() if count > 1]
    arcs = list(_arcs(topology))
    islands = [ring[0] for ring in land if len(ring) == 1 and _width(arcs[ring[0]]) >= LEAST_WIDTH]
    shores = [ring for ring in land if len(ring) > 1]
    others = {index if index >= 0 else ~index for ring in shores for index in ring} | set(borders)
    used = [*islands, *sorted(others - set(islands))]
    number = {index: at for at, index in enumerate(used)}
    return {
        "source": SOURCE,
        "licence": LICENCE,
        "perDegree": PER_DEGREE,
        "islands": len(islands),
        "lines": " ".join(_encoded([simplified(arcs[index], LEAST_AREA) for index in used])),
        "land": [[number[index] if index >= 0 else ~number[~index] for index in ring] for ring in shores],
        "borders": sorted(number[index] for index in borders),
    }


def simplified(points: Sequence[Point], least_area: float) -> list[Point]:
    """The points without those that matter least (Visvalingam's algorithm). The ends stay; of a ring, four points."""
    before, after = list(range(-1, len(points) - 1)), list(range(1, len(points) + 1))
    removed = [False] * len(points)
    left = len(points)
    smallest = 4 if points[0] == points[-1] else 2
    heap = [(_area(points, at - 1, at, at + 1), at) for at in range(1, len(points) - 1)]
    heapify(heap)
    while heap and left > smallest:
        area, at = heappop(heap)
        if area >= least_area:
            break
        if removed[at] or area < _area(points, before[at], at, after[at]):
            continue
        removed[at], left = True, left - 1
        after[before[at]], before[after[at]] = after[at], before[at]
        for near in (before[at], after[at]):
            if 0 < near < len(points) - 1:
                # Never less than what was removed already, so that a coast loses its small bays first.
                heappush(heap, (max(area, _area(points, before[near], near, after[near])), near))
    return [point for point, gone in zip(points, removed, strict=True) if not gone]


def _width(points: Sequence[Point]) -> int:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return max(max(xs) - min(xs), max(ys) - min(ys))


def _area(points: Sequence[Point], one: int, two: int, three: int) -> float:
    """The area of a triangle. Near the poles a degree of longitude is short, so the area is, too."""
    (x1, y1), (x2, y2), (x3, y3) = points[one], points[two], points[three]
    shrunk = max(math.cos(math.radians(y2 / PER_DEGREE)), 0.05)
    return abs((x2 - x1) * (y3 - y1) - (x3 - x1) * (y2 - y1)) / 2 * shrunk


def _arcs(topology: dict[str, Any]) -> Iterator[list[Point]]:
    (x_scale, y_scale), (x_first, y_first) = topology["transform"]["scale"], topology["transform"]["translate"]
    for arc in topology["arcs"]:
        x, y, points = 0, 0, list[Point]()
        for dx, dy in arc:
            x, y = x + dx, y + dy
            point = round((x * x_scale + x_first) * PER_DEGREE), round((y * y_scale + y_first) * PER_DEGREE)
            if not points or points[-1] != point:
                points.append(point)
        yield points if len(points) > 1 else points * 2


def _rings(geometry: dict[str, Any]) -> Iterator[list[int]]:
    polygons = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry.get("arcs", ())
    for polygon in polygons:
        yield from polygon


def _encoded(lines: Sequence[Sequence[Point]]) -> Iterator[str]:
    last = (0, 0)
    for line in lines:
        text = ""
        for point in line:
            for value, before in zip(point, last, strict=True):
                text += _digits(value - before)
            last = point
        yield text


def _digits(difference: int) -> str:
    rest, text = 2 * abs(difference) + (difference < 0), ""
    while rest >= _BASE:
        rest, digit = divmod(rest, _BASE)
        text += _DIGITS[_BASE + digit]
    return text + _DIGITS[rest]


if __name__ == "__main__":
    coast = coastline(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    TARGET.write_text(json.dumps(coast, separators=(",", ":")) + "\n", encoding="utf-8")
