"""A task that is cancelled leaves neither an open transaction nor a connection that is unfit for use."""

# ruff: noqa: PT012  # the block that an exception leaves is what is tested
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from dotmac_database.execution.state import state_of
from dotmac_database.transactions import DatabaseTransaction, block, on_commit, on_rollback
from tests.postgres import OwnServer

Ask = Callable[[str], Any]
DRIVERS = ["asyncpg", "psycopg"]


@pytest.fixture
def slow_commit(ask: Ask) -> Iterator[None]:
    """COMMIT takes a minute where a row was inserted."""
    ask(
        "CREATE OR REPLACE FUNCTION fault_sleep() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$"
    )
    ask(
        "CREATE CONSTRAINT TRIGGER fault_sleeps AFTER INSERT ON fault_rows DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION fault_sleep()"
    )
    yield
    ask("DROP TRIGGER fault_sleeps ON fault_rows")


def made(url: URL, driver: str) -> AsyncEngine:
    return create_async_engine(url.set(drivername=f"postgresql+{driver}"), pool_size=2, max_overflow=0, pool_timeout=60)


async def insert(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO fault_rows (name) VALUES ('a')"))


async def sound(engine: AsyncEngine) -> None:
    """All of the pool's connections are there, and work."""
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
    async with engine.connect() as one, engine.connect() as two:
        assert await one.scalar(text("SELECT 1")) == await two.scalar(text("SELECT 1")) == 1


async def settled(ask: Ask) -> None:
    """No transaction of this database is open, but the one that asks."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND xact_start IS NOT NULL AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 50  # less than the statements sleep
    while await asyncio.to_thread(ask, query) != [(1,)]:
        assert time.monotonic() < deadline, "a transaction was left open"
        await asyncio.sleep(0.05)


async def asleep(ask: Ask) -> None:
    """Wait until the server has begun to sleep in a statement or COMMIT."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    async with asyncio.timeout(50):
        while await asyncio.to_thread(ask, query) != [(1,)]:  # noqa: ASYNC110 - the server sleeps
            await asyncio.sleep(0.01)


async def cancelled_after(moment: Awaitable[object], work: Any) -> None:
    task = asyncio.ensure_future(work)
    await moment
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("nested", [False, True])
def test_in_the_middle_of_a_statement(database: URL, ask: Ask, driver: str, nested: bool) -> None:
    async def work(session: AsyncSession) -> None:
        async with DatabaseTransaction.async_transaction(session):
            await insert(session)
            if nested:
                async with DatabaseTransaction.async_transaction(session):
                    await session.execute(text("SELECT pg_sleep(60)"))
            await session.execute(text("SELECT pg_sleep(60)"))

    async def main() -> None:
        engine = made(database, driver)
        async with async_sessionmaker(engine)() as session:
            await cancelled_after(asleep(ask), work(session))
            assert not session.in_transaction()
            assert state_of(session.sync_session).open_blocks == 0
            async with DatabaseTransaction.async_transaction(session):  # the session is fit for use
                await insert(session)
        await sound(engine)
        await settled(ask)
        await engine.dispose()

    asyncio.run(main())
    assert ask("SELECT count(*) FROM fault_rows") == [(1,)]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.usefixtures("slow_commit")
def test_in_the_middle_of_commit(database: URL, ask: Ask, driver: str) -> None:
    called: list[str] = []

    async def work(session: AsyncSession) -> None:
        async with DatabaseTransaction.async_transaction(session):
            await insert(session)
            on_commit(session, lambda: called.append("committed"))
            on_rollback(session, lambda: called.append("rolled back"))
        called.append("went on")

    async def main() -> None:
        engine = made(database, driver)
        async with async_sessionmaker(engine)() as session:
            await cancelled_after(asleep(ask), work(session))
            assert not session.in_transaction()
        await sound(engine)
        await settled(ask)
        await engine.dispose()

    asyncio.run(main())
    assert called == [], "the outcome is not known"


@pytest.mark.parametrize("driver", DRIVERS)
def test_in_the_users_own_wait_the_connection_is_kept(database: URL, ask: Ask, driver: str) -> None:
    waiting = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        async with DatabaseTransaction.async_transaction(session):
            await insert(session)
            waiting.set()
            await asyncio.sleep(600)

    async def main() -> None:
        engine = made(database, driver)
        async with async_sessionmaker(engine)() as session:
            before = await session.scalar(text("SELECT pg_backend_pid()"))
            await session.commit()
            await cancelled_after(waiting.wait(), work(session))
            assert await session.scalar(text("SELECT pg_backend_pid()")) == before
        await sound(engine)
        await settled(ask)
        await engine.dispose()

    asyncio.run(main())
    assert ask("SELECT count(*) FROM fault_rows") == [(0,)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_cancelled_again_and_again_while_it_rolls_back(database: URL, ask: Ask, driver: str) -> None:
    """anyio's scopes, which FastAPI uses, cancel at every await until the block is left."""
    waiting = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        async with DatabaseTransaction.async_transaction(session):
            await insert(session)
            async with DatabaseTransaction.async_transaction(session):
                await insert(session)
                waiting.set()
                await asyncio.sleep(600)

    async def cancel(scope: anyio.CancelScope) -> None:
        await waiting.wait()
        scope.cancel()

    async def main() -> None:
        engine = made(database, driver)
        async with async_sessionmaker(engine)() as session:
            with anyio.CancelScope() as scope:
                canceller = asyncio.ensure_future(cancel(scope))
                await work(session)
            await canceller
            assert scope.cancelled_caught
            assert not session.in_transaction()
            waiting.clear()
            task = asyncio.ensure_future(work(session))
            await waiting.wait()
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not session.in_transaction()
        await sound(engine)
        await settled(ask)
        await engine.dispose()

    asyncio.run(main())
    assert ask("SELECT count(*) FROM fault_rows") == [(0,)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_timeout_around_the_block(database: URL, ask: Ask, driver: str) -> None:
    async def main() -> None:
        engine = made(database, driver)
        async with async_sessionmaker(engine)() as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), DatabaseTransaction.async_transaction(session):
                    await insert(session)
                    await session.execute(text("SELECT pg_sleep(60)"))
            await insert(session)
            await session.commit()
        await sound(engine)
        await settled(ask)
        await engine.dispose()

    asyncio.run(main())
    assert ask("SELECT count(*) FROM fault_rows") == [(1,)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_frozen_server_does_not_hold_a_cancelled_block(
    own_server: OwnServer, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ROLLBACK gets no answer; the connection is thrown away after a limited time."""
    monkeypatch.setattr(block, "ROLLBACK_TIMEOUT", 0.5)
    waiting = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        async with DatabaseTransaction.async_transaction(session):
            await insert(session)
            waiting.set()
            await asyncio.sleep(600)

    async def main() -> float:
        engine = made(make_url(own_server.url(driver)), driver)
        async with async_sessionmaker(engine)() as session:
            task = asyncio.ensure_future(work(session))
            await waiting.wait()
            own_server.freeze()
            try:
                start = time.monotonic()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                seconds = time.monotonic() - start
            finally:
                own_server.thaw()
            assert not session.in_transaction()
        await sound(engine)
        await engine.dispose()
        return seconds

    assert asyncio.run(main()) < 60  # without a limit it would wait until the server goes on


@pytest.mark.parametrize("driver", DRIVERS)
def test_on_a_frozen_server_the_users_own_exception_leaves_the_block(
    own_server: OwnServer, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "ROLLBACK_TIMEOUT", 0.1)
    own = LookupError("the user's own")

    async def main() -> None:
        engine = made(make_url(own_server.url(driver)), driver)
        async with async_sessionmaker(engine)() as session:
            try:
                with pytest.raises(LookupError) as raised:
                    async with DatabaseTransaction.async_transaction(session):
                        await insert(session)
                        own_server.freeze()
                        raise own
            finally:
                own_server.thaw()
            assert raised.value is own
            assert not session.in_transaction()
        await sound(engine)
        await engine.dispose()

    asyncio.run(main())
