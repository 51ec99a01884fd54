"""What telemetry costs: a get, a list of 20 and a create, on asyncpg and SQLite, without and with each part of it.

The parts take turns within a round, on the same connection, so that a slow moment affects all. A figure is the median
of the ratios to the turn without telemetry in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry
from sqlalchemy import URL, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    Database,
    StatementBudget,
    create_async_repository,
    create_database,
    create_repository,
    instrument,
)
from tests.postgres import OwnServer


class Base(DeclarativeBase):
    """The base class of the table."""


class Item(Base):
    __tablename__ = "telemetry_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


NUMBERS = itertools.count(1_000_000)
"""The keys of new rows."""


Attach = Callable[[Database], AbstractContextManager[object]]


def part(**options: Any) -> Attach:
    """A block in which a database is instrumented with these options."""

    @contextmanager
    def attached(database: Database) -> Iterator[None]:
        instrumentation = instrument(database, **options)
        try:
            yield
        finally:
            instrumentation.remove()

    return attached


@contextmanager
def official(database: Database) -> Iterator[None]:
    """OpenTelemetry's own instrumentation of SQLAlchemy, for comparison."""
    engine = database.engine if database.url.get_backend_name() == "sqlite" else database.async_engine.sync_engine
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(engine=engine, tracer_provider=TracerProvider(), skip_dep_check=True)
    try:
        yield
    finally:
        instrumentor.uninstrument()


PARTS: dict[str, Attach] = {
    "nothing": lambda _: nullcontext(),
    "metrics, slow log": part(prometheus=CollectorRegistry(), opentelemetry=False, slow_statement=1.0),
    "budget": lambda _: StatementBudget(10**9),
    "spans, not sampled": part(opentelemetry=TracerProvider(sampler=ALWAYS_OFF)),
    "spans": part(opentelemetry=TracerProvider()),
    "all but the budget": part(prometheus=CollectorRegistry(), opentelemetry=TracerProvider(), slow_statement=1.0),
    "official spans": official,
}


def calls(database: Database, *, is_async: bool) -> Callable[[str, int], Awaitable[Any]]:
    """The calls of the operations, each on a session of its own, as in requests."""
    page = {"pagination": {"per_page": 20, "total": "none"}}

    async def by_async(operation: str, n: int) -> Any:
        async with database.async_sessions() as session:
            items = create_async_repository(session, Item)
            match operation:
                case "get":
                    return await items.get_by_id(1 + n % 1000)
                case "list 20":
                    return await items.list(page)
                case _:
                    return await items.create({"id": next(NUMBERS), "name": "new"})

    async def by_sync(operation: str, n: int) -> Any:
        with database.sessions() as session:
            items = create_repository(session, Item)
            match operation:
                case "get":
                    return items.get_by_id(1 + n % 1000)
                case "list 20":
                    return items.list(page)
                case _:
                    return items.create({"id": next(NUMBERS), "name": "new"})

    return by_async if is_async else by_sync


async def measured(
    database: Database, call: Callable[[str, int], Awaitable[Any]], operation: str, rounds: int, times: int
) -> dict[str, list[float]]:
    """The times of a call in µs, by part, in the order of the rounds."""
    samples: dict[str, list[float]] = {name: [] for name in PARTS}
    names = list(PARTS)
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            with PARTS[name](database):
                for n in range(5):
                    await call(operation, n)
                started = time.perf_counter()
                for n in range(times):
                    await call(operation, n)
                samples[name].append((time.perf_counter() - started) / times * 1e6)
    gc.enable()
    return samples


async def run(url: URL, title: str, rounds: int, times: int, *, is_async: bool) -> None:
    """Print a line of a table for each operation on one driver: the parts' ratios to the time without telemetry."""
    database = create_database(url, pool_size=1)
    Base.metadata.create_all(database.engine)
    with database.sessions() as session:
        rows = [{"id": 1 + n, "name": f"item {n}"} for n in range(1000)]
        create_repository(session, Item).bulk_create(rows, returning=False)
    for operation in ("get", "list 20", "create"):
        samples = await measured(database, calls(database, is_async=is_async), operation, rounds, times)
        plain = samples["nothing"]
        ratios = (
            statistics.median(each / by for each, by in zip(samples[name], plain, strict=True))
            for name in PARTS
            if name != "nothing"
        )
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {title} | {operation} | {statistics.median(plain):.0f} µs | {cells} |", flush=True)
    await database.dispose_async()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=41, help="number of turns of each part")
    parser.add_argument("--times", type=int, default=40, help="number of calls in a turn")
    arguments = parser.parse_args()
    measure(arguments.rounds, arguments.times)


def measure(rounds: int, times: int) -> None:
    """Print the table of both drivers."""
    print("| driver | operation | without |", " | ".join(name for name in PARTS if name != "nothing"), "|")
    server = OwnServer().start()
    try:
        asyncio.run(run(make_url(server.url()), "asyncpg", rounds, times, is_async=True))
    finally:
        server.stop()
    with tempfile.TemporaryDirectory(prefix="dotmac-telemetry-") as folder:
        asyncio.run(run(make_url(f"sqlite:///{folder}/items.db"), "sqlite3", rounds, times, is_async=False))


if __name__ == "__main__":
    main()
