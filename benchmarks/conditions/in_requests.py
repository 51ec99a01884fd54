"""The condition in which each call is a request to a FastAPI app, with the plugin or with a hand-written session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import httpx
from fastapi import Depends, FastAPI, Header
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import AsyncTenantRepository
from dotmac_database_fastapi import DatabasePlugin, get_repository, tenant_from_header

from ..contenders import TENANT
from ..schema import User
from .by_hand import HandWritten
from .by_toolkit import newest
from .on_postgresql import new_sessions
from .site import Site, async_engine
from .ways import Subject, Ways, nothing

HEADER = "X-Tenant-ID"
Users = Annotated[AsyncTenantRepository[User], Depends(get_repository(User))]


class Requests:
    """The operations as requests to an app. A response is a number or an id."""

    is_async: ClassVar[bool] = True

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.rest = nothing

    async def _response(self, method: str, path: str, n: int) -> Any:
        response = await self.client.request(method, path, params={"n": n})
        return response.raise_for_status().json()

    def get(self, n: int) -> Any:
        return self._response("GET", "/one", n)

    def listed(self, n: int) -> Any:
        return self._response("GET", "/newest", n)

    def paged(self, n: int) -> Any:
        return self._response("GET", "/page", n)

    def create(self, n: int) -> Any:
        return self._response("POST", "/create", n)

    def update(self, n: int) -> Any:
        return self._response("POST", "/update", n)

    def five_writes(self, n: int) -> Any:
        return self._response("POST", "/five", n)


def _add_reads(app: FastAPI, hand: HandWritten, get_session: Callable[..., Any]) -> None:
    """The reads by hand."""

    @app.get("/one")
    async def one(n: int, session: AsyncSession = Depends(get_session)) -> str:
        return str((await session.execute(hand.one(n))).scalar_one().id)

    @app.get("/newest")
    async def newest_users(session: AsyncSession = Depends(get_session)) -> int:
        return len((await session.execute(hand.newest())).scalars().all())

    @app.get("/page")
    async def page(session: AsyncSession = Depends(get_session)) -> int:
        total = await session.scalar(hand.total())
        return int(total or 0) + len((await session.execute(hand.newest())).scalars().all())


def _add_writes(app: FastAPI, hand: HandWritten, get_session: Callable[..., Any]) -> None:
    """The writes by hand."""

    @app.post("/create")
    async def create(n: int, session: AsyncSession = Depends(get_session)) -> int:
        user = hand.entity(n)
        session.add(user)
        await session.commit()
        return int(user.score)

    @app.post("/update")
    async def update(n: int, session: AsyncSession = Depends(get_session)) -> int:
        user = (await session.execute(hand.one(n))).scalar_one()
        user.score = n
        await session.commit()
        return int(user.score)

    @app.post("/five")
    async def five(n: int, session: AsyncSession = Depends(get_session)) -> int:
        for each in range(3):
            session.add(hand.entity(n + each))
            await session.flush()
        for each in range(2):
            user = (await session.execute(hand.one(n + each))).scalar_one()
            user.score = n
            await session.flush()
        await session.commit()
        return n


@asynccontextmanager
async def _hand_written(site: Site) -> AsyncIterator[FastAPI]:
    """An app whose sessions come from a hand-written dependency, which requires the tenant's header."""
    async with async_engine(site.url("asyncpg")) as engine:
        sessions = new_sessions(engine)

        async def get_session(tenant: Annotated[str, Header(alias=HEADER)]) -> AsyncIterator[AsyncSession]:
            async with sessions() as session:
                yield session

        app, hand = FastAPI(), HandWritten(site.main)
        _add_reads(app, hand, get_session)
        _add_writes(app, hand, get_session)
        yield app


def _add_endpoints(app: FastAPI, subject: Subject) -> None:
    """The same endpoints with repositories of the plugin's."""

    @app.get("/one")
    async def one(n: int, users: Users) -> str:
        user = await users.get_by_id(subject.key(n))
        assert user is not None
        return str(user.id)

    @app.get("/newest")
    async def newest_users(users: Users) -> int:
        return len(await users.list(newest()))

    @app.get("/page")
    async def page(users: Users) -> int:
        result = await users.list_paginated(newest())
        return int(result.total or 0) + len(result.items)

    @app.post("/create")
    async def create(n: int, users: Users) -> int:
        return (await users.create(subject.new(n))).score

    @app.post("/update")
    async def update(n: int, users: Users) -> int:
        return (await users.update(subject.key(n), {"score": n})).score

    @app.post("/five")
    async def five(n: int, users: Users) -> int:
        for each in range(3):
            await users.create(subject.new(n + each))
        for each in range(2):
            await users.update(subject.key(n + each), {"score": n})
        return n


@asynccontextmanager
async def _with_plugin(site: Site) -> AsyncIterator[FastAPI]:
    """An app with the plugin. Its sessions are guarded, and a request is one transaction."""
    plugin = DatabasePlugin(site.url("asyncpg"), tenant=tenant_from_header(HEADER), pool_size=2)
    app = FastAPI()
    plugin.install(app)
    _add_endpoints(app, site.main)
    try:
        yield app
    finally:
        await plugin.database.dispose_async()


def _client(app: FastAPI) -> httpx.AsyncClient:
    """A client that calls the app in this process."""
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://bench", headers={HEADER: TENANT})


@asynccontextmanager
async def in_requests(site: Site) -> AsyncIterator[Ways]:
    """Requests to both apps."""
    site.tidied(User)
    async with (
        _hand_written(site) as by_hand,
        _with_plugin(site) as toolkit,
        _client(by_hand) as to_hand,
        _client(toolkit) as to_toolkit,
    ):
        yield Ways(Requests(to_hand), Requests(to_toolkit))
