"""A task that still uses its request's session when the request ends: it harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from dotmac_database import Database, DatabaseError, TransactionError, create_async_repository
from dotmac_database_fastapi import DatabasePlugin, get_repository
from tests.fastapi.conftest import Api, checked_out
from tests.fastapi.test_requests import tags
from tests.models import Tag

USES: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "list": lambda rows: rows.list(),
    "values": lambda rows: rows.values("name").list(),
    "create": lambda rows: rows.create({"name": "late"}),
    "bulk_create": lambda rows: rows.bulk_create([{"name": "late"}, {"name": "later"}]),
}


@pytest.fixture(params=["asyncpg", "psycopg"])
def plugin(
    request: pytest.FixtureRequest, database: Database, runner: asyncio.Runner, dialect: str
) -> Iterator[DatabasePlugin]:
    """A plugin with one connection, so that the next request is given the one that was in use."""
    if dialect != "postgresql":
        pytest.skip("SQLite's driver runs one statement after the other.")
    url = database.url.set(drivername=f"postgresql+{request.param}")
    plugin = DatabasePlugin(url, tenant=lambda: "a", pool_size=1, max_overflow=0)
    yield plugin
    held = checked_out(plugin)
    runner.run(plugin.database.dispose_async())
    assert not held, "a connection was left checked out"


def _app(plugin: DatabasePlugin, use: Callable[[Any], Awaitable[Any]], *, writes: bool, steps: int) -> tuple[Any, Any]:
    app = FastAPI(lifespan=plugin.lifespan)
    tasks: list[asyncio.Task[Any]] = []

    @app.get("/")
    async def endpoint(rows: Any = Depends(get_repository(Tag))) -> None:
        if writes:
            await rows.create({"name": "one"})
        tasks.append(asyncio.ensure_future(use(rows)))
        for _ in range(steps):
            await asyncio.sleep(0)

    @app.get("/innocent")
    async def innocent(rows: Any = Depends(get_repository(Tag))) -> None:
        await rows.create({"name": "innocent"})

    return app, tasks


@pytest.mark.parametrize("writes", [False, True], ids=["reads", "writes"])
@pytest.mark.parametrize("name", list(USES))
def test_the_next_request_is_as_if_there_were_no_task(
    plugin: DatabasePlugin, database: Database, runner: asyncio.Runner, name: str, writes: bool
) -> None:
    wrong: list[Any] = []
    innocents = 0

    async def run(steps: int) -> None:
        nonlocal innocents
        app, tasks = _app(plugin, USES[name], writes=writes, steps=steps)
        api = Api(app, runner)
        before = tags(database).count("one")
        try:
            done = (await api.arequest("GET", "/")).status_code == 200
        except TransactionError:
            done = False
        try:
            innocents += (await api.arequest("GET", "/innocent")).status_code == 200
        except Exception as error:  # noqa: BLE001 - all wrong cells are reported at once
            wrong.append((steps, repr(error)))
        await asyncio.gather(*tasks, return_exceptions=True)
        stored = tags(database)
        if stored.count("one") - before != (done and writes) or stored.count("innocent") != innocents:
            wrong.append((steps, done, stored))

    for steps in range(8):
        runner.run(run(steps))
    assert wrong == []
    assert checked_out(plugin) == 0


def test_a_late_write_is_not_sent_within_the_transaction_of_another_tenant(
    plugin: DatabasePlugin, database: Database, runner: asyncio.Runner
) -> None:
    async def run() -> None:
        async with plugin.session(tenant="warm") as session:
            await session.connection()
        late: asyncio.Future[Any] | None = None
        with suppress(TransactionError):
            async with plugin.session(tenant="a") as session:
                late = asyncio.ensure_future(create_async_repository(session, Tag, "a").create({"name": "refused"}))
                for _ in range(2):  # the BEGIN is on its way
                    await asyncio.sleep(0)
        async with plugin.session(tenant="b") as session:
            await session.connection()
            assert late is not None
            with pytest.raises(DatabaseError):
                await late

    runner.run(run())
    assert "refused" not in tags(database)
