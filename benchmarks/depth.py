"""What a page at any depth costs, in buffers: of the very statements that a repository sends.

One tenant has all the rows. It is walked by cursor, 1,000 rows a page, and at depth the next page of 20 is read, and
the one before; beside it the same page by OFFSET and by `deep_pagination_optimize`. Buffers are what EXPLAIN (ANALYZE,
BUFFERS) counts as hit or read: they tell what is touched, whatever the machine and its caches.
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
"""What is paged. ``bio`` is NULL in one row of twenty; ``-score,created_at`` has mixed directions."""

INDEXES = """
CREATE INDEX bench_by_mixed ON bench_users (tenant_id, score DESC, created_at, id);
CREATE INDEX bench_by_bio ON bench_users (tenant_id, bio, id);
CREATE INDEX bench_by_email ON bench_users (tenant_id, email, id);
CREATE INDEX bench_by_state ON bench_users (tenant_id, status, created_at, id)
"""


@dataclass
class Cost:
    """What a page's statements touch, in pages of 8 KiB, and how long they take."""

    buffers: int
    milliseconds: float


class Meter:
    """Explains what an engine sends, with the parameters as they are sent."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def measure(self, work: Callable[[], Any]) -> tuple[Cost, list[dict[str, Any]]]:
        """The cost and the plans of each SELECT of ``work``, at its second run: the catalogue's caches are warm."""
        found: list[dict[str, Any]] = []

        def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith("SELECT"):
                with connection.connection.cursor() as beside:
                    beside.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
                    found.append(beside.fetchone()[0][0])

        work()
        event.listen(self.engine, "before_cursor_execute", explain)
        try:
            work()
        finally:
            event.remove(self.engine, "before_cursor_execute", explain)
        plans = [each["Plan"] for each in found]
        buffers = sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)
        return Cost(buffers, sum(each["Execution Time"] for each in found)), plans


def prepare(engine: Engine, rows: int) -> None:
    """Make and fill the table."""
    Base.metadata.create_all(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(ONE_TENANT.format(rows=rows)))
        for statement in INDEXES.split(";"):
            connection.execute(text(statement))
        connection.execute(text("VACUUM ANALYZE bench_users"))


class Walk:
    """One order of the tenant's rows."""

    def __init__(self, session: Session, sorts: list[SortField]) -> None:
        self.session, self.sorts = session, sorts
        self.repository: Any = BaseRepository(session, User, TENANT)
        self.meter = Meter(session.get_bind())  # type: ignore[arg-type]

    def page(self, cursor: str | None, limit: int = PAGE) -> Any:
        """A page by cursor; the session forgets it, so that the next is read again."""
        found = self.repository.cursor_paginate(
            {"sorts": self.sorts, "cursor_pagination": {"limit": limit, "cursor": cursor}}
        )
        self.session.expunge_all()
        return found

    def to(self, depth: int) -> str:
        """The cursor at this depth, by walking there."""
        cursor = None
        for _ in range(depth // STRIDE):
            cursor = self.page(cursor, STRIDE).next_cursor
        assert cursor is not None
        return cursor

    def offset(self, depth: int) -> Any:
        """The page of the same rows by OFFSET."""
        asked = {"sorts": self.sorts, "pagination": {"page": depth // PAGE + 1, "per_page": PAGE, "total": "none"}}
        return self.repository.list(asked)

    def deferred(self, depth: int) -> Any:
        """The page of the same rows by a deferred join, without the soft-delete column that the indexes lack."""
        clauses = [
            getattr(User, sort.field).desc() if sort.order is DESC else getattr(User, sort.field).asc()
            for sort in self.sorts
        ]
        query = select(User).where(User.tenant_id == TENANT).order_by(*clauses)
        return PerformancePaginator.deep_pagination_optimize(self.session, query, depth // PAGE + 1, PAGE)[0]

    def costs(self, depth: int) -> dict[str, Cost]:
        """What each way costs; the rows are the same, or this raises."""
        deep = self.to(depth)
        page = self.page(deep)
        expected = [row.id for row in page.items]
        if [row.id for row in self.offset(depth)] != expected or [row.id for row in self.deferred(depth)] != expected:
            raise RuntimeError("the ways give different rows")
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
    """All orders; the table is printed as it comes."""
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
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in the table, of one tenant")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    server = OwnServer(shared_buffers="512MB", max_wal_size="4GB").start()
    try:
        results = run(server.url("psycopg"), asked.rows)
    finally:
        server.stop()
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
