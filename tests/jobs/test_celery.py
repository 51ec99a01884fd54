"""Jobs by Celery: without a worker (eager), and by a worker process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dotmac_database import EntityNotFoundError
from dotmac_database_fastapi import DatabasePlugin, JobFault, JobHeadersError, carry
from tests.conftest import counted
from tests.jobs.conftest import KINDS, Shop, altered

pytest.importorskip("celery", reason="celery is not installed")

from celery import Celery  # after the skip

from tests.jobs.celery_jobs import INVOICE, celery_of

ROOT = Path(__file__).parent.parent.parent
LIMIT = 180
"""The longest time to wait for a job, in seconds. A job takes some milliseconds, and the start of a worker seconds."""


class TestEager:
    """`task_always_eager`, with which apps test their tasks."""

    @pytest.fixture
    def celery(self, plugin: DatabasePlugin, tmp_path: Path) -> Iterator[Celery]:
        celery = celery_of(tmp_path, {"it": plugin}, task_always_eager=True, task_eager_propagates=True)
        yield celery
        celery.close()

    @pytest.mark.parametrize("way", ["async", "sync"])
    def test_a_job_works_for_the_tenant_and_the_actor_of_its_request(
        self, plugin: DatabasePlugin, runner: asyncio.Runner, celery: Celery, way: str
    ) -> None:
        first, results = 100 if way == "async" else 200, []
        shop = Shop(
            plugin,
            runner,
            lambda number, headers: results.append(
                celery.tasks["invoice"].apply_async(("it", number), headers=headers).get()
            ),
        )
        for number, tenant in enumerate(("acme", "globex"), first):
            assert shop.order(number, tenant, f"ada of {tenant}", way) == 202
            assert shop.rows()[number + INVOICE] == (tenant, "invoice", f"ada of {tenant}")
            assert results.pop() == [f"ada of {tenant}"] * 2 + [f"request-{number}", 0]

    def test_a_request_that_fails_sends_no_job(
        self, plugin: DatabasePlugin, runner: asyncio.Runner, celery: Celery
    ) -> None:
        shop = Shop(plugin, runner, lambda *_: pytest.fail("a job was sent"))
        assert shop.order(300, "acme", "ada", fails=True) == 500
        assert 300 not in shop.rows()

    def test_altered_headers_are_refused_before_a_statement(self, plugin: DatabasePlugin, celery: Celery) -> None:
        with plugin.sync_session("acme", "ada") as session:
            headers = carry(session)
        invoice = celery.tasks["invoice"]
        with counted(plugin.database.engine) as sent:
            for wrong in altered(headers).values():
                with pytest.raises(JobHeadersError):
                    invoice.apply_async(("it", 2), headers=wrong)
            with pytest.raises(JobHeadersError) as missing:
                invoice.delay("it", 2)
        assert (sent, missing.value.fault) == ([], JobFault.MISSING)
        with pytest.raises(EntityNotFoundError):
            invoice.apply_async(("it", 11), headers=headers)  # the other tenant's order


class Worker:
    """A worker process, and the messages on their way to it."""

    def __init__(self, folder: Path, urls: dict[str, str]) -> None:
        self._folder = folder
        self.celery = celery_of(folder, {})
        command = [sys.executable, "-m", "tests.jobs.celery_worker", str(folder), *(urls[kind] for kind in KINDS)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (folder / "log").open("wb") as log:
            # A process group of its own, so that the pool's process ends with it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )

    def send(self, kind: str, number: int, headers: dict[str, str] | None, then: str | None = None) -> str:
        """Send a job. Its id."""
        sent = self.celery.tasks["invoice"].apply_async((kind, number, then), headers=headers)
        return str(sent.id)

    def waiting(self) -> int:
        """The number of jobs that were sent since `outcome` has delivered."""
        return len(list((self._folder / "sent").iterdir()))

    def outcome(self, job: str) -> dict[str, Any]:
        """Deliver what was sent, and wait for the end of a job."""
        deadline = time.monotonic() + LIMIT
        path = self._folder / "outcomes" / job
        while not path.exists():
            for message in (self._folder / "sent").iterdir():
                if message.stat().st_size:  # its content, which is written by one call
                    message.rename(self._folder / "queue" / message.name)
            is_waiting = self._process.poll() is None and time.monotonic() < deadline
            assert is_waiting, f"no outcome of the job:\n{(self._folder / 'log').read_text()}"
            time.sleep(0.01)
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    def kill(self) -> None:
        """End the worker and its pool's process at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=LIMIT)
        self.celery.close()


