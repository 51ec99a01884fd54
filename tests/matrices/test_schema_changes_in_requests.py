"""A migration while the app serves requests, for each change of schema, route and driver. No request fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from dotmac_database import create_database
from dotmac_database_fastapi import DatabasePlugin, crud_router, register_exception_handlers, tenant_from_header
from tests.fastapi.conftest import Api

from .schema_changes import CHANGES, Base, Change, Item

DRIVERS = ("asyncpg", "psycopg")
OFTEN = 8
"""The number of calls before a change: psycopg prepares a statement when a connection sends it for the sixth time."""

SAMPLE = ("integer to bigint", "column added", "enum value added")
TENANT = "a"


class Shop:
    """An app with generated routes and a pool of one connection, and another connection for migrations."""

    def __init__(self, url: str, driver: str) -> None:
        self.migrating = create_database(url).engine.execution_options(isolation_level="AUTOCOMMIT")
        plugin_url = url.replace("postgresql:", f"postgresql+{driver}:")
        self.plugin = DatabasePlugin(plugin_url, tenant=tenant_from_header("X-Tenant-ID"), pool_size=1, max_overflow=0)
        app = FastAPI()
        self.plugin.install(app)
        register_exception_handlers(app)
        app.include_router(crud_router(Item, prefix="/items"))
        self.runner = asyncio.Runner()
        self.api = Api(app, self.runner)
        self.numbers = iter(range(1, 10**6))
        self.key = str(self.created().json()["id"])

    def migrate(self, statements: str) -> None:
        with self.migrating.connect() as connection:
            for statement in statements.split(";"):
                connection.exec_driver_sql(statement)

    def created(self) -> Any:
        number = next(self.numbers)
        row = {"number": number, "name": f"n{number}", "price": "1.50", "kind": "new"}
        return self.api.post("/items", tenant=TENANT, json=row)

    def rows(self) -> set[tuple[Any, ...]]:
        with self.migrating.connect() as connection:
            return {tuple(row) for row in connection.execute(text("SELECT id, number, name, note, version FROM items"))}

    def wrong_of(self, method: str, times: int) -> list[str]:
        """The errors of ``times`` calls of a route: wrong statuses and wrong stored rows."""
        found: list[str] = []
        for turn in range(times):
            before = self.rows()
            answer = getattr(self, method)(turn)
            now = self.rows()
            if answer.status_code >= 300:
                found.append(f"{method}: {answer.status_code} {answer.text[:200]}")
            elif len(now - before) != (method in ("create", "update")) or len(before - now) != (method == "update"):
                found.append(f"{method}: {len(now - before)} rows are new, {len(before - now)} are gone")
        return found

    def read(self, _: int) -> Any:
        return self.api.get(f"/items/{self.key}", tenant=TENANT)

    def pages(self, turn: int) -> Any:
        query = ("?sort=-number&per_page=3", "?sort=number&limit=3", "?number__in=1,2", "?kind=new")[turn % 4]
        return self.api.get(f"/items{query}", tenant=TENANT)

    def create(self, _: int) -> Any:
        return self.created()

    def update(self, turn: int) -> Any:
        version = self.api.get(f"/items/{self.key}", tenant=TENANT).headers["ETag"]
        condition = {"If-Match": version} if turn % 2 else {}
        return self.api.patch(f"/items/{self.key}", tenant=TENANT, json={"note": f"turn {turn}"}, headers=condition)

    def close(self) -> None:
        self.runner.run(self.plugin.database.async_engine.dispose())
        self.plugin.database.dispose()
        self.runner.close()
        self.migrating.dispose()


METHODS = ("read", "pages", "create", "update")


@pytest.fixture(params=DRIVERS)
def shop(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Shop]:
    database = create_database(postgres_url)
    with database.engine.begin() as connection:
        for schema in ("elsewhere", "public"):
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        connection.exec_driver_sql("CREATE TABLE elsewhere.items (number integer)")
        Base.metadata.create_all(connection)
    database.dispose()
    shop = Shop(postgres_url, request.param)
    yield shop
    shop.close()


def run(shop: Shop, changes: list[Change]) -> list[str]:
    wrong: list[str] = []
    for change in changes:
        for method in METHODS:
            assert not shop.wrong_of(method, OFTEN), method
            shop.migrate(change.there)
            wrong += [f"{change.name}, {each}" for each in shop.wrong_of(method, 3)]
            shop.migrate(change.back)
            wrong += [f"{change.name} undone, {each}" for each in shop.wrong_of(method, 3)]
    assert UUID(shop.key)
    return wrong


def test_a_sample_of_changes(shop: Shop) -> None:
    changes = [change for change in CHANGES if change.name in SAMPLE]
    assert len(changes) >= 2
    wrong = run(shop, changes)
    assert not wrong, "\n".join(wrong)


@pytest.mark.matrix
def test_every_change(shop: Shop) -> None:
    wrong = run(shop, [change for change in CHANGES if change.model is Item])
    assert not wrong, "\n".join(wrong)
