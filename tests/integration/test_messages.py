"""How many statements and round trips each call costs, counted on the wire by a proxy in front of the server.

The table `EXPECTED` has a row for each circumstance of a session, and a column for each call. A count is written as
``statements/round trips``. Statements include BEGIN, COMMIT and savepoints.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from benchmarks.wire import Proxy, Sent
from dotmac_database import RowLevelSecurity, TenantMixin, bind_tenant, create_database, guard_tenants
from tests.confined import SECRETS, confined_database
from tests.conftest import DRIVERS, Face
from tests.ways import block


class Base(DeclarativeBase):
    """The table of these tests."""


class Item(TenantMixin, Base):
    __tablename__ = "message_items"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


WARM_UP = 8
"""How often a call is made before it is counted: psycopg prepares a statement at its sixth execution."""

CALLS = ("get", "list", "page", "create", "update", "block", "block without savepoints")
"""The calls that are counted. A block has three creates and two updates."""

EXPECTED: dict[str, dict[str, str]] = {}


class CountingProxy:
    """A `Proxy` in an event loop of its own thread, so that sync drivers can use it, too."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._proxy = Proxy(port)

    @property
    def port(self) -> int:
        return self._proxy.port

    @property
    def sent(self) -> Sent:
        """The messages since the last `restart`."""
        return self._proxy.sent

    def restart(self) -> None:
        """Count from zero."""
        self._proxy.sent = Sent()

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await self._proxy.__aexit__()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for each in connections:
            each.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@pytest.fixture(scope="module", params=SECRETS)
def confined_url(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[str]:
    """The URL of a database with row-level security, whose settings are signed if the secret is not None."""
    name = f"messages_{request.param}_{os.getpid()}"
    rls = RowLevelSecurity(Base.metadata, secret=SECRETS[request.param])
    with confined_database(postgres_server, name, rls) as url:
        yield url
