"""What telemetry costs: a get, a list of 20 and a create, on asyncpg and SQLite, without and with each part of it.

The parts take turns within a round, on databases of their own, so that a slow moment affects all. A figure is the
median over the rounds, and its ratio to the median without telemetry.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

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


def nothing(_database: Database, _stack: ExitStack) -> None: ...


def metrics(database: Database, stack: ExitStack) -> None:
    instrument(database, prometheus=CollectorRegistry(), opentelemetry=False)


def with_slow_log(database: Database, stack: ExitStack) -> None:
    instrument(database, prometheus=CollectorRegistry(), opentelemetry=False, slow_statement=1.0)


def budget(database: Database, stack: ExitStack) -> None:
    """Entered by each measured round, in its own context."""


def unsampled(database: Database, stack: ExitStack) -> None:
    instrument(database, opentelemetry=TracerProvider(sampler=ALWAYS_OFF))


def spans(database: Database, stack: ExitStack) -> None:
    instrument(database, opentelemetry=TracerProvider())


def everything(database: Database, stack: ExitStack) -> None:
    instrument(database, prometheus=CollectorRegistry(), opentelemetry=TracerProvider(), slow_statement=1.0)


def official(database: Database, stack: ExitStack) -> None:
    """OpenTelemetry's own instrumentation of SQLAlchemy, for comparison."""
    engine = database.engine if database.url.get_backend_name() == "sqlite" else database.async_engine.sync_engine
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(engine=engine, tracer_provider=TracerProvider(), skip_dep_check=True)
    stack.callback(instrumentor.uninstrument)


PARTS: dict[str, Callable[[Database, ExitStack], None]] = {
    "nothing": nothing,
    "metrics": metrics,
    "metrics, slow log": with_slow_log,
    "budget": budget,
    "spans, not sampled": unsampled,
    "spans": spans,
    "metrics, spans, slow log": everything,
    "official spans": official,
}


class Subject(NamedTuple):
    """A database with one part of the telemetry, and what calls an operation on it."""

    part: str
    call: Callable[[str, int], Awaitable[Any]]


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


async def measured(subjects: list[Subject], operation: str, rounds: int, times: int) -> dict[str, float]:
    """The median time of a call in µs, by part."""
    samples: dict[str, list[float]] = {subject.part: [] for subject in subjects}
    for subject in subjects:
        for n in range(20):
            await subject.call(operation, n)
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        start = turn % len(subjects)
        for subject in subjects[start:] + subjects[:start]:
            with StatementBudget(10**9) if subject.part == "budget" else ExitStack():
                started = time.perf_counter()
                for n in range(times):
                    await subject.call(operation, n)
                samples[subject.part].append((time.perf_counter() - started) / times * 1e6)
    gc.enable()
    return {part: statistics.median(durations) for part, durations in samples.items()}


async def run(url_of: Callable[[int], URL], title: str, rounds: int, times: int, *, is_async: bool) -> None:
    """Print the table of one driver."""
    with ExitStack() as stack:
        subjects, databases = [], []
        for number, (part, attach) in enumerate(PARTS.items()):
            database = create_database(url_of(number), pool_size=2)
            databases.append(database)
            Base.metadata.drop_all(database.engine)
            Base.metadata.create_all(database.engine)
            with database.sessions() as session:
                create_repository(session, Item).bulk_create(
                    [{"id": 1 + n, "name": f"item {n}"} for n in range(1000)], returning=False
                )
            attach(database, stack)
            subjects.append(Subject(part, calls(database, is_async=is_async)))
        for operation in ("get", "list 20", "create"):
            medians = await measured(subjects, operation, rounds, times)
            plain = medians["nothing"]
            cells = ", ".join(f"{part} {value / plain:.2f}" for part, value in medians.items() if part != "nothing")
            print(f"{title}, {operation}: {plain:.0f} µs without; {cells}", flush=True)
        for database in databases:
            await database.dispose_async()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=41, help="number of turns of each part")
    parser.add_argument("--times", type=int, default=40, help="number of calls in a turn")
    arguments = parser.parse_args()
    measure(arguments.rounds, arguments.times)


def measure(rounds: int, times: int) -> None:
    """Print the tables of both drivers."""
    server = OwnServer().start()
    try:
        shared = make_url(server.url())
        asyncio.run(run(lambda _: shared, "asyncpg", rounds, times, is_async=True))
    finally:
        server.stop()
    with tempfile.TemporaryDirectory(prefix="dotmac-telemetry-") as folder:
        asyncio.run(
            run(lambda number: make_url(f"sqlite:///{folder}/{number}.db"), "sqlite3", rounds, times, is_async=False)
        )


if __name__ == "__main__":
    main()
