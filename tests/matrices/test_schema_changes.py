"""A migration while the app runs: no call fails because of it, and no write is lost or done twice.

Each cell calls a method on both connections of a pool until its statements are prepared. Then it changes the schema on
another connection, and calls the method again, each time in a new session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from dotmac_database import Database, create_database

from .schema_changes import BY_HAND, CHANGES, READS, VIEW, WAYS, WRITES, Base, Change, Item, Rows, Ways, driven

DRIVERS = {"psycopg": ("psycopg", False), "psycopg_async": ("psycopg", True), "asyncpg": ("asyncpg", True)}
CALLS = 4
POOL = 2


class App:
    """An app with a pool of two connections, and another connection for migrations."""

    def __init__(self, url: str, driver: str, is_async: bool) -> None:
        connect: dict[str, Any] = {"prepare_threshold": 0} if driver == "psycopg" else {}
        self.database: Database = create_database(url, pool_size=POOL, max_overflow=0, connect_args=connect)
        self.is_async = is_async
        self.runner = asyncio.Runner()
        self.ways = Ways(self.database, is_async)
        self.rows = Rows()
        self.migrating = create_database(url).engine.execution_options(isolation_level="AUTOCOMMIT")
        self.run(self.fill_pool())

    def run(self, work: Any) -> Any:
        return self.runner.run(work) if self.is_async else driven(work)

    async def fill_pool(self) -> None:
        held = [self.ways.maker() for _ in range(POOL)]
        for session in held:
            result = session.execute(text("SELECT 1"))
            if self.is_async:
                await result
        for session in held:
            closed = session.close()
            if self.is_async:
                await closed

    def migrate(self, statements: str) -> None:
        with self.migrating.connect() as connection:
            for statement in statements.split(";"):
                connection.exec_driver_sql(statement)

    def seed(self) -> None:
        with self.migrating.connect() as connection:
            connection.execute(Item.__table__.delete())
            rows = [
                {"id": key, "tenant_id": "a", "is_deleted": False, "version": 1, **self.rows.values(number)}
                for number, key in enumerate(self.rows.ids, 1)
            ]
            connection.execute(Item.__table__.insert(), rows)

    def stored(self) -> tuple[int, list[int]]:
        """The version of the first row, and the numbers of the rows that were added."""
        with self.migrating.connect() as connection:
            version = connection.execute(text("SELECT version FROM items WHERE number = 1")).scalar_one()
            added = connection.execute(text("SELECT number FROM items WHERE number > 3 ORDER BY number")).scalars()
            return version, list(added)

    def close(self) -> None:
        if "async_engine" in self.database.__dict__:
            self.runner.run(self.database.dispose_async())
        self.database.dispose()
        self.migrating.dispose()
        self.runner.close()


def cell(app: App, change: Change, way: str, name: str, statements: str) -> str | None:
    """The error of one cell; None if it is correct."""
    send = getattr(app.ways, way)
    app.seed()
    counted, added = 1, list[int]()
    begun = 0
    failed: list[str] = []
    for number in range(2 * POOL + CALLS):
        if number == 2 * POOL:
            app.migrate(statements)
            app.ways.begun = 0
        try:
            result = app.run(send(change.model, name, app.rows))
        except Exception as error:  # noqa: BLE001 - every exception belongs in the report
            failed.append(f"call {number - 2 * POOL}: {type(error).__name__}: {str(error)[:90]}")
            continue
        if result is not None:
            counted, added = None if result[0] is None else counted + result[0], added + result[1]
    begun = app.ways.begun
    version, stored = app.stored()
    if not failed and (counted not in (None, version) or stored != sorted(added)):
        failed.append(f"stored {version}, {stored}, acknowledged {counted}, {sorted(added)}")
    if way == "later" and begun > CALLS + POOL:
        failed.append(f"begun {begun} times for {CALLS} calls")
    return "; ".join(failed) or None


@pytest.fixture(params=list(DRIVERS))
def app(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[App]:
    driver, is_async = DRIVERS[request.param]
    made = App(postgres_url.replace("postgresql:", f"postgresql+{driver}:"), driver, is_async)
    made.migrate("DROP SCHEMA IF EXISTS elsewhere CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    made.migrate("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.items (number integer)")
    Base.metadata.create_all(made.migrating)
    made.migrate(VIEW)
    yield made
    made.close()


def wrong(app: App, changes: list[Change], ways: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """A line with the error for each wrong cell."""
    found: list[str] = []
    for change in changes:
        if change.model is Item:
            app.migrate("DROP VIEW IF EXISTS seen_items")
        turn = 0
        for way in ways:
            for name in names if way != "hand" else [each for each in names if each in BY_HAND]:
                fault = cell(app, change, way, name, change.back if turn % 2 else change.there)
                turn += 1
                if fault:
                    found.append(f"{change.name} | {way} | {name} | {fault}")
        if turn % 2:
            app.migrate(change.back)
        if change.model is Item:
            app.migrate(VIEW)
    return found


@pytest.mark.matrix
def test_every_change(app: App) -> None:
    found = wrong(app, list(CHANGES), WAYS, (*READS, *WRITES))
    assert not found, "\n" + "\n".join(found)


SAMPLE = {
    "integer to bigint": ("read_get_many", "read_list", "write_create", "write_update", "write_bulk_upsert"),
    "enum made anew": ("read_get_by_id", "write_create", "write_bulk_create_count"),
    "numeric to double": ("read_get_by_id", "read_values"),
    "table made anew": ("read_list", "write_upsert"),
}


def test_a_sample(app: App) -> None:
    found = [
        fault
        for change in CHANGES
        if change.name in SAMPLE
        for fault in wrong(app, [change], WAYS, SAMPLE[change.name])
    ]
    assert not found, "\n" + "\n".join(found)
