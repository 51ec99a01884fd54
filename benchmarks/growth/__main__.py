"""Measure how the toolkit's time and memory grow, compared with the same work on the ORM by hand.

``rows``: each operation in tables with different numbers of rows, in 10 tenants. ``tenants``: each operation in a table
with the largest of these numbers, in different numbers of tenants. The measured tenant has a tenth of the rows in the
first part, and always the same rows in the second. The rows that both ways return are compared before the measurement.
Buffers are the pages of 8 KiB of the table and its indexes that PostgreSQL reads and changes for one call; they are
counted, and do not depend on the machine.

The exit status is 1 if something grows that must not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.postgres import OwnServer

from . import sizes
from .axes import Axis, measured_axis
from .operations import OPERATIONS
from .report import show_line

PARTS = ("rows", "tenants")


async def axes(server: OwnServer, arguments: argparse.Namespace) -> list[Axis]:
    """The chosen axes."""
    chosen = [each for each in OPERATIONS if arguments.operation in (None, each.name)]
    places = {
        "rows": sizes.of_rows(arguments.rows),
        "tenants": sizes.of_tenants(arguments.tenants, max(arguments.rows)),
    }
    parts = [part for part in places if arguments.only in (None, part)]
    return [await measured_axis(part, server, places[part], chosen, arguments.rounds, show_line) for part in parts]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of the chosen parts."""
    server = OwnServer(shared_buffers="2GB", max_wal_size="4GB").start()
    try:
        return {axis.name: axis.as_json() for axis in asyncio.run(axes(server, arguments))}
    finally:
        server.stop()


def grows(figures: dict[str, Any]) -> bool:
    """Whether anything grows that must not."""
    lines = [
        line for part in ("rows", "tenants") if part in figures for line in Axis.from_json(figures[part]).lines.values()
    ]
    return any(line.is_beyond for line in lines)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of rows")
    parser.add_argument("--tenants", type=int, nargs="+", default=[10, 1000, 100_000], help="numbers of tenants")
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    parser.add_argument("--operation", choices=[each.name for each in OPERATIONS], help="measure one operation")
    parser.add_argument("--rounds", type=int, default=30, help="number of turns of each way at each size, at least 3")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    figures = run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(grows(figures))


if __name__ == "__main__":
    sys.exit(main())