@pytest.fixture(scope="module")
def worker(urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("worker"), urls)
    yield worker
    worker.kill()


class TestWorker:
    """A worker process with a forked pool, as Celery's default is."""

    def test_a_job_works_for_the_tenant_and_the_actor_of_its_request(
        self, worker: Worker, kind: str, plugin: DatabasePlugin, runner: asyncio.Runner
    ) -> None:
        jobs: list[str] = []
        shop = Shop(plugin, runner, lambda number, headers: jobs.append(worker.send(kind, number, headers)))
        for number, (tenant, way) in enumerate(
            [("acme", "async"), ("globex", "async"), ("acme", "sync"), ("globex", "sync")], 400
        ):
            assert shop.order(number, tenant, f"ada of {tenant}", way) == 202
            outcome = worker.outcome(jobs.pop())
            assert outcome["result"] == [f"ada of {tenant}"] * 2 + [f"request-{number}", 0], outcome
            assert shop.rows()[number + INVOICE] == (tenant, "invoice", f"ada of {tenant}")

    def test_a_job_is_sent_after_the_commit_of_its_row(
        self, worker: Worker, kind: str, plugin: DatabasePlugin, runner: asyncio.Runner
    ) -> None:
        seen: list[bool] = []

        def send(number: int, headers: dict[str, str]) -> None:
            seen.append(number in shop.rows())  # another session sees the row before the message exists
            jobs.append(worker.send(kind, number, headers))

        jobs: list[str] = []
        shop = Shop(plugin, runner, send)
        assert shop.order(500, "acme", "ada", fails=True) == 500
        assert (worker.waiting(), seen) == (0, [])
        assert shop.order(501, "acme", "ada") == 202
        assert (worker.waiting(), seen) == (1, [True])
        assert worker.outcome(jobs.pop())["error"] is None

    def test_altered_headers_are_refused_before_a_connection_is_used(
        self, worker: Worker, kind: str, plugin: DatabasePlugin, runner: asyncio.Runner
    ) -> None:
        with plugin.sync_session("acme", "ada") as session:
            headers = carry(session)
        shop = Shop(plugin, runner, lambda *_: None)
        before = shop.rows()
        jobs = {name: worker.send(kind, 2, wrong) for name, wrong in altered(headers).items()}
        for name, job in jobs.items():
            outcome = worker.outcome(job)
            fault = "missing" if name in ("none", "empty", "unsigned") else "altered"
            assert outcome == {"result": None, "error": ["JobHeadersError", fault], "sent": []}, name
        assert shop.rows() == before
        outcome = worker.outcome(worker.send(kind, 11, headers))
        assert outcome["error"] == ["EntityNotFoundError", None]  # the other tenant's order
        assert outcome["sent"]
        assert shop.rows() == before

    def test_a_retry_keeps_the_headers_and_a_job_can_send_another(
        self, worker: Worker, kind: str, plugin: DatabasePlugin, runner: asyncio.Runner
    ) -> None:
        with plugin.sync_session("globex", "ada") as session:
            headers = carry(session)
        assert worker.outcome(worker.send(kind, 11, headers, "retry"))["result"][3] == 1
        worker.outcome(worker.send(kind, 12, headers, "another"))
        after = worker.outcome(f"{kind}-12")["result"]
        assert after[:3] == ["ada", "ada", headers["dotmac-job-request-id"]]
        rows = Shop(plugin, runner, lambda *_: None).rows()
        for number in (11 + INVOICE, 12 + INVOICE, 12 + 2 * INVOICE):
            assert rows[number] == ("globex", "invoice", "ada")
