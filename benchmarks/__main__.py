"""Measure the cases A to K side by side; each contender's rows are compared before anything is timed.

Contenders take turns within a round, so that a slow moment of the machine is everybody's; a figure is the median over
the rounds, its spread the middle half of them. Statements and round trips are counted on the wire, in one call of each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from tests.postgres import OwnServer

from . import endpoints
from .contenders import TENANT, Contender, all_of, new_rows
from .schema import FILL, Base
from .wire import Proxy, Sent

Call = Callable[[Contender, int], Awaitable[Any]]


class Case:
    """One thing to do: how, how often in a round, and whether its outcome can be compared."""

    def __init__(self, letter: str, title: str, call: Call, times: int, rounds: int, compare: bool = True) -> None:
        self.letter, self.title, self.call = letter, title, call
        self.times, self.rounds, self.compare = times, rounds, compare


def cases(keys: list[UUID], deep: Any, upserts: list[dict[str, Any]], last_page: int) -> list[Case]:
    """The cases of docs/performance.md."""
    return [
        Case("A", "get by id", lambda c, n: c.get(keys[n % len(keys)]), 50, 21),
        Case("B20", "list 20, filtered", lambda c, n: c.listed(20), 30, 15),
        Case("B100", "list 100", lambda c, n: c.listed(100), 20, 15),
        Case("C", "page 1 with total", lambda c, n: c.paged(1), 10, 11),
        Case("D", "deep page by offset", lambda c, n: c.paged(last_page), 5, 7),
        Case("E1", "keyset page, first", lambda c, n: c.after(None), 30, 15),
        Case("E2", "keyset page, deep", lambda c, n: c.after(deep), 30, 15),
        Case("F", "create, committed", lambda c, n: c.create(new_rows(1)[0]), 30, 15, compare=False),
        Case("H", "update, committed", lambda c, n: c.update(keys[n % len(keys)], n), 30, 15),
        Case("G", "create 10,000", lambda c, n: c.create_many(new_rows(10_000)), 1, 5),
        Case("J", "upsert 1,000", lambda c, n: c.upsert_many(upserts), 1, 9),
    ]


async def measured(case: Case, contenders: list[Contender]) -> dict[str, Any]:
    """Medians in microseconds, and of the client's CPU, by contender; or why one was not timed."""
    outcomes: dict[str, Any] = {}
    fit: list[Contender] = []
    reference: Any = None
    for contender in contenders:
        try:
            outcome = await case.call(contender, 3)
        except Exception as error:
            if isinstance(error, AttributeError) and error.obj is contender:
                continue
            outcomes[contender.name] = {"failed": f"{type(error).__name__}: {error}"}
            continue
        if reference is None:
            reference = outcome
        if case.compare and outcome != reference:
            outcomes[contender.name] = {"failed": "other rows than the first contender"}
            continue
        fit.append(contender)
    samples: dict[str, list[float]] = {contender.name: [] for contender in fit}
    busy: dict[str, list[float]] = {contender.name: [] for contender in fit}
    gc.collect()
    gc.disable()
    for turn in range(case.rounds):
        for contender in fit[turn % len(fit) :] + fit[: turn % len(fit)]:
            started, worked = time.perf_counter(), time.process_time()
            for n in range(case.times):
                await case.call(contender, n)
            samples[contender.name].append((time.perf_counter() - started) / case.times * 1e6)
            busy[contender.name].append((time.process_time() - worked) / case.times * 1e6)
    gc.enable()
    for name, taken in samples.items():
        low, _, high = statistics.quantiles(taken, n=4)
        cpu = statistics.median(busy[name])
        outcomes[name] = {"median_us": statistics.median(taken), "low_us": low, "high_us": high, "cpu_us": cpu}
    return outcomes


async def count(case: Case, contenders: list[Contender], proxy: Proxy, outcomes: dict[str, Any]) -> None:
    """Add what one call of each sends, once its statements are prepared."""
    for contender in contenders:
        if "median_us" in outcomes.get(contender.name, {}):
            await case.call(contender, 3)
            proxy.sent = Sent()
            await case.call(contender, 3)
            outcomes[contender.name] |= vars(proxy.sent)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncpg.Pool, list[Contender]]]:
    """Everyone at this URL (libpq's form), and the pool of the first."""
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=2)
    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool:
        yield pool, list(all_of(pool, engine))
    await engine.dispose()


