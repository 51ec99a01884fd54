"""Kills of relays and of the database: nothing is lost, keys keep their order, and doubles have the same id."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import URL, func, select

from dotmac_database import create_database, publish

from .kills import Report, kill_and_count, start
from .models import OUTBOX


def test_a_relay_and_the_database_are_killed() -> None:
    report = asyncio.run(kill_and_count(300, 1))
    report.check()
    assert report.kills == 2


@pytest.mark.matrix
def test_a_relay_and_the_database_are_killed_twenty_times_each() -> None:
    report = asyncio.run(kill_and_count(10_000, 20))
    report.check()
    assert report.kills == 40


def test_a_frozen_relay_wakes_up_after_its_claims_were_over(outbox_url: URL, tmp_path: Path) -> None:
    """Other relays deliver what it held. When it wakes up, it ends the delivery that has begun, and begins no other."""
    path = tmp_path / "delivered"
    path.touch()
    admin = create_database(outbox_url)
    numbers = range(400)
    with admin.sessions() as session:
        ids = {str(publish(session, "t", number, key=f"k{number % 20}")): number for number in numbers}
        session.commit()

    def delivered() -> list[Any]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def waiting() -> int:
        with admin.engine.connect() as connection:
            return int(connection.scalar(select(func.count()).select_from(OUTBOX)) or 0)

    url = outbox_url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    frozen = start(url, path, freezes_after=30)
    processes = [frozen]
    try:
        until(lambda: psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED and len(delivered()) == 30)
        processes.append(start(url, path))
        until(lambda: not waiting())
        frozen.send_signal(signal.SIGCONT)
        with admin.sessions() as session:
            ids |= {str(publish(session, "t", number, key=f"k{number % 20}")): number for number in range(400, 440)}
            session.commit()
        until(lambda: not waiting())
    finally:
        for process in processes:
            process.kill()
            process.wait()
        admin.dispose()
    lines = delivered()
    assert {each[0] for each in lines} == ids.keys()
    late = [each for each in lines[30:] if each[4] == frozen.pid and each[2] < 400]
    assert late == [], "the frozen relay began a delivery after its claims were over"
    # Other relays deliver again what the frozen one had delivered, and not recorded.
    again = [(*each[:3], 2, each[4]) for each in lines]
    report = Report({each: (f"k{number % 20}", number) for each, number in ids.items()}, set(), again, 1, 0.0, 0)
    report.check()
