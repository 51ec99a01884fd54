"""Print a table of conditions and operations: the toolkit's time divided by the time of the same work by hand.

By hand means SQLAlchemy's ORM, used with care. Below 1 the toolkit is faster. Each condition has a reach, the highest
ratio that is accepted; ``!`` marks the cells beyond it, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.postgres import OwnServer

from ..schema import User
from ..wire import Proxy
from .conditions import CONDITIONS, Condition
from .measuring import Cell, counted, measured
from .report import Row, header, show
from .site import Site
from .ways import OPERATIONS, Operation


async def measured_row(
    condition: Condition, operations: Collection[Operation], site: Site, rounds: int, proxy: Proxy
) -> Row:
    """The cells of one condition. If a package of the condition is not installed, the row says so."""
    cells: dict[str, Cell] = {}
    try:
        async with condition.open(site) as ways:
            for operation in operations:
                cells[operation.name] = await measured(operation, ways, rounds)
    except ImportError as error:
        return Row(condition, {}, skipped=str(error))
    if condition.over_tcp:
        async with condition.open(replace(site, proxy=proxy.port)) as ways:
            for operation in operations:
                cell = cells[operation.name]
                if cell.failure is None:
                    cell.by_hand.sent = await counted(operation, ways.by_hand, proxy)
                    cell.toolkit.sent = await counted(operation, ways.toolkit, proxy)
    return Row(condition, cells)


@asynccontextmanager
async def prepared(rows: int, *, durable: bool) -> AsyncIterator[Site]:
    """A server with the filled main table, and a folder for files."""
    server = OwnServer(durable=durable, shared_buffers="512MB", max_wal_size="4GB").start()
    try:
        with tempfile.TemporaryDirectory(prefix="dotmac-conditions-") as folder:
            site = Site(server.port, rows, Path(folder))
            site.filled(User, rows)
            yield site
    finally:
        server.stop()


async def run(arguments: argparse.Namespace) -> list[Row]:
    """Measure the chosen cells, and print each row as soon as it is complete."""
    operations = [each for each in OPERATIONS if arguments.operation in (None, each.name)]
    conditions = [each for each in CONDITIONS if arguments.only in (None, each.name)]
    rows = []
    async with prepared(arguments.rows, durable=not arguments.no_fsync) as site, Proxy(site.port) as proxy:
        print(header(operations), flush=True)
        for condition in conditions:
            row = await measured_row(condition, operations, site, arguments.rounds, proxy)
            show(row, operations, detail=arguments.detail)
            rows.append(row)
    return rows


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conditions", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="number of rows in the main table, in 50 tenants")
    parser.add_argument("--only", choices=[each.name for each in CONDITIONS], help="measure one condition")
    parser.add_argument("--operation", choices=[each.name for each in OPERATIONS], help="measure one operation")
    parser.add_argument("--rounds", type=int, default=19, help="number of turns of each way, at least 2")
    parser.add_argument("--no-fsync", action="store_true", help="let PostgreSQL commit without waiting for the disk")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--detail", action="store_true", help="print times, spreads, CPU times and messages too")
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps({row.condition.name: row.figures() for row in rows}, indent=1))
    return int(any(row.is_beyond_reach for row in rows))


if __name__ == "__main__":
    sys.exit(main())
