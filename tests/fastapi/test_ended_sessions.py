"""A session whose request or block has ended: each use of it is one error, whoever kept it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlmodel
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from dotmac_database import (
    Database,
    DatabaseTransaction,
    SessionEndedError,
    advisory_lock,
    on_commit,
    on_rollback,
    once,
)
from dotmac_database.execution.ended import REFUSED
from dotmac_database_fastapi import DatabasePlugin, get_repository, get_session
from tests.fastapi.conftest import Api
from tests.models import Tag

Use = Callable[[Any, Any], Any]

SESSION_USES: dict[str, Use] = {
    "add": lambda s, e: s.add(Tag(name="x")),
    "add_all": lambda s, e: s.add_all([Tag(name="x")]),
    "begin": lambda s, e: s.begin(),
    "begin_nested": lambda s, e: s.begin_nested(),
    "commit": lambda s, e: s.commit(),
    "connection": lambda s, e: s.connection(),
    "delete": lambda s, e: s.delete(e),
    "exec": lambda s, e: s.exec(select(Tag)),
    "execute": lambda s, e: s.execute(select(Tag)),
    "execute a text": lambda s, e: s.execute(text("SELECT 1")),
    "expire": lambda s, e: s.expire(e),
    "expunge": lambda s, e: s.expunge(e),
    "flush": lambda s, e: s.flush(),
    "get": lambda s, e: s.get(Tag, 1),
    "get_one": lambda s, e: s.get_one(Tag, 1),
    "merge": lambda s, e: s.merge(e),
    "refresh": lambda s, e: s.refresh(e),
    "scalar": lambda s, e: s.scalar(select(Tag)),
    "scalars": lambda s, e: s.scalars(select(Tag)),
    "on_commit": lambda s, e: on_commit(s, print),
    "on_rollback": lambda s, e: on_rollback(s, print),
}
ASYNC_USES: dict[str, Use] = {
    "stream": lambda s, e: s.stream(select(Tag)),
    "stream_scalars": lambda s, e: s.stream_scalars(select(Tag)),
    "run_sync": lambda s, e: s.run_sync(lambda inner: inner.execute(select(Tag))),
    "once": lambda s, e: s.run_sync(lambda inner: once(inner, "k")),
    "advisory_lock": lambda s, e: s.run_sync(lambda inner: advisory_lock(inner, "k")),
}
REPOSITORY_USES: dict[str, Use] = {
    "get_by_id": lambda r, e: r.get_by_id(1),
    "list": lambda r, e: r.list(),
    "create": lambda r, e: r.create({"name": "x"}),
    "bulk_create": lambda r, e: r.bulk_create([{"name": "x"}] * 3),
    "update": lambda r, e: r.update(1, {"name": "x"}),
    "delete": lambda r, e: r.delete(1),
}
HARMLESS = frozenset(
    (
        *(
            "aclose",
            "autoflush",
            "bind",
            "bind_mapper",
            "bind_table",
            "binds",
            "close",
            "close_all",
            "deleted",
            "dirty",
        ),
        *("dispatch", "expire_all", "expunge_all", "get_async_bind", "get_bind", "get_nested_transaction"),
        *("get_transaction", "identity_key", "identity_map", "in_nested_transaction", "in_transaction", "info"),
        *("invalidate", "is_active", "is_modified", "new", "no_autoflush", "object_session", "reset", "rollback"),
        *("run_sync", "sync_session", "sync_session_class", "connection_callable", "execution_options"),
    )
)
"""What sends nothing, takes nothing in, or cleans up."""


@pytest.fixture(params=["default", "psycopg"])
def plugin(request: pytest.FixtureRequest, database: Database, runner: asyncio.Runner) -> Iterator[DatabasePlugin]:
    url = database.url
    if request.param == "psycopg":
        if url.get_backend_name() != "postgresql":
            pytest.skip("SQLite has one async driver.")
        url = url.set(drivername="postgresql+psycopg")
    plugin = DatabasePlugin(url, tenant=lambda: "a")
    yield plugin
    runner.run(plugin.database.dispose_async())


async def _wrong(uses: dict[str, Use], used: Any, entity: Any) -> dict[str, str]:
    """What each use gave, where it was not the one error."""
    wrong: dict[str, str] = {}
    for name, use in uses.items():
        try:
            found = use(used, entity)
            wrong[name] = repr(await found if inspect.isawaitable(found) else found)
        except SessionEndedError as error:
            if "plugin.session(tenant=" not in str(error):
                wrong[name] = str(error)
        except Exception as error:  # noqa: BLE001 - all wrong cells are reported at once
            wrong[name] = repr(error)
    return wrong


@pytest.mark.parametrize("way", ["background", "stream", "task"])
def test_every_use_after_the_request_is_one_error(plugin: DatabasePlugin, runner: asyncio.Runner, way: str) -> None:
    app = FastAPI(lifespan=plugin.lifespan)
    ended = asyncio.Event()
    wrong: dict[str, str] = {}
    tasks: list[asyncio.Task[None]] = []

    async def use_all(session: Any, rows: Any, entity: Any) -> None:
        wrong.update(await _wrong({**SESSION_USES, **ASYNC_USES}, session, entity))
        wrong.update(await _wrong(REPOSITORY_USES, rows, entity))
        wrong["used"] = "yes"

    @app.get("/")
    async def endpoint(
        background: BackgroundTasks, session: Any = Depends(get_session), rows: Any = Depends(get_repository(Tag))
    ) -> Any:
        entity = await rows.create({"name": "one"})

        async def later() -> None:
            await ended.wait()
            await use_all(session, rows, entity)

        async def body() -> Any:
            await use_all(session, rows, entity)
            yield b""

        if way == "stream":
            return StreamingResponse(body())
        if way == "background":
            background.add_task(use_all, session, rows, entity)
        else:
            tasks.append(asyncio.create_task(later()))
        return None

    async def run() -> int:
        status = (await Api(app, runner).arequest("GET", "/")).status_code
        ended.set()
        await asyncio.gather(*tasks)
        return status

    assert runner.run(run()) == 200
    assert wrong == {"used": "yes"}


def test_every_use_after_a_block_is_one_error(plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
    async def run() -> dict[str, str]:
        async with plugin.session(tenant="a") as session:
            pass
        await session.rollback()
        await session.close()
        with pytest.raises(SessionEndedError):
            async with DatabaseTransaction.async_transaction(session):
                pass
        return await _wrong({**SESSION_USES, **ASYNC_USES}, session, Tag(name="x"))

    assert runner.run(run()) == {}


def test_every_use_after_a_sync_block_is_one_error(plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
    with plugin.sync_session(tenant="a") as session:
        pass
    uses = {**SESSION_USES, "once": lambda s, e: once(s, "k"), "advisory_lock": lambda s, e: advisory_lock(s, "k")}
    assert runner.run(_wrong(uses, session, Tag(name="x"))) == {}
    plugin.database.dispose()


def test_a_session_that_is_closed_in_its_block_is_no_success(plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
    async def run() -> None:
        async with plugin.session(tenant="a") as session:
            session.add(Tag(name="lost"))
            await session.close()

    with pytest.raises(SessionEndedError):
        runner.run(run())


@pytest.mark.parametrize("kind", [Session, AsyncSession, sqlmodel.Session, SQLModelAsyncSession])
def test_every_method_of_a_session_is_refused_or_harmless(kind: type) -> None:
    public = {name for name in dir(kind) if not name.startswith("_")}
    assert public - REFUSED - HARMLESS == set()
