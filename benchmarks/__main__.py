"""Measure the cases A to K and U for each contender, after a comparison of the rows that each contender returns.

The contenders take turns within a round, so that a slow moment of the machine affects all of them. A figure is the
median over the rounds; its spread is half the distance between the quartiles. A proxy counts the statements and round
trips of one call.
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

from . import endpoints, history, parts, peers, telemetry
from .contenders import TENANT, ByHand, Contender, Core, Raw, Toolkit, new_rows
from .schema import FILL, Base
from .wire import Proxy, Sent

Call = Callable[[Contender, int], Awaitable[Any]]


class Case:
    """A case: its call, the calls in a round, the rounds, and whether the outcomes of contenders must be equal."""

    def __init__(self, letter: str, title: str, call: Call, times: int, rounds: int, compare: bool = True) -> None:
        self.letter, self.title, self.call = letter, title, call
        self.times, self.rounds, self.compare = times, rounds, compare


def cases(keys: list[UUID], many: list[UUID], deep: Any, upserts: list[dict[str, Any]], last_page: int) -> list[Case]:
    """The cases of docs/performance.md. ``many`` are the keys of the rows that case U updates."""
    return [
        Case("A", "get by id", lambda c, n: c.get(keys[n % len(keys)]), 50, 21),
        Case("B20", "list 20, filtered", lambda c, n: c.listed(20), 30, 15),
        Case("B100", "list 100", lambda c, n: c.listed(100), 20, 15),
        Case("C", "page 1 with total", lambda c, n: c.paged(1), 10, 11),
        Case("D", "deep page by offset", lambda c, n: c.paged(last_page), 5, 7),
        Case("E1", "keyset page, first", lambda c, n: c.after(None), 30, 15),
        Case("E2", "keyset page, deep", lambda c, n: c.after(deep), 30, 15),
        Case("F", "create, committed", lambda c, n: c.create(new_rows(1)[0]), 30, 15, compare=False),
        Case(
            *("FO", "create with a message", lambda c, n: c.create_and_publish(new_rows(1)[0]), 30, 15),
            compare=False,
        ),
        Case("O", "publish, relay 1,000", lambda c, n: c.relayed(1_000), 1, 7, compare=False),
        Case("H", "update, committed", lambda c, n: c.update(keys[n % len(keys)], n), 30, 15),
        Case("G", "create 10,000", lambda c, n: c.create_many(new_rows(10_000)), 1, 5),
        Case("GR", "create 10,000, returned", lambda c, n: c.create_returning(new_rows(10_000)), 1, 5),
        Case("J", "upsert 1,000", lambda c, n: c.upsert_many(upserts), 1, 9),
        Case("U", "update 1,000 by key", lambda c, n: c.update_many([{"id": key, "score": n} for key in many]), 1, 9),
    ]


async def measured(case: Case, contenders: list[Contender]) -> dict[str, Any]:
    """For each contender that has the case: its time and CPU time in µs, or why it was not timed.

    A contender is not timed if its call raises an exception, or returns other rows than the first contender.
    """
    outcomes: dict[str, Any] = {}
    participants: list[Contender] = []
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
            outcomes[contender.name] = {"failed": "returns other rows than the first contender"}
            continue
        participants.append(contender)
    samples: dict[str, list[float]] = {contender.name: [] for contender in participants}
    cpu_times: dict[str, list[float]] = {contender.name: [] for contender in participants}
    gc.collect()
    gc.disable()
    for turn in range(case.rounds):
        for contender in participants[turn % len(participants) :] + participants[: turn % len(participants)]:
            started, cpu_started = time.perf_counter(), time.process_time()
            for n in range(case.times):
                await case.call(contender, n)
            samples[contender.name].append((time.perf_counter() - started) / case.times * 1e6)
            cpu_times[contender.name].append((time.process_time() - cpu_started) / case.times * 1e6)
    gc.enable()
    for name, durations in samples.items():
        low, _, high = statistics.quantiles(durations, n=4)
        cpu = statistics.median(cpu_times[name])
        outcomes[name] = {"median_us": statistics.median(durations), "low_us": low, "high_us": high, "cpu_us": cpu}
    return outcomes


async def count(case: Case, contenders: list[Contender], proxy: Proxy, outcomes: dict[str, Any]) -> None:
    """Add the statements and round trips of one call to ``outcomes``, measured after a first call has prepared them."""
    for contender in contenders:
        if "median_us" in outcomes.get(contender.name, {}):
            await case.call(contender, 3)
            proxy.sent = Sent()
            await case.call(contender, 3)
            outcomes[contender.name] |= vars(proxy.sent)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncpg.Pool, list[Contender]]]:
    """The pool of asyncpg and all contenders on the database at ``url`` (in the form of libpq).

    The first contender is the one with which the others are compared.
    """
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=2)
    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool:
        yield pool, [Raw(pool), Core(engine), ByHand(engine), Toolkit(engine), *peers.installed(engine)]
    await engine.dispose()


async def run(server: OwnServer, rows: int, only: str | None) -> dict[str, Any]:
    """The outcomes of all cases, or of those whose letter begins with ``only``, on a table of ``rows`` rows."""
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
    """Create and fill the table; the cases with the keys and positions of its rows."""
    for table in Base.metadata.sorted_tables:
        for element in (CreateTable(table), *map(CreateIndex, table.indexes)):
            await pool.execute(str(element.compile(dialect=postgresql.dialect())))
    await pool.execute(FILL.format(rows=rows), timeout=600)
    await pool.execute("VACUUM ANALYZE bench_users", timeout=600)
    sample = await pool.fetch(
        "SELECT id FROM bench_users WHERE tenant_id = $1 ORDER BY md5(id::text) LIMIT 1500", TENANT
    )
    sampled = [UUID(str(row["id"])) for row in sample]
    keys, many = sampled[:500], sampled[500:]
    depth = rows // 50 * 9 // 10
    position = await pool.fetchrow(
        "SELECT created_at, id FROM bench_users WHERE tenant_id = $1 ORDER BY created_at, id OFFSET $2 LIMIT 1",
        TENANT,
        depth,
    )
    upserts = new_rows(1000)
    active = await pool.fetchval("SELECT count(*) FROM bench_users WHERE tenant_id = $1 AND status = 'active'", TENANT)
    return cases(keys, many, (position["created_at"], UUID(str(position["id"]))), upserts, active // 20)


def show(case: Case, outcome: dict[str, Any], names: list[str]) -> None:
    """Print one line: the first contender's time and the ratios of the others to it.

    Each figure comes with its spread, the CPU time, the statements and the round trips.
    """
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
        figure = f"{base:,.0f} µs" if name == names[0] else f"{ratio:.2f}"
        cells.append(
            f"{name} {figure} (±{spread:.0%}, {figures['cpu_us']:,.0f} µs CPU, "
            f"{figures['statements']:,} in {figures['trips']})"
        )
    print(f"{case.letter:<5}{case.title:<25}" + " | ".join(cells), flush=True)


def compare_ratios(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Print how the ratio of the toolkit to asyncpg has changed in each case."""
    for letter, outcome in new.items():
        if letter in ("K", "parts"):
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
        print(f"{letter:<5}{outcome['title']:<25}{then:.2f} → {now:.2f} ({now / then - 1:+.0%})")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="number of rows in the table, spread over 50 tenants"
    )
    parser.add_argument("--case", help="run only the cases whose letter begins with this")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--compare", type=Path, help="show what has changed since the figures in this file")
    parser.add_argument("--history", action="store_true", help="measure what a history costs, and nothing else")
    parser.add_argument("--telemetry", action="store_true", help="measure what telemetry costs, and nothing else")
    parser.add_argument("--parts", action="store_true", help="measure what the parts inside a tenant cost, only")
    arguments = parser.parse_args()
    if arguments.history:
        history.main()
        return 0
    if arguments.telemetry:
        telemetry.measure(rounds=41, times=40)
        return 0
    if arguments.parts:
        parts.measure(rounds=21, times=30)
        return 0
    server = OwnServer(durable=True, shared_buffers="512MB", max_wal_size="4GB").start()
    try:
        results = asyncio.run(run(server, arguments.rows, arguments.case))
    finally:
        server.stop()
    if arguments.case is None:
        results["parts"] = parts.measure(rounds=21, times=30)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    if arguments.compare:
        compare_ratios(json.loads(arguments.compare.read_text()), results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
