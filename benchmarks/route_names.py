"""The route of a statement as ``application_name`` and as a comment: what each does to the caches, and what it costs.

``python -m benchmarks.route_names``: 50 routes take turns on one connection, and each does a get, a list of 20, and a
block of a create and an update. The counts are exact; the times are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.telemetry import Base, Item
from benchmarks.wire import Proxy, Sent
from dotmac_database import Database, DatabaseTransaction, create_async_repository, create_database, instrument
from dotmac_database.telemetry import REQUEST, RequestContext, within
from tests.postgres import OwnServer

ROUTES = [f"GET /things{number}/{{id}}" for number in range(50)]
NUMBERS = itertools.count(1_000_000)
PAGE = {"pagination": {"per_page": 20, "total": "none"}}


def comment(_connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: bool) -> tuple[str, Any]:
    """Append the route, as sqlcommenter does."""
    request = REQUEST.get()
    return (sql if request is None else f"{sql} /*route='{request.route}'*/"), parameters


comment.dotmac_observes = True  # type: ignore[attr-defined]  # it needs no transaction


@contextmanager
def named(database: Database, kind: str) -> Iterator[None]:
    """Name the statements of this block."""
    engine = database.async_engine.sync_engine
    instrumentation = instrument(database, opentelemetry=False, application_name=kind == "application_name")
    if kind == "comment":
        event.listen(engine, "before_cursor_execute", comment, retval=True)
    yield
    instrumentation.remove()
    if kind == "comment":
        event.remove(engine, "before_cursor_execute", comment)


async def get(session: AsyncSession) -> None:
    """One read in AUTOCOMMIT."""
    await create_async_repository(session, Item).get_by_id(7)


async def some(session: AsyncSession) -> None:
    """A list of 20 in AUTOCOMMIT."""
    await create_async_repository(session, Item).list(PAGE)


async def block(session: AsyncSession) -> None:
    """A create and an update in one transaction."""
    items = create_async_repository(session, Item)
    async with DatabaseTransaction.async_transaction(session):
        new = await items.create({"id": next(NUMBERS), "name": "new"})
        await items.update(new.id, {"name": "newer"})


CALLS = {"get": get, "list 20": some, "block": block}


async def run(server: OwnServer, driver: str, kind: str, turns: int) -> None:
    """Print a line of the table."""
    async with Proxy(server.port) as proxy:
        url = make_url(server.url()).set(drivername=f"postgresql+{driver}", host="127.0.0.1", port=proxy.port)
        database = create_database(url, pool_size=1)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_stat_statements_reset()")
        times: dict[str, list[float]] = {name: [] for name in CALLS}
        messages: dict[str, int] = {}
        with named(database, kind):
            for turn in range(turns):
                for route in ROUTES:
                    for name, call in CALLS.items():
                        with within(RequestContext(route)):
                            proxy.sent, started = Sent(), time.perf_counter()
                            async with database.async_sessions() as session:
                                await call(session)
                            if turn >= turns // 2:
                                times[name].append((time.perf_counter() - started) * 1e6)
                                messages[name] = max(proxy.sent.trips, messages.get(name, 0))
            async with database.async_engine.connect() as connected:
                prepared = await connected.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
        with psycopg.connect(server.url(), autocommit=True) as connection:
            entries = connection.execute(
                "SELECT count(*) FROM pg_stat_statements WHERE query ILIKE '%telemetry_items%'"
            ).fetchone()
        await database.dispose_async()
    cells = " | ".join(f"{statistics.median(each):.0f} µs, {messages[name]}" for name, each in times.items())
    print(f"| {driver} | {kind} | {prepared} | {entries and entries[0]} | {cells} |", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.route_names", description=__doc__)
    parser.add_argument("--turns", type=int, default=12, help="how often each route is called")
    turns = parser.parse_args().turns
    server = OwnServer(shared_preload_libraries="pg_stat_statements").start()
    try:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        database = create_database(server.url())
        Base.metadata.create_all(database.engine)
        with database.engine.begin() as connected:
            connected.execute(Item.__table__.insert(), [{"id": n, "name": f"item {n}"} for n in range(1000)])  # type: ignore[attr-defined]  # a table
        database.dispose()
        print("| driver | route as | prepared statements | entries of pg_stat_statements |", " | ".join(CALLS), "|")
        for driver in ("asyncpg", "psycopg"):
            for kind in ("nothing", "application_name", "comment"):
                asyncio.run(run(server, driver, kind, turns))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
