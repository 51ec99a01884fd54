"""Jobs by taskiq, with its broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

from dotmac_database import EntityNotFoundError, bound_tenant, create_async_repository
from dotmac_database_fastapi import DatabasePlugin, JobFault, JobHeadersError, carry, current_request_id, session_actor
from tests.conftest import counted
from tests.fastapi.job_models import Order
from tests.jobs.conftest import Shop, altered

pytest.importorskip("taskiq", reason="taskiq is not installed")

from taskiq import Context, InMemoryBroker, TaskiqDepends  # after the skip

INVOICE = 2000


class Queue:
    """A broker with one task."""

    def __init__(self, plugin: DatabasePlugin) -> None:
        self.broker = InMemoryBroker()
        self.sent: list[Any] = []

        @self.broker.task
        async def invoice(number: int, context: Annotated[Context, TaskiqDepends()]) -> Any:
            async with plugin.resume(context.message.labels, max_age=3600) as session:
                orders = create_async_repository(session, Order, bound_tenant(session))
                order = await orders.get_by_id_or_raise(number)
                await orders.create({"id": number + INVOICE, "status": "invoice"})
                return [order.created_by, session_actor(session), current_request_id()]

        self._invoice = invoice

    async def send(self, number: int, headers: dict[str, str] | None) -> None:
        self.sent.append(await self._invoice.kicker().with_labels(**(headers or {})).kiq(number))

    async def result(self) -> Any:
        """The result of the job that was sent last; raises its exception."""
        result = await self.sent.pop().wait_result(check_interval=0.01, timeout=180)
        result.raise_for_error()
        return result.return_value


@pytest.fixture
def queue(plugin: DatabasePlugin, runner: asyncio.Runner) -> Iterator[Queue]:
    queue = Queue(plugin)
    runner.run(queue.broker.startup())
    yield queue
    runner.run(queue.broker.wait_all())
    runner.run(queue.broker.shutdown())


def test_a_job_works_for_the_tenant_and_the_actor_of_its_request(
    plugin: DatabasePlugin, runner: asyncio.Runner, queue: Queue
) -> None:
    shop = Shop(plugin, runner, queue.send)
    for number, tenant in enumerate(("acme", "globex"), 600):
        assert shop.order(number, tenant, f"ada of {tenant}") == 202
        assert runner.run(queue.result()) == [f"ada of {tenant}"] * 2 + [f"request-{number}"]
        assert shop.rows()[number + INVOICE] == (tenant, "invoice", f"ada of {tenant}")


def test_a_job_is_sent_after_the_commit_of_its_row(
    plugin: DatabasePlugin, runner: asyncio.Runner, queue: Queue
) -> None:
    seen: list[bool] = []

    async def send(number: int, headers: dict[str, str]) -> None:
        seen.append(number in shop.rows())
        await queue.send(number, headers)

    shop = Shop(plugin, runner, send)
    assert shop.order(610, "acme", "ada", fails=True) == 500
    assert (queue.sent, seen) == ([], [])
    assert shop.order(611, "acme", "ada") == 202
    assert seen == [True]
    runner.run(queue.result())


def test_altered_headers_are_refused_before_a_statement(
    plugin: DatabasePlugin, runner: asyncio.Runner, queue: Queue
) -> None:
    with plugin.sync_session("acme", "ada") as session:
        headers = carry(session)
    shop = Shop(plugin, runner, queue.send)
    before = shop.rows()

    async def job(number: int, headers: dict[str, str] | None) -> Any:
        await queue.send(number, headers)
        return await queue.result()

    with counted(plugin.database.async_engine.sync_engine) as sent:
        for wrong in altered(headers).values():
            with pytest.raises(JobHeadersError):
                runner.run(job(2, wrong))
    assert sent == []
    with pytest.raises(EntityNotFoundError):
        runner.run(job(11, headers))  # the other tenant's order
    assert shop.rows() == before


def test_a_job_has_no_headers_of_the_job_before(plugin: DatabasePlugin, runner: asyncio.Runner, queue: Queue) -> None:
    """taskiq before 0.12.2 adds the labels of a message to the task."""
    with plugin.sync_session("acme", "ada") as session:
        headers = carry(session)

    async def job(headers: dict[str, str] | None) -> Any:
        await queue.send(1, headers)
        return await queue.result()

    assert runner.run(job(headers))[1] == "ada"
    with pytest.raises(JobHeadersError) as refused:
        runner.run(job(None))
    assert refused.value.fault is JobFault.MISSING
