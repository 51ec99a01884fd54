"""The app of `docs/outbox.md`, with a webhook that a small server receives."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from sqlmodel import SQLModel, select

from dotmac_database import idempotency_metadata
from tests.fastapi.conftest import serving

PAGE = Path(__file__).parent.parent.parent / "docs" / "outbox.md"


def test_the_page_s_app_sends_a_signed_webhook(tmp_path: Path) -> None:
    received: list[tuple[dict[str, str], bytes]] = []
    receiver = FastAPI()

    @receiver.post("/hook")
    async def hook(request: Request) -> None:
        received.append((dict(request.headers), await request.body()))

    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 8
    with serving(receiver) as url:
        page: dict[str, Any] = {"URL": f"sqlite:///{tmp_path}/page.db", "WEBHOOK": f"{url}/hook", "__name__": "page"}
        for block in blocks:
            exec(compile(block, str(PAGE), "exec", dont_inherit=True), page)
        asyncio.run(_use(page, received))


async def _use(page: dict[str, Any], received: list[tuple[dict[str, str], bytes]]) -> None:
    app, database, order = page["app"], page["plugin"].database, page["Order"]
    async with database.async_engine.begin() as connection:
        tables = [order.__table__, SQLModel.metadata.tables["dotmac_outbox"]]
        await connection.run_sync(lambda sync: SQLModel.metadata.create_all(sync, tables=tables))
        await connection.run_sync(idempotency_metadata.create_all)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            answer = await client.post("/orders/7", headers={"X-Tenant-ID": "a"})
        async with asyncio.timeout(90):
            while not received:  # noqa: ASYNC110 - the server is in another thread
                await asyncio.sleep(0.01)
        for _ in range(2):
            async with database.async_sessions() as session:
                await page["consume"](session, answer.json(), 7)
        async with database.async_sessions() as session:
            tenants = list(await session.scalars(select(order.tenant_id).order_by(order.id)))
    assert tenants == ["a", "consumer"]
    ((headers, body),) = received
    assert json.loads(body) == {"topic": "orders.created", "tenant": "a", "payload": {"number": 7}}
    assert headers["webhook-id"] == answer.json()
    signature = hmac.new(page["SECRET"], f"{answer.json()}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["webhook-signature"] == signature
    SQLModel.metadata.remove(order.__table__)
    SQLModel.metadata.remove(SQLModel.metadata.tables["dotmac_outbox"])
