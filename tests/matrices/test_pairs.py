"""The choice of cells: every two values that meet in a matrix meet in a chosen cell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from .pairs import leave_pairs, paired, pairs_of

MATRICES: dict[str, list[tuple[Any, ...]]] = {
    "drivers and two dimensions": list(product(range(4), range(12), range(15))),
    "six dimensions": list(product(range(2), range(2), range(4), range(4), range(11), range(2))),
    "two dimensions": list(product(range(3), range(5))),
    "one dimension": [(number,) for number in range(7)],
    "with holes": [
        cell for cell in product(["sqlite", "postgresql"], ["plain", "rls"], range(6)) if cell[:2] != ("sqlite", "rls")
    ],
    "one cell": [(1, 2, 3)],
    "the same cell twice": [(1, 2, 3), (1, 2, 3)],
    "no cell": [],
}


def met(cells: Sequence[Sequence[Any]]) -> set[Any]:
    return {pair for cell in cells for pair in pairs_of(cell)}


@pytest.mark.parametrize("name", MATRICES)
def test_each_pair_occurs(name: str) -> None:
    cells = MATRICES[name]
    chosen = paired(cells)
    assert met([cells[place] for place in chosen]) == met(cells)
    assert chosen == sorted(set(chosen))
    assert chosen == paired(cells)


def test_no_more_cells_than_the_two_largest_dimensions_need() -> None:
    assert len(paired(MATRICES["drivers and two dimensions"])) == 12 * 15
    assert len(paired(MATRICES["six dimensions"])) == 4 * 11
    assert len(paired(MATRICES["two dimensions"])) == 3 * 5
    assert len(paired(MATRICES["the same cell twice"])) == 1


SUITE = """
import pytest

LEFT = [{"a": 1}, {"a": 1}]  # equal, but two values

@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request):
    return request.param

@pytest.fixture(params=["sync", "async"])
def face(request, dialect):
    return request.param

@pytest.mark.parametrize("value", range(5))
def test_values(face, value): ...

@pytest.mark.parametrize("value", range(5))
@pytest.mark.parametrize(("left", "right"), [(left, right) for left in LEFT for right in "xyz"])
def test_three(face, value, left, right): ...

@pytest.mark.every_cell
@pytest.mark.parametrize("value", range(5))
@pytest.mark.parametrize("other", range(3))
def test_all(face, value, other): ...

@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize(("name", "number"), [("a", 1), ("b", 2), ("c", 3)])
def test_two_parameters_that_are_one(name, number, together): ...

@pytest.mark.matrix
@pytest.mark.parametrize("value", range(5))
@pytest.mark.parametrize("other", range(3))
def test_none(face, value, other): ...

class TestInAClass:
    @pytest.mark.parametrize("value", range(5))
    @pytest.mark.parametrize("other", range(3))
    def test_values(self, face, value, other): ...
"""


class Collected:
    """A plugin of pytest that chooses as the tests' conftest does, and keeps the items."""

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "matrix")
        config.addinivalue_line("markers", "every_cell")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        leave_pairs(items)
        self.items = list(items)


def test_the_cells_of_a_collected_suite(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    path = tmp_path / "test_suite.py"
    path.write_text(SUITE)
    collected = Collected()
    arguments = ["--collect-only", "-q", "-p", "no:unraisableexception", "--rootdir", str(tmp_path), "-c", "/dev/null"]
    assert pytest.main([*arguments, str(path)], plugins=[collected]) == pytest.ExitCode.OK
    cells: dict[str, list[dict[str, Any]]] = {}
    for item in collected.items:
        run = cells.setdefault(item.nodeid.partition("::")[2].partition("[")[0], [])
        if item.get_closest_marker("matrix") is None:
            run.append(item.callspec.params)  # type: ignore[attr-defined]
    assert {name: len(run) for name, run in cells.items()} == {
        "test_values": 20,
        "test_three": 20,
        "test_all": 60,
        "test_two_parameters_that_are_one": 9,
        "test_none": 0,
        "TestInAClass::test_values": 20,
    }
    drivers = list(product(("sqlite", "postgresql"), ("sync", "async")))
    three = cells["test_three"]
    assert {(each["dialect"], each["face"], each["value"]) for each in three} == {
        (*driver, value) for driver, value in product(drivers, range(5))
    }
    assert {(each["dialect"], each["face"], id(each["left"])) for each in three} == {
        (*driver, left) for driver, left in product(drivers, {id(each["left"]) for each in three})
    }
    assert {(each["value"], each["right"]) for each in three} == set(product(range(5), "xyz"))
    assert len({id(each["left"]) for each in three}) == 2
