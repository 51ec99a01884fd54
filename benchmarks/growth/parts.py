"""The parts of the command, each with its figures."""

from __future__ import annotations

import asyncio
import tempfile
from argparse import Namespace
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests.postgres import OwnServer

from . import memory, sizes
from .axes import Axis, measured_axis
from .endurance import Endurance
from .operations import OPERATIONS
from .report import show_line, show_peak, show_run
from .runs import of_repositories, of_requests

PARTS = ("rows", "tenants", "memory", "shapes")


def axis(name: str, arguments: Namespace) -> Axis:
    """The figures of ``rows`` or ``tenants``."""
    chosen = [each for each in OPERATIONS if each.name in arguments.operation]
    of_size = {
        "rows": sizes.of_rows(arguments.rows),
        "tenants": sizes.of_tenants(arguments.tenants, max(arguments.rows)),
    }
    server = OwnServer(shared_buffers="2GB", max_wal_size="4GB").start()
    try:
        return asyncio.run(measured_axis(name, server, of_size[name], chosen, arguments.rounds, show_line))
    finally:
        server.stop()


def peaks(rows: int) -> list[memory.Peak]:
    """The memory of the reads of ``rows`` rows and of a tenth of them, and of the creation of a tenth."""
    server = OwnServer(shared_buffers="512MB", max_wal_size="4GB").start()
    outcomes = []
    try:
        size = sizes.Size(rows, 1, 1)
        sizes.create(server, size, 1)
        for name, way in memory.WAYS.items():
            for number in (rows // 10, rows) if way.reads else (rows // 10,):
                outcomes.append(memory.measured(name, server.url("asyncpg", size.database), number))
                show_peak(outcomes[-1])
                if not way.reads:
                    sizes.tidy(server, size)
    finally:
        server.stop()
    return outcomes


def runs(calls: int) -> list[Endurance]:
    """Four runs with random shapes: of repositories and of requests, on both databases."""
    outcomes = []
    server = OwnServer().start()
    try:
        with tempfile.TemporaryDirectory(prefix="dotmac-growth-") as folder:
            urls = {
                "SQLite": f"sqlite+aiosqlite:///{Path(folder, 'growth.db')}",
                "PostgreSQL": server.url("asyncpg"),
            }
            for kind, work in (("repositories", of_repositories), ("requests", of_requests)):
                for database, url in urls.items():
                    outcomes.append(asyncio.run(work(f"{kind}, {database}", url, calls)))
                    show_run(outcomes[-1])
    finally:
        server.stop()
    return outcomes


def measured(chosen: Collection[str], arguments: Namespace) -> dict[str, Any]:
    """The figures of the chosen parts, as they are in a JSON file."""
    figures: dict[str, Any] = {}
    for part in chosen:
        if part == "memory":
            figures[part] = [peak.as_json() for peak in peaks(max(arguments.rows))]
        elif part == "shapes":
            figures[part] = [run.as_json() for run in runs(arguments.calls)]
        else:
            figures[part] = axis(part, arguments).as_json()
    return figures


def failures(figures: dict[str, Any]) -> list[str]:
    """What grows that must not."""
    lines = [line for name in ("rows", "tenants") if name in figures for line in Axis.from_json(figures[name]).failures]
    lines += memory.failures([memory.Peak(**each) for each in figures.get("memory", ())])
    runs_of_shapes = map(Endurance.from_json, figures.get("shapes", ()))
    return [*lines, *(f"{run.name}: {failure}" for run in runs_of_shapes for failure in run.failures)]
