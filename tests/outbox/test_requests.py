"""In the plugin's requests, a message is committed before the response, or with nothing at all."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import func, select

from dotmac_database import OutboxRelay, create_database, publish
from dotmac_database_fastapi import DatabasePlugin, register_exception_handlers, tenant_from_header

from .conftest import Inbox, Place
from .models import OUTBOX, RLS, Order


@pytest.mark.parametrize("name", ["asyncpg-guarded", "asyncpg-rls", "psycopg-async-rls", "aiosqlite-guarded"])
@pytest.mark.parametrize("face", ["async", "sync"])
def test_a_request_publishes_with_its_transaction(places: Any, name: str, face: str) -> None:
    place: Place = places[name]
    rls = RLS if place.kind == "rls" else None
    plugin = DatabasePlugin(place.database.url, tenant=tenant_from_header("X-Tenant-ID"), rls=rls)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    session_of = plugin.get_session if face == "async" else plugin.get_sync_session

    if face == "async":

        @app.post("/orders/{number}")
        async def create(number: int, fail: bool = False, session: Any = Depends(session_of)) -> str:
            published = publish(session, "orders.created", {"number": number}, key=str(number))
            if number:
                session.add(Order(number=number))
            if fail:
                raise ValueError
            return str(published)

    else:

        @app.post("/orders/{number}")
        def create_sync(number: int, fail: bool = False, session: Any = Depends(session_of)) -> str:
            published = publish(session, "orders.created", {"number": number}, key=str(number))
            if number:
                session.add(Order(number=number))
            if fail:
                raise ValueError
            return str(published)

    async def work() -> None:
        inbox = Inbox()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [
                await client.post(path, headers={"X-Tenant-ID": tenant})
                for tenant, path in (("a", "/orders/1"), ("b", "/orders/0"), ("a", "/orders/2?fail=true"))
            ]
        assert [each.status_code for each in answers] == [200, 200, 500]
        ids = place.columns("id", "tenant_id")
        assert ids == [(each_id, tenant) for (each_id, _), tenant in zip(ids, "ab", strict=True)]
        assert [str(each_id) for each_id, _ in ids] == [each.json() for each in answers[:2]]
        database = create_database(place.admin.url)
        assert await OutboxRelay(database, inbox).run_once() == 2
        assert inbox.payloads == [{"number": 1}, {"number": 0}]
        await database.dispose_async()
        await plugin.database.dispose_async()

    try:
        asyncio.run(work())
        assert place.orders() == [1]
        with place.admin.engine.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(OUTBOX)) == 0
    finally:
        place.empty()
