"""The runs with random calls: of repositories, and of generated endpoints."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from dotmac_database import (
    DatabaseError,
    DatabaseTransaction,
    bind_tenant,
    create_async_repository,
    guard_tenants,
)
from tests.models import Base, Country, Post, Tag, User

from .caches import Caches
from .endurance import Endurance, endured
from .requests import Requests, app_on
from .shapes import COUNTRY, KINDS, MODELS, TENANTS, Calls, Kind, Values

_ROWS = 20
"""The number of rows that each tenant has of each class at the beginning."""

_CALLS_OF_ROWS = 1000
"""After so many calls the rows are replaced, so that the tables do not grow, and random calls find rows."""

_CALLS_OF_SESSION = 10


async def refill(engine: AsyncEngine) -> None:
    """Replace all rows by the first ones."""
    values, numbers = Values(1), range(_ROWS * len(TENANTS))
    tenants = [TENANTS[n % len(TENANTS)] for n in numbers]
    users = [
        {"tenant_id": tenant, "id": UUID(int=n), "name": values.word(), "email": f"{n}@example.org", "score": n}
        for n, tenant in zip(numbers, tenants, strict=True)
    ]
    posts = [
        {"tenant_id": tenant, "id": n, "title": values.word(), "words": n, "author_id": UUID(int=n)}
        for n, tenant in zip(numbers, tenants, strict=True)
    ]
    tags = [{"tenant_id": tenant, "id": n, "name": values.word()} for n, tenant in zip(numbers, tenants, strict=True)]
    countries = [{"code": chr(97 + n % 26) + chr(97 + n // 26), "name": values.word()} for n in numbers]
    async with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            await connection.execute(table.delete())
        for model, rows in ((User, users), (Post, posts), (Tag, tags), (Country, countries)):
            await connection.execute(insert(model), rows)


@asynccontextmanager
async def filled(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine for the preparation, after the tables were created and filled."""
    engine = create_async_engine(url, pool_size=1)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        await refill(engine)
        yield engine
    finally:
        await engine.dispose()


class OfRepositories:
    """Random calls of repositories, ten on each session. Half of the sessions are guarded."""

    def __init__(self, engine: AsyncEngine, preparing: AsyncEngine, seed: int) -> None:
        plain: async_sessionmaker[AsyncSession] = async_sessionmaker(engine, expire_on_commit=False)
        guarded: async_sessionmaker[AsyncSession] = async_sessionmaker(engine, expire_on_commit=False)
        self._makers = (plain, guard_tenants(guarded))
        self._calls = Calls(seed)
        self._preparing = preparing
        self._numbers = itertools.count()
        self._session: AsyncSession | None = None
        self._tenant = ""
        self._block: Any = None

    async def __call__(self) -> str:
        """One call; the name of its outcome."""
        number = next(self._numbers)
        if number % _CALLS_OF_SESSION == 0:
            await self.end()
            if number % _CALLS_OF_ROWS == 0:
                await refill(self._preparing)
            self._begin()
        kind = self._calls.kind()
        try:
            await self._call(kind)
        except DatabaseError as error:
            return type(error).__name__
        return "done"

    def _begin(self) -> None:
        choice = self._calls.random
        self._tenant = self._calls.tenant()
        maker = choice.choice(self._makers)
        self._session = maker()
        if maker is self._makers[1]:
            bind_tenant(self._session, self._tenant)

    async def _call(self, kind: Kind) -> None:
        assert self._session is not None
        tenant = None if kind is COUNTRY else self._tenant
        repository: Any = create_async_repository(self._session, kind.model, tenant)
        if self._calls.random.random() < 0.8:
            await self._calls.call(kind, repository)
            return
        async with DatabaseTransaction.async_transaction(self._session):
            await self._calls.call(kind, repository)

    async def end(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def of_repositories(name: str, url: str, calls: int, seed: int = 1) -> Endurance:
    """A run with calls of repositories on the database at ``url``, for an async driver."""
    engine = create_async_engine(url, pool_size=2, max_overflow=0)
    caches = Caches(MODELS, [engine.sync_engine])
    try:
        async with filled(url) as preparing:
            work = OfRepositories(engine, preparing, seed)
            try:
                return await endured(name, calls, work, lambda: caches)
            finally:
                await work.end()
    finally:
        caches.close()
        await engine.dispose()


async def of_requests(name: str, url: str, calls: int, seed: int = 1) -> Endurance:
    """A run with requests to generated endpoints on the database at ``url``."""
    async with filled(url) as preparing, app_on(url) as (app, plugin):
        caches = Caches([kind.model for kind in KINDS], [plugin.database.async_engine.sync_engine])
        requests, numbers = Requests(app, seed), itertools.count()

        async def work() -> str:
            if next(numbers) % _CALLS_OF_ROWS == 0:
                await refill(preparing)
            return await requests()

        try:
            return await endured(name, calls, work, lambda: caches)
        finally:
            caches.close()
