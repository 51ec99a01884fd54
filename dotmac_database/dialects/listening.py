"""Waits for notifications of PostgreSQL on a connection of its own: https://www.postgresql.org/docs/current/sql-listen.html."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine


async def listen(engine: AsyncEngine, channel: str, notified: Callable[[], None]) -> None:
    """Call ``notified`` once as soon as the connection listens, and then for each notification.

    It returns, or raises the driver's exception, when the connection is lost. At its end the connection is closed.
    """
    async with engine.connect() as connection:
        pooled = await connection.get_raw_connection()
        driver: Any = pooled.driver_connection
        try:
            if hasattr(driver, "add_listener"):
                await _listen_with_asyncpg(driver, channel, notified)
            else:
                await _listen_with_psycopg(driver, channel, notified)
        finally:
            await connection.invalidate()


async def _listen_with_asyncpg(driver: Any, channel: str, notified: Callable[[], None]) -> None:
    lost = asyncio.Event()
    driver.add_termination_listener(lambda _: lost.set())
    await driver.add_listener(channel, lambda *_: notified())
    notified()
    await lost.wait()


async def _listen_with_psycopg(driver: Any, channel: str, notified: Callable[[], None]) -> None:
    await driver.set_autocommit(True)
    await driver.execute(f'LISTEN "{channel}"')
    notified()
    async for _ in driver.notifies():
        notified()
