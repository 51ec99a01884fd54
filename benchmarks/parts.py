"""What the parts inside a tenant cost: each call with a part beside the plain call, on asyncpg and on SQLite.

The parts take turns within a round, so that a slow moment of the machine affects all. A figure is the median of the
ratios to the plain call in the same round. The server does not wait for the disk, which would hide the difference.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Session

from dotmac_database import (
    Database,
    HistoryMixin,
    Policy,
    QueryFilter,
    StatementBudget,
    bind_policies,
    create_repository,
    instrument,
    outbox_table,
    publish,
)
from dotmac_database_fastapi import DatabasePlugin, carry
from tests.postgres import OwnServer

from .contenders import TENANT
from .schema import UserColumns

ROWS = 1000
OPERATIONS = ("get", "list 20", "create", "update")
WRITES = ("create", "update")


class Base(DeclarativeBase):
    """The tables of the benchmark."""


class Plain(UserColumns, Base):
    __tablename__ = "parts_plain"


class Recorded(HistoryMixin, UserColumns, Base):
    __tablename__ = "parts_recorded"


outbox_table(Base.metadata)


def by_filter(actor: str) -> list[QueryFilter]:
    return [QueryFilter("status", value=actor)]


def by_condition(actor: str) -> Any:
    return Plain.status == actor


def policy(rule: Callable[[str], Any], *hidden: str) -> Policy[Plain]:
    return Policy(Plain, read=rule, create=rule, update=rule, hidden=hidden)


@dataclass(frozen=True)
class Part:
    """What a call uses. ``operations`` are those with which it is measured."""

    operations: tuple[str, ...] = OPERATIONS
    model: type[Any] = Plain
    policy: Policy[Plain] | None = None
    actor: str | None = None
    publishes: bool = False
    is_job: bool = False
    is_measured: bool = False
    """Whether there are metrics, spans and a budget."""

    @contextmanager
    def attached(self, database: Database) -> Iterator[None]:
        """The block of a turn."""
        with ExitStack() as stack:
            if self.is_measured:
                options: Any = {"prometheus": CollectorRegistry(), "opentelemetry": TracerProvider()}
                stack.callback(instrument(database, slow_statement=1.0, **options).remove)
                stack.enter_context(StatementBudget(10**9))
            yield


PARTS: dict[str, Part] = {
    "plain": Part(),
    "policy of filters": Part(policy=policy(by_filter)),
    "policy of a condition": Part(policy=policy(by_condition)),
    "hidden column": Part(policy=policy(by_filter, "bio")),
    "history": Part(WRITES, Recorded),
    "history, actor": Part(WRITES, Recorded, actor="ann"),
    "message": Part(WRITES, publishes=True),
    "job": Part(is_job=True),
    "telemetry, budget": Part(is_measured=True),
}
NUMBERS = itertools.count(ROWS)


def row() -> dict[str, Any]:
    number = next(NUMBERS)
    return {"id": UUID(int=number), "name": "New", "email": f"{number}@example.org", "status": "active"}


def work(session: Session, part: Part, operation: str, n: int) -> object:
    """One call. ``n`` is its number."""
    if part.policy is not None:
        bind_policies(session, [part.policy], actor="active")
    users = create_repository(session, part.model, TENANT)
    if part.publishes:
        publish(session, "users", n)
    match operation:
        case "get":
            return users.get_by_id_or_raise(UUID(int=n % ROWS))
        case "list 20":
            return users.list({"pagination": {"per_page": 20, "total": "none"}})
        case "create":
            return users.create(row())
        case _:
            return users.update(UUID(int=n % ROWS), {"score": next(NUMBERS)})


Call = Callable[[Part, str, int], Awaitable[object]]


def calls(plugin: DatabasePlugin, sender: AsyncSession, *, is_async: bool) -> Call:
    """The call of a part, on a session of the plugin of its own. A job carries the headers of ``sender`` first."""

    async def by_async(part: Part, operation: str, n: int) -> object:
        unit = plugin.resume(carry(sender)) if part.is_job else plugin.session(TENANT, part.actor)
        async with unit as session:
            return await session.run_sync(work, part, operation, n)

    async def by_sync(part: Part, operation: str, n: int) -> object:
        unit = plugin.sync_resume(carry(sender)) if part.is_job else plugin.sync_session(TENANT, part.actor)
        with unit as session:
            return work(session, part, operation, n)

    return by_async if is_async else by_sync


async def measured(database: Database, call: Call, operation: str, rounds: int, times: int) -> dict[str, list[float]]:
    """The times of an operation in µs, by part, in the order of the rounds."""
    names = [name for name, part in PARTS.items() if operation in part.operations]
    samples: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            with PARTS[name].attached(database):
                for n in range(3):
                    await call(PARTS[name], operation, n)
                started = time.perf_counter()
                for n in range(times):
                    await call(PARTS[name], operation, n)
                samples[name].append((time.perf_counter() - started) / times * 1e6)
    gc.enable()
    return samples


async def run(url: URL, title: str, rounds: int, times: int, *, is_async: bool) -> dict[str, dict[str, float]]:
    """Print a line for each operation on one driver. Returns the medians in µs."""
    plugin = DatabasePlugin(url, pool_size=2, job_key="a key of sixteen bytes")
    database, medians = plugin.database, {}
    Base.metadata.create_all(database.engine)
    with database.sessions() as session:
        for model in (Plain, Recorded):
            rows = [{**row(), "id": UUID(int=number)} for number in range(ROWS)]
            create_repository(session, model, TENANT).bulk_create(rows, returning=False)
    async with plugin.session(TENANT, "ann") as sender:
        call = calls(plugin, sender, is_async=is_async)
        for operation in OPERATIONS:
            samples = await measured(database, call, operation, rounds, times)
            plain = samples["plain"]
            ratios = {
                name: statistics.median(each / by for each, by in zip(values, plain, strict=True))
                for name, values in samples.items()
            }
            cells = [f"{ratios[name]:.2f}" if name in ratios else "" for name in PARTS if name != "plain"]
            print(f"| {title} | {operation} | {statistics.median(plain):.0f} µs | {' | '.join(cells)} |", flush=True)
            medians[operation] = {name: statistics.median(values) for name, values in samples.items()}
    await database.dispose_async()
    database.dispose()
    return medians


def measure(rounds: int, times: int) -> dict[str, dict[str, dict[str, float]]]:
    """Print the table of both drivers. Returns the medians in µs, by driver, operation and part."""
    print("load average:", *(f"{each:.1f}" for each in os.getloadavg()))
    titles = ["driver", "operation", *PARTS]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}", flush=True)
    server, figures = OwnServer().start(), {}
    try:
        url = make_url(server.url())
        figures["asyncpg"] = asyncio.run(run(url, "asyncpg", rounds, times, is_async=True))
    finally:
        server.stop()
    with tempfile.TemporaryDirectory(prefix="dotmac-parts-") as folder:
        url = make_url(f"sqlite:///{folder}/parts.db")
        figures["sqlite3"] = asyncio.run(run(url, "sqlite3", rounds, times, is_async=False))
    print("load average:", *(f"{each:.1f}" for each in os.getloadavg()))
    return figures


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="number of turns of each part")
    parser.add_argument("--times", type=int, default=30, help="number of calls in a turn")
    arguments = parser.parse_args()
    measure(arguments.rounds, arguments.times)


if __name__ == "__main__":
    main()
