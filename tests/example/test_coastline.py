"""How the coasts of the example's map are made small."""

from __future__ import annotations

import json
from typing import Any

from example_app.coastline import coastline, simplified

SQUARE = [[0, 0], [1000, 0], [0, 1000], [-1000, 0], [0, -1000]]


def topology(*arcs: list[list[int]], countries: list[list[list[int]]], land: list[list[int]]) -> dict[str, Any]:
    """A TopoJSON file in degrees / 50, whose countries have one ring each."""
    return {
        "transform": {"scale": [0.02, 0.02], "translate": [0, 0]},
        "arcs": list(arcs),
        "objects": {
            "countries": {"geometries": [{"type": "Polygon", "arcs": rings} for rings in countries]},
            "land": {"geometries": [{"type": "MultiPolygon", "arcs": [[ring] for ring in land]}]},
        },
    }


def test_the_ends_stay_and_what_matters_least_goes_first() -> None:
    line = [(0, 0), (100, 1), (200, 100), (300, 101), (400, 0)]
    assert simplified(line, 0) == line
    assert simplified(line, 1e9) == [(0, 0), (400, 0)]
    assert simplified(line, 6000) == [(0, 0), (300, 101), (400, 0)]


def test_a_ring_keeps_an_area() -> None:
    ring = [(0, 0), (3, 0), (3, 3), (0, 3), (0, 0)]
    assert len(simplified(ring, 1e9)) == 4


def test_what_two_countries_share_is_a_border_and_the_rest_is_coast() -> None:
    west = [[0, 0], [-500, 0], [0, 500], [500, 0]]
    east = [[0, 500], [500, 0], [0, -500], [-500, 0]]
    between = [[0, 500], [0, -500]]
    made = coastline(topology(west, east, between, SQUARE, countries=[[[0, 2]], [[1, ~2]], [[3]]], land=[[0, 1], [3]]))
    lines = str(made["lines"]).split(" ")
    assert len(lines) == 4
    assert made["islands"] == 1
    assert made["land"] == [[1, 2]]
    assert made["borders"] == [3]
    assert json.loads(json.dumps(made)) == made


def test_a_tiny_island_is_left_out() -> None:
    tiny = [[0, 0], [2, 0], [0, 2], [-2, 0], [0, -2]]
    made = coastline(topology(tiny, SQUARE, countries=[[[0]], [[1]]], land=[[0], [1]]))
    assert made["islands"] == 1
