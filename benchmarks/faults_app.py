"""The part ``app`` of `benchmarks.faults`: `kill -9` of the server under an app with the FastAPI plugin."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import httpx
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import RetryPolicy, RetryStrategy, idempotency_metadata
from dotmac_database_fastapi import (
    DatabasePlugin,
    crud_router,
    get_repository,
    register_exception_handlers,
    rerun_route,
)

CLIENTS = 16
RECOVERY = 60
"""The time within which the writes must go on after the server is back, in seconds. Measured: 0.1 s to 0.3 s."""


class Base(DeclarativeBase):
    """The base class of this part's table."""


class Order(Base):
    """An order. ``key`` has no unique constraint, so that the script can count keys that are stored twice."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str]


class Server(Protocol):
    """The server that is killed: see `benchmarks.faults.Server`."""

    def url(self, driver: str) -> str: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...
    def answers(self) -> float: ...


def create_app(plugin: DatabasePlugin) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    policy = RetryPolicy(max_attempts=4, base_delay=0.05, strategy=RetryStrategy.JITTERED, deadline=2.0)
    route_class = rerun_route(policy, idempotent=True)
    app.include_router(crud_router(Order, prefix="/orders", idempotency=True, route_class=route_class))

    @app.post("/plain", status_code=201)
    async def plain(key: str, orders: Any = Depends(get_repository(Order))) -> None:
        await orders.create({"key": key})

    return app


class Clients:
    """Half of the clients send an ``Idempotency-Key`` and repeat each failed request.

    The others have no key, and repeat a request only after a 503.
    """

    def __init__(self, app: FastAPI) -> None:
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
        self.acknowledged: list[tuple[str, float]] = []
        self.unknown: list[str] = []
        self.answers: Counter[int] = Counter()
        self.stopping = False

    def first_after(self, moment: float) -> float:
        return min((at for _, at in self.acknowledged if at > moment), default=float("inf"))

    async def client(self, name: str, keyed: bool) -> None:
        number = 0
        while not self.stopping:
            key = f"{name}-{number}"
            number += 1
            await (self._post_until_created(key) if keyed else self._post_until_known(key))

    async def _post_until_created(self, key: str) -> None:
        status = 0
        while status != 201:
            status = await self._post("/orders", key, json={"key": key}, headers={"Idempotency-Key": key})

    async def _post_until_known(self, key: str) -> None:
        status = 503
        while status == 503:
            status = await self._post("/plain", key, params={"key": key})
        if status != 201:
            self.unknown.append(key)

    async def _post(self, path: str, key: str, **request: Any) -> int:
        response = await self.http.post(path, **request)
        self.answers[response.status_code] += 1
        if response.status_code == 201:
            self.acknowledged.append((key, time.monotonic()))
        else:
            await asyncio.sleep(0.05)
        return response.status_code


async def kill_under_app(server: Server, kills: int, pause: float, check: Callable[[bool, str], None]) -> None:
    """Kill and start the server ``kills`` times, ``pause`` seconds apart, and check the stored orders."""
    plugin = DatabasePlugin(server.url("asyncpg"), pool_size=CLIENTS)
    clients = Clients(create_app(plugin))
    tasks = [asyncio.create_task(clients.client(f"client-{n}", n % 2 == 0)) for n in range(CLIENTS)]
    recoveries = []
    for _ in range(kills):
        await asyncio.sleep(pause)
        await asyncio.to_thread(server.kill)
        killed = time.monotonic()
        await asyncio.sleep(pause / 2)
        _, back = await asyncio.gather(asyncio.to_thread(server.start), asyncio.to_thread(server.answers))
        await asyncio.sleep(pause)
        end = back + RECOVERY
        while (first := clients.first_after(killed)) == float("inf") and time.monotonic() < end:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.01)
        recoveries.append(max(first - back, 0.0))
    clients.stopping = True
    await asyncio.gather(*tasks)
    await clients.http.aclose()
    await plugin.database.dispose_async()
    _report(server, clients, recoveries, check)


def _report(server: Server, clients: Clients, recoveries: list[float], check: Callable[[bool, str], None]) -> None:
    engine = create_engine(server.url("psycopg"))
    with engine.connect() as connection:
        stored = Counter(connection.scalars(select(Order.key)))
    engine.dispose()
    acknowledged = [key for key, _ in clients.acknowledged]
    print(
        f"app, kill -9, {len(recoveries)} times: {len(acknowledged)} orders acknowledged to {CLIENTS} clients, answers "
        f"{dict(sorted(clients.answers.items()))}, working again after "
        + ", ".join(f"{seconds:.2f} s" for seconds in recoveries)
    )
    check(all(stored[key] == 1 for key in acknowledged), "every order with a 201 is stored exactly once")
    check(max(stored.values(), default=0) <= 1, "no order is stored twice, with a key or without")
    check(set(stored) <= {*acknowledged, *clients.unknown}, "every stored order had a 201, or a 500 without a key")
    check(max(recoveries) < RECOVERY, f"the same app works again within {RECOVERY} s after the server is back")


def app(server: Server, quick: bool, check: Callable[[bool, str], None]) -> None:
    engine = create_engine(server.url("psycopg"))
    for metadata in (Base.metadata, idempotency_metadata):
        metadata.drop_all(engine)
        metadata.create_all(engine)
    engine.dispose()
    logging.getLogger("dotmac_database_fastapi").setLevel(logging.CRITICAL)  # this script counts the failures itself
    asyncio.run(kill_under_app(server, 1 if quick else 3, 0.5 if quick else 3.0, check))
