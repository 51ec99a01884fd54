"""The kinds of sessions on which a repository can be used, for every driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dotmac_database import (
    ALL_TENANTS,
    DatabaseTransaction,
    RowLevelSecurity,
    create_async_repository,
    create_database,
    create_repository,
    guard_tenants,
    unscoped,
)
from dotmac_database.engines import Database
from dotmac_database_fastapi import DatabasePlugin, tenant_from_header

DRIVERS = {
    "sqlite3": ("sqlite", False),
    "aiosqlite": ("sqlite", True),
    "psycopg": ("postgresql", False),
    "psycopg_async": ("postgresql", True),
    "asyncpg": ("postgresql", True),
}
"""For each driver: its database, and whether the driver is async."""

RINGS = ("plain", "guarded", "secured", "request", "transaction", "unscoped", "secured_unscoped")
ACROSS = ("unscoped", "secured_unscoped")
"""The rings that work across tenants."""

Act = Callable[[Any], Any]
"""A function that uses a repository. With an async repository it returns an awaitable."""


def rings_of(driver: str) -> tuple[str, ...]:
    """The rings of a driver. Only PostgreSQL has row-level security."""
    return RINGS if DRIVERS[driver][0] == "postgresql" else tuple(each for each in RINGS if "secured" not in each)


class Rings:
    """The sessions of every kind for one driver and one database.

    ``secured`` is the URL for a role to which the policies apply.
    """

    def __init__(self, driver: str, url: Any, secured: Any, metadata: MetaData) -> None:
        self.driver = driver
        self.is_async = DRIVERS[driver][1]
        if driver == "psycopg_async":
            url, secured = (each.set(drivername="postgresql+psycopg") for each in (url, secured))
        self.database = create_database(url, pool_size=2, max_overflow=0)
        self.secured = create_database(secured, pool_size=2, max_overflow=0)
        self.rls = RowLevelSecurity(metadata)
        self.plugin = DatabasePlugin(url, tenant=tenant_from_header("X-Tenant-ID"), pool_size=2, max_overflow=0)
        self.runner = asyncio.Runner()
        self.act: tuple[Any, Any, Act] | None = None
        self.result: Any = None
        self.app = self._app()
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    def close(self) -> None:
        async def close() -> None:
            await self.client.aclose()
            for each in (self.database, self.secured, self.plugin.database):
                await each.dispose_async()

        self.runner.run(close())
        self.runner.close()

    def engine(self, ring: str) -> Engine:
        """The sync engine that executes the statements of a ring."""
        database = self.plugin.database if ring == "request" else self._database(ring)
        return database.async_engine.sync_engine if self.is_async else database.engine

    def _database(self, ring: str) -> Database:
        return self.secured if "secured" in ring else self.database

    def run(self, ring: str, model: type[Any], tenant: Any, act: Act) -> Any:
        """The result of ``act`` for the tenant's repository on a session of the ring, after the session is closed."""
        self.act = (model, ALL_TENANTS if ring in ACROSS and tenant is not None else tenant, act)
        if ring == "request":
            return self.runner.run(self._request(tenant))
        if self.is_async:
            return self.runner.run(self._on_async_session(ring))
        with self._sessions(ring)() as session, ExitStack() as stack:
            if ring in ACROSS:
                stack.enter_context(unscoped(session, reason="a test"))
            if ring == "transaction":
                stack.enter_context(DatabaseTransaction.sync_transaction(session))
            return self._on(session)

    async def _on_async_session(self, ring: str) -> Any:
        async with self._sessions(ring)() as session:
            with ExitStack() as stack:
                if ring in ACROSS:
                    stack.enter_context(unscoped(session, reason="a test"))
                if ring == "transaction":
                    async with DatabaseTransaction.async_transaction(session):
                        return await self._on(session)
                return await self._on(session)

    def _on(self, session: Any) -> Any:
        assert self.act is not None
        model, tenant, act = self.act
        make = create_async_repository if self.is_async else create_repository
        return act(make(session, model, tenant))

    def _sessions(self, ring: str) -> Any:
        database = self._database(ring)
        make: Any = async_sessionmaker if self.is_async else sessionmaker
        maker = make(database.async_engine if self.is_async else database.engine, expire_on_commit=False)
        if ring == "plain":
            return maker
        return guard_tenants(maker, rls=self.rls if "secured" in ring else None)

    def _app(self) -> FastAPI:
        app = FastAPI()
        self.plugin.install(app)

        @app.post("/async")
        async def by_async(session: Any = Depends(self.plugin.get_session)) -> None:
            self.result = await self._on(session)

        @app.post("/sync")
        def by_sync(session: Any = Depends(self.plugin.get_sync_session)) -> None:
            self.result = self._on(session)

        return app

    async def _request(self, tenant: Any) -> Any:
        self.result = None
        path = "/async" if self.is_async else "/sync"
        headers = {"X-Tenant-ID": str(tenant or "a")}
        response = await self.client.post(path, headers=headers)
        assert response.status_code == 200, response.text
        return self.result
