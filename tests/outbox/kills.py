"""``kill -9`` of a relay and of its database, again and again, while messages are published and delivered.

``python -m tests.outbox.kills [MESSAGES [KILLS]]`` prints the figures. Each message is delivered into a file by a relay
process; the file is what the world has seen. `Report.check` says whether none was lost, whether the first delivery of
each message was in the order of its key, and whether each double was caused by a kill.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, func, select
from sqlalchemy import exc as sa

from dotmac_database import Database, OutboxRelay, RetryPolicy, create_database, outbox_table, publish
from tests.postgres import OwnServer

METADATA = MetaData()
OUTBOX = outbox_table(METADATA)
KEYS = 20
LEASE = 0.6
ROOT = Path(__file__).parent.parent.parent


async def relay(url: str, path: str, freezes_after: int = 0) -> None:
    """The process that is killed. It freezes itself while it delivers the message of this number; 0: never."""
    delivered = itertools.count(1)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def deliver(message: Any) -> None:
        line = [str(message.id), message.key, message.payload, message.attempt, os.getpid()]
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        if next(delivered) == freezes_after:
            os.kill(os.getpid(), signal.SIGSTOP)
        await asyncio.sleep(0.001)

    database = create_database(url)
    policy = RetryPolicy(base_delay=0.05)
    await OutboxRelay(database, deliver, lease=LEASE, poll=0.1, batch=50, policy=policy).run()


@dataclass
class Report:
    published: dict[str, tuple[str, int]]
    """The key and the number of each acknowledged message, by its id."""
    unknown: set[str]
    """The messages of transactions whose outcome was unknown to the publisher."""
    delivered: list[tuple[str, str, int, int, int]]
    kills: int
    seconds: float
    dead: int

    def check(self) -> None:
        ids = [each[0] for each in self.delivered]
        assert not set(self.published) - set(ids), "a message was lost"
        assert not set(ids) - set(self.published) - self.unknown, "a message came from nowhere"
        assert self.dead == 0
        first: dict[str, list[int]] = {}
        seen: set[str] = set()
        for message_id, key, number, attempt, _ in self.delivered:
            assert (attempt > 1) or message_id not in seen, "a double looks like a first delivery"
            if message_id not in seen:
                seen.add(message_id)
                first.setdefault(key, []).append(number)
        for numbers in first.values():
            assert numbers == sorted(numbers), "the order of a key was lost"

    @property
    def doubles(self) -> int:
        return sum(count - 1 for count in Counter(each[0] for each in self.delivered).values())

    def __str__(self) -> str:
        return (
            f"{len(self.published)} messages acknowledged, {len(self.unknown)} of unknown outcome, {self.kills} kills: "
            f"{len(self.delivered)} deliveries, {self.doubles} doubles, 0 lost, in {self.seconds:.1f} s"
        )


async def publish_some(database: Database, numbers: range, report: Report) -> None:
    """Publish each number under its key, in transactions of ten. One that fails is published again by new messages."""
    for start in range(numbers.start, numbers.stop, 10):
        batch = range(start, min(start + 10, numbers.stop))
        while True:
            ids: dict[str, tuple[str, int]] = {}
            try:
                async with database.async_sessions() as session:
                    for number in batch:
                        key = f"k{number % KEYS}"
                        ids[str(publish(session, "t", number, key=key))] = key, number
                    await session.commit()
            except Exception:  # noqa: BLE001 - the server was killed
                report.unknown.update(ids)
                await asyncio.sleep(0.05)
                continue
            report.published.update(ids)
            break
        await asyncio.sleep(0.001)


def start(url: str, path: Path, freezes_after: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.outbox.kills", "relay", url, str(path), str(freezes_after)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


async def kill_and_count(messages: int, kills: int, *, relays: int = 2, seed: int = 1) -> Report:
    """Kill a relay and the server in turn, ``kills`` times each, under so many messages."""
    rng = random.Random(seed)
    server = await asyncio.to_thread(lambda: OwnServer(durable=True).start())
    folder = tempfile.TemporaryDirectory(prefix="dotmac-outbox-")
    path = Path(folder.name) / "delivered"
    path.touch()
    database = create_database(server.url("asyncpg"))
    report = Report({}, set(), [], 0, 0.0, 0)
    processes: list[subprocess.Popen[bytes]] = []
    begun = time.monotonic()

    def delivered() -> int:
        return path.read_bytes().count(b"\n")

    try:
        async with database.async_engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        processes += [start(server.url("asyncpg"), path) for _ in range(relays)]
        for number in range(kills):
            first, last = messages * number // kills, messages * (number + 1) // kills
            publishing = asyncio.create_task(publish_some(database, range(first, last), report))
            before = delivered()
            for kind in ("relay", "server"):
                goal = before + (last - first) // 3
                while delivered() < goal:  # noqa: ASYNC110 - another process delivers
                    await asyncio.sleep(0.01)
                before = goal
                await asyncio.sleep(rng.random() * 0.05)
                report.kills += 1
                if kind == "relay":
                    victim = processes.pop(0)
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
                    processes.append(start(server.url("asyncpg"), path))
                else:
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
            await publishing
        async with asyncio.timeout(300):
            while True:
                await asyncio.sleep(0.05)
                try:
                    async with database.async_engine.connect() as connection:
                        pending = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.status == "pending")
                        if not await connection.scalar(pending):
                            break
                except (sa.DBAPIError, OSError):
                    continue
        async with database.async_engine.connect() as connection:
            dead = select(func.count()).select_from(OUTBOX)
            report.dead = int(await connection.scalar(dead) or 0)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        await database.dispose_async()
        report.delivered = [tuple(json.loads(line)) for line in path.read_text().splitlines()]
        report.seconds = time.monotonic() - begun
        server.stop()
        folder.cleanup()
    return report


if __name__ == "__main__":
    if sys.argv[1:2] == ["relay"]:
        asyncio.run(relay(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        counts = [int(each) for each in sys.argv[1:]]
        result = asyncio.run(kill_and_count(counts[0] if counts else 10_000, counts[1] if len(counts) > 1 else 20))
        sys.stdout.write(f"{result}\n")
        result.check()
