"""The measurements of growth, in their small size: `benchmarks.growth`."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from benchmarks.growth import endurance, memory, sizes
from benchmarks.growth.endurance import FEWEST_CALLS, Endurance, endured
from benchmarks.growth.operations import OPERATIONS
from benchmarks.growth.parts import failures
from benchmarks.growth.runs import of_repositories, of_requests
from benchmarks.schema import Base, User

ROOT = Path(__file__).parents[2]
LONG = pytest.param(FEWEST_CALLS, marks=pytest.mark.matrix)


def run_command(file: Path, *arguments: str) -> dict[str, Any]:
    """The figures of the command. It exits with 1 if both ways return different rows, or if anything grows."""
    command = [sys.executable, "-m", "benchmarks.growth", "--rounds", "3", "--json", str(file), *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return dict(json.loads(file.read_text()))


def test_the_command_measures_each_operation(tmp_path: Path) -> None:
    lines = run_command(tmp_path / "figures.json", "--only", "rows", "--rows", "1000")["rows"]["lines"]
    assert [*lines] == [each.name for each in OPERATIONS]
    for side in (line[name][0] for line in lines.values() for name in ("toolkit", "by_hand")):
        assert side["buffers"] > 0
        assert side["low"] <= side["median"] <= side["high"]
    assert [lines[name]["toolkit"][0]["statements"] for name in ("get", "keyset", "create")] == [1, 1, 1]


def test_the_command_measures_an_operation_at_each_size(tmp_path: Path) -> None:
    arguments = ("--only", "tenants", "--rows", "2000", "--tenants", "10", "50", "--operation", "get", "list")
    tenants = run_command(tmp_path / "figures.json", *arguments)["tenants"]
    assert tenants["numbers"] == [10, 50]
    assert [len(tenants["lines"][name]["toolkit"]) for name in ("get", "list")] == [2, 2]
    first, second = (each["buffers"] for each in tenants["lines"]["list"]["toolkit"])
    assert first == second


@pytest.fixture(scope="module")
def filled(postgres_url: str) -> str:
    """The URL of a database with the benchmarks' table and 60 rows of the measured tenant."""
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(text(sizes.Size(60, 1, 1).fill))
    engine.dispose()
    return url.replace("+psycopg:", "+asyncpg:")


def test_the_measured_tenant_has_the_same_rows_among_any_number_of_tenants(filled: str) -> None:
    engine = create_engine(filled.replace("+asyncpg:", "+psycopg:"))
    own = text("SELECT count(*) FROM bench_users WHERE tenant_id = 'tenant-7'")
    tenants = text("SELECT count(DISTINCT tenant_id) FROM bench_users")
    with engine.connect() as connection:
        for size in sizes.of_tenants([10, 50], 2000):
            connection.execute(text("DELETE FROM bench_users"))
            connection.execute(text(size.fill))
            assert connection.scalar(own) == len(size.numbers) == 200
            assert connection.scalar(tenants) == size.tenants
            keys = sizes.GrownSubject(User, size.rows, size=size).keys
            found = text("SELECT count(*) FROM bench_users WHERE id = ANY(:keys) AND tenant_id = 'tenant-7'")
            assert connection.scalar(found, {"keys": keys}) == len(keys)
    engine.dispose()


@pytest.mark.parametrize("way", memory.WAYS)
def test_each_way_whose_memory_is_measured(filled: str, way: str) -> None:
    figures = asyncio.run(memory._peak(memory.WAYS[way], filled, 60, trace=False))
    assert figures["seconds"] > 0
    assert figures["resident"] >= 0


def test_the_memory_of_a_process_of_its_own(filled: str) -> None:
    peak = memory.measured("stream", filled, 60)
    assert peak.traced is not None
    assert peak.traced > 0


Run = Callable[[str, str, int], Awaitable[Endurance]]


@pytest.mark.parametrize("calls", [200, LONG])
@pytest.mark.parametrize("run", [of_repositories, of_requests])
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_random_shapes_exceed_no_cache(
    run: Run, dialect: str, calls: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """From `FEWEST_CALLS` on, the memory must be flat too."""
    url = f"sqlite+aiosqlite:///{tmp_path}/shapes.db"
    if dialect == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql:", "postgresql+asyncpg:")
    outcome: Any = asyncio.run(run(dialect, url, calls))
    assert outcome.failures == []
    assert sum(outcome.outcomes.values()) == calls
    assert outcome.outcomes["done" if run is of_repositories else "200"] > calls / 3
    assert Endurance.from_json(json.loads(json.dumps(outcome.as_json()))).largest.keys() == outcome.largest.keys()


class Leaking:
    """Caches of which one grows, in the form of `benchmarks.growth.caches.Caches`."""

    def __init__(self, bound: int | None) -> None:
        from benchmarks.growth.caches import Size

        self.entries: list[object] = []
        self._size = lambda: Size(len(self.entries), bound)

    def sizes(self) -> dict[str, Any]:
        return {"leak": self._size()}

    def clear(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("bound", [50, None])
def test_a_cache_that_grows_is_noticed(bound: int | None) -> None:
    caches: Any = Leaking(bound)

    async def call() -> str:
        caches.entries.append(object())
        return "done"

    run = asyncio.run(endured("leak", 100, call, lambda: caches))
    assert len(run.failures) == (2 if bound == 50 else 3)


def test_memory_that_grows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endurance, "_SAMPLES", 1)
    caches, leak = Leaking(None), list[object]()

    async def call() -> str:
        leak.append([object()])
        return "done"

    run = asyncio.run(endured("leak", FEWEST_CALLS, call, lambda: caches))  # type: ignore[arg-type, return-value]
    assert "blocks of memory stay behind for each call" in run.failures[0]


def test_the_plots_depend_on_the_figures_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.growth import plots

    def side(factor: float) -> list[dict[str, float]]:
        values = {"median": 900.0, "low": 800.0, "high": 950.0, "cpu": 500.0, "statements": 1, "trips": 1}
        return [{**values, "buffers": 4.0}, {**values, "buffers": 4.0 * factor}]

    lines = {
        name: {"title": name, "may_grow": False, "toolkit": side(factor), "by_hand": side(1.0)}
        for name, factor in (("flat", 1.0), ("steep", 9.0))
    }
    peak = memory.Peak("stream", "toolkit, stream", 100, seconds=1.0, cpu=0.5, resident=2.5, traced=1.0).as_json()
    run = Endurance("run", 8, samples=[(n, 1000, 80.0) for n in range(8)], blocks=[1, 1, 1, 1]).as_json()
    axis = {"name": "rows", "numbers": [10, 100], "lines": lines}
    figures: dict[str, Any] = {"rows": axis, "memory": [peak], "shapes": [run]}
    assert failures(figures) == ["steep: 9.0 times the buffers at 100 rows"]
    for folder in ("first", "second"):
        plots.draw(figures, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["memory.svg", "rows-buffers.svg", "rows-times.svg", "shapes.svg"]
    for name in names:
        drawing = (tmp_path / "first" / name).read_text()
        assert drawing == (tmp_path / "second" / name).read_text()
        assert "prefers-color-scheme: dark" in drawing
        assert not re.search(r"20\d\d-\d\d|dc:date|Matplotlib v", drawing)
