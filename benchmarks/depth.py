"""Count the buffers that PostgreSQL reads for pages at different depths, with the statements that a repository sends.

One tenant has all the rows. The script goes through them by cursor, 1,000 rows a page. At the depth to be measured it
reads the next page of 20 rows and the page before it, and the same page by OFFSET and by `deep_pagination_optimize`.
Buffers are the pages that EXPLAIN (ANALYZE, BUFFERS) counts as hit or read, so the figures do not depend on the
machine and its caches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, select, text
from sqlalchemy.orm import Session

from dotmac_database import BaseRepository, PerformancePaginator, SortField, SortOrder
from tests.postgres import OwnServer

from .schema import FILL, Base, User

TENANT = "tenant"
ONE_TENANT = FILL.replace("'tenant-' || (n % 50)", f"'{TENANT}'").replace(
    "'Some words about user ' || n", "CASE WHEN n % 20 > 0 THEN 'Some words about user ' || n END"
)
PAGE = 20
STRIDE = 1000
DESC = SortOrder.DESC

ORDERS: dict[str, list[SortField]] = {
    "created_at": [SortField("created_at")],
    "-created_at": [SortField("created_at", DESC)],
    "email": [SortField("email")],
    "status,created_at": [SortField("status"), SortField("created_at")],
    "-status,-created_at": [SortField("status", DESC), SortField("created_at", DESC)],
    "-score,created_at": [SortField("score", DESC), SortField("created_at")],
    "-bio": [SortField("bio", DESC)],
    "bio": [SortField("bio")],
}
"""The measured orders. ``bio`` is NULL in one row of twenty; ``-score,created_at`` has mixed directions."""

INDEXES = """
CREATE INDEX bench_by_mixed ON bench_users (tenant_id, score DESC, created_at, id);
CREATE INDEX bench_by_bio ON bench_users (tenant_id, bio, id);
CREATE INDEX bench_by_email ON bench_users (tenant_id, email, id);
CREATE INDEX bench_by_state ON bench_users (tenant_id, status, created_at, id)
"""


@dataclass
class Cost:
    """The buffers (8 KiB each) that the statements of a page read, and how long the statements take."""

    buffers: int
    milliseconds: float


class Meter:
    """Runs EXPLAIN for the statements that an engine sends, with the same parameters."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def measure(self, work: Callable[[], Any]) -> tuple[Cost, list[dict[str, Any]]]:
        """The total cost of the SELECTs that ``work`` sends, and their plans.

        ``work`` runs twice and the second run is measured, so that PostgreSQL has the catalogue in its caches.
        """
        explanations: list[dict[str, Any]] = []

        def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith("SELECT"):
                with connection.connection.cursor() as cursor:
                    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
                    explanations.append(cursor.fetchone()[0][0])

        work()
        event.listen(self.engine, "before_cursor_execute", explain)
        try:
            work()
        finally:
            event.remove(self.engine, "before_cursor_execute", explain)
        plans = [explanation["Plan"] for explanation in explanations]
        buffers = sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)
        return Cost(buffers, sum(explanation["Execution Time"] for explanation in explanations)), plans


def prepare(engine: Engine, rows: int) -> None:
    """Create and fill the table, with an index for each order."""
    Base.metadata.create_all(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(ONE_TENANT.format(rows=rows)))
        for statement in INDEXES.split(";"):
            connection.execute(text(statement))
        connection.execute(text("VACUUM ANALYZE bench_users"))


class Walk:
    """Pages of the tenant's rows in one order."""

    def __init__(self, session: Session, sorts: list[SortField]) -> None:
        self.session, self.sorts = session, sorts
        self.repository: Any = BaseRepository(session, User, TENANT)
        self.meter = Meter(session.get_bind())  # type: ignore[arg-type]

    def page(self, cursor: str | None, limit: int = PAGE) -> Any:
        """The page at ``cursor``. The session forgets its rows, so that each page is read from the database."""
        page = self.repository.cursor_paginate(
            {"sorts": self.sorts, "cursor_pagination": {"limit": limit, "cursor": cursor}}
        )
        self.session.expunge_all()
        return page

    def cursor_at(self, depth: int) -> str:
        """The cursor after ``depth`` rows, by going through all pages before it."""
        cursor = None
        for _ in range(depth // STRIDE):
            cursor = self.page(cursor, STRIDE).next_cursor
        assert cursor is not None
        return cursor

    def offset(self, depth: int) -> Any:
        """The page after ``depth`` rows, read by OFFSET."""
        options = {"sorts": self.sorts, "pagination": {"page": depth // PAGE + 1, "per_page": PAGE, "total": "none"}}
        return self.repository.list(options)

    def deferred(self, depth: int) -> Any:
        """The same page by a deferred join. It does not filter by ``is_deleted``, which is not in the indexes."""
        clauses = [
            getattr(User, sort.field).desc() if sort.order is DESC else getattr(User, sort.field).asc()
            for sort in self.sorts
        ]
        query = select(User).where(User.tenant_id == TENANT).order_by(*clauses)
        return PerformancePaginator.deep_pagination_optimize(self.session, query, depth // PAGE + 1, PAGE)[0]

    def costs(self, depth: int) -> dict[str, Cost]:
        """The cost of the page for each way to read it. Raises `RuntimeError` if the ways return different rows."""
        deep = self.cursor_at(depth)
        page = self.page(deep)
        expected = [row.id for row in page.items]
        if [row.id for row in self.offset(depth)] != expected or [row.id for row in self.deferred(depth)] != expected:
            raise RuntimeError("the ways return different rows")
        last = self.page(None, PAGE)
        ways: dict[str, Callable[[], Any]] = {
            "first": lambda: self.page(None),
            "second": lambda: self.page(last.next_cursor),
            "deep": lambda: self.page(deep),
            "deep, back": lambda: self.page(page.prev_cursor),
            "OFFSET": lambda: self.offset(depth),
            "deferred": lambda: self.deferred(depth),
        }
        return {name: self.meter.measure(way)[0] for name, way in ways.items()}


def run(url: str, rows: int) -> dict[str, Any]:
    """The costs for all orders. Each line of the table is printed as soon as it is measured."""
    depth = rows * 9 // 10
    engine = create_engine(url)
    prepare(engine, rows)
    results: dict[str, Any] = {}
    names = ("first", "second", "deep", "deep, back", "OFFSET", "deferred")
    print(f"{rows:,} rows, pages of {PAGE}, depth {depth:,}; buffers of 8 KiB (and ms)")
    print(f"{'order':<22}" + "".join(f"{name:>20}" for name in names))
    with Session(engine) as session:
        for name, sorts in ORDERS.items():
            costs = Walk(session, sorts).costs(depth)
            results[name] = {way: asdict(cost) for way, cost in costs.items()}
            cells = (f"{costs[way].buffers:,} ({costs[way].milliseconds:,.1f})" for way in names)
            print(f"{name:<22}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    engine.dispose()
    return results


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of rows in the table, all of one tenant")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    server = OwnServer(shared_buffers="512MB", max_wal_size="4GB").start()
    try:
        results = run(server.url("psycopg"), arguments.rows)
    finally:
        server.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