async def run(server: OwnServer, rows: int, only: str | None) -> dict[str, Any]:
    """All cases on a table of ``rows`` rows."""
    results: dict[str, Any] = {}
    async with (
        Proxy(server.port) as proxy,
        connected(server.url()) as (pool, contenders),
        connected(server.url().replace(f":{server.port}", f":{proxy.port}")) as (_, counted),
    ):
        for case in await prepared(pool, rows):
            if only is None or case.letter.startswith(only):
                outcomes = await measured(case, contenders)
                await count(case, counted, proxy, outcomes)
                results[case.letter] = {"title": case.title, **outcomes}
                show(case, outcomes, [contender.name for contender in contenders])
    if only is None or only == "K":
        results["K"] = await endpoints.run(server.url())
    return results


async def prepared(pool: asyncpg.Pool, rows: int) -> list[Case]:
    """The filled table's cases."""
    for table in Base.metadata.sorted_tables:
        for element in (CreateTable(table), *map(CreateIndex, table.indexes)):
            await pool.execute(str(element.compile(dialect=postgresql.dialect())))
    await pool.execute(FILL.format(rows=rows), timeout=600)
    await pool.execute("VACUUM ANALYZE bench_users", timeout=600)
    picked = await pool.fetch(
        "SELECT id FROM bench_users WHERE tenant_id = $1 ORDER BY md5(id::text) LIMIT 500", TENANT
    )
    keys = [UUID(str(row["id"])) for row in picked]
    depth = rows // 50 * 9 // 10
    spot = await pool.fetchrow(
        "SELECT created_at, id FROM bench_users WHERE tenant_id = $1 ORDER BY created_at, id OFFSET $2 LIMIT 1",
        TENANT,
        depth,
    )
    upserts = new_rows(1000)
    active = await pool.fetchval("SELECT count(*) FROM bench_users WHERE tenant_id = $1 AND status = 'active'", TENANT)
    return cases(keys, (spot["created_at"], UUID(str(spot["id"]))), upserts, active // 20)


def show(case: Case, outcome: dict[str, Any], names: list[str]) -> None:
    """One line: the first's time and the others' ratios to it, each with spread, CPU and statements in trips."""
    base = outcome[names[0]]["median_us"]
    cells = []
    for name in names:
        figures = outcome.get(name)
        if figures is None:
            continue
        if "failed" in figures:
            cells.append(f"{name}: {figures['failed'][:120]}")
            continue
        ratio = figures["median_us"] / base
        spread = (figures["high_us"] - figures["low_us"]) / figures["median_us"] / 2
        shown = f"{base:,.0f} µs" if name == names[0] else f"{ratio:.2f}"
        cells.append(
            f"{name} {shown} (±{spread:.0%}, {figures['cpu_us']:,.0f} µs CPU, "
            f"{figures['statements']:,} in {figures['trips']})"
        )
    print(f"{case.letter:<5}{case.title:<22}" + " | ".join(cells), flush=True)


def compared(old: dict[str, Any], new: dict[str, Any]) -> None:
    """What has changed of the toolkit's ratios to asyncpg."""
    for letter, outcome in new.items():
        if letter == "K":
            continue
        before = old.get(letter)
        if (
            before is None
            or "median_us" not in outcome.get("toolkit", {})
            or "median_us" not in before.get("toolkit", {})
        ):
            continue
        then = before["toolkit"]["median_us"] / before["asyncpg"]["median_us"]
        now = outcome["toolkit"]["median_us"] / outcome["asyncpg"]["median_us"]
        print(f"{letter:<5}{outcome['title']:<22}{then:.2f} → {now:.2f} ({now / then - 1:+.0%})")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in the table, in 50 tenants")
    parser.add_argument("--case", help="only the cases whose letter begins with this")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--compare", type=Path, help="show what has changed since the figures in this file")
    asked = parser.parse_args()
    server = OwnServer(durable=True, shared_buffers="512MB", max_wal_size="4GB").start()
    try:
        results = asyncio.run(run(server, asked.rows, asked.case))
    finally:
        server.stop()
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))
    if asked.compare:
        compared(json.loads(asked.compare.read_text()), results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
