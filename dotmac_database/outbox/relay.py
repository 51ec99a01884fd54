"""`OutboxRelay` delivers the messages of the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

from sqlalchemy import Table

from ..dialects.queueing import notifies
from ..engines import Database
from ..errors import DatabaseTimeoutError, DatabaseUnavailableError, MisuseError, TransactionError, ValidationError
from ..retry.policy import RetryPolicy
from ..tenancy.rls.row_level_security import RowLevelSecurity
from .deliveries import Deliver, Deliveries, Rules
from .message import DeadLetter
from .store import OutboxStore
from .table import sole_table
from .waking import Waker

_log = logging.getLogger(__name__)

DELAYS = RetryPolicy(base_delay=1.0, max_delay=300.0)
"""The delays by default: 1, 2, 4, … seconds, at most five minutes, 10 % of each at random."""

_ENDING = 5.0
_LONGEST_PAUSE = 30.0


class OutboxRelay:
    """Delivers the messages of the outbox of ``database`` by ``deliver``, on the database's async engine.

    ``deliver(message)`` is a coroutine function; if it raises an exception, or takes longer than ``timeout`` seconds
    (None: no limit), the message is delivered again after a delay of ``policy`` (None: 1, 2, 4, … seconds, at most 300,
    with some jitter). After ``attempts`` failures it is given up: it stays in the table as a dead letter.

    Messages are delivered at least once. Those of one tenant, topic and key are delivered in order: each begins when
    the one before it is delivered or given up. A message comes twice only if a relay was killed, cancelled or stopped
    for longer than ``lease`` seconds, or if ``deliver`` failed after it had its effect; it has the same ``id`` then.

    A relay holds at most ``batch`` messages, of which it delivers ``concurrency`` at a time. Several relays can work
    side by side. Each holds its messages for ``lease`` seconds, which it renews; after a kill they are free when the
    time is over. A relay without work looks for messages every ``poll`` seconds; on PostgreSQL it is also notified at
    once, unless the database has a transaction pooler.

    ``rls``: the row-level security of the outbox, made with ``all_tenants=True``; its setting for all tenants is then
    set for each of the relay's transactions. None: the relay's role must see all rows, for example by BYPASSRLS.
    ``table`` None: the table that `outbox_table` has made.

    Raises `ValidationError` for options that are not positive, and for a ``policy`` with a ``deadline``, a ``budget``
    or ``hooks``, which have no meaning here.
    """

    def __init__(
        self,
        database: Database,
        deliver: Deliver,
        *,
        batch: int = 100,
        attempts: int = 10,
        policy: RetryPolicy | None = None,
        concurrency: int = 10,
        timeout: float | None = 60.0,
        lease: float = 60.0,
        poll: float = 1.0,
        rls: RowLevelSecurity | None = None,
        table: Table | None = None,
    ) -> None:
        positive = {"batch": batch, "attempts": attempts, "concurrency": concurrency, "lease": lease, "poll": poll}
        for name, value in {**positive, "timeout": timeout}.items():
            if value is not None and value <= 0:
                raise ValidationError(f"{name} must be positive.", field=name)
        delays = policy or DELAYS
        if delays.deadline is not None or delays.budget is not None or delays.hooks:
            raise ValidationError("A relay takes only the delays of a policy.", field="policy")
        self._database = database
        self._rules = Rules(deliver, attempts, delays, timeout)
        self._batch = batch
        self._concurrency = concurrency
        self._poll = poll
        self._store = OutboxStore(database, sole_table() if table is None else table, lease, rls)
        self._waker = Waker()
        self._stopped = False
        self._working: Deliveries | None = None

    async def run(self) -> None:
        """Deliver messages until `stop` is called.

        While the database can't be reached, it tries again and again. Other errors of the database, such as a missing
        table, are raised. If the task is cancelled, the deliveries that run are cancelled, and their messages are
        delivered again. Raises `MisuseError` if the relay runs already, or can't see the messages.
        """
        async with self._deliveries() as deliveries:
            async with AsyncExitStack() as stack:
                if notifies(self._database.async_engine.dialect.name) and not self._database.options.transaction_pooler:
                    await stack.enter_async_context(self._waker.listening(self._store.engine, self._poll))
                await self._claim_until_stopped(deliveries)
            await deliveries.finished()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A block in which the relay runs in a task of its own: ``async with relay.running():``.

        At the end of the block the relay is stopped, and the deliveries that have begun are awaited. If the block is
        cancelled, so is the relay. An error of `run` is logged at once, and raised at the end of the block, unless the
        block raises another one.
        """
        task = asyncio.create_task(self.run(), name=f"{type(self).__name__}.run")
        task.add_done_callback(_log_error)
        try:
            yield
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                task.cancel()
            self.stop()
            await asyncio.gather(task, return_exceptions=True)
            raise
        self.stop()
        await task

    async def run_once(self) -> int:
        """Claim one batch, deliver it, and return the number of messages that were delivered.

        It returns 0 if there is nothing to deliver now. Messages that wait for their next attempt, and those behind
        them, are left. Raises the errors of the database.
        """
        async with self._deliveries() as deliveries:
            await self._store.check()
            await deliveries.claim(self._batch)
            await deliveries.finished()
        return deliveries.delivered

    def stop(self) -> None:
        """Let `run` return as soon as the deliveries that have begun are done. The relay can't run again.

        Call it in the event loop of the relay, for example in a handler of SIGTERM.
        """
        self._stopped = True
        if self._working is not None:
            self._working.stop()
        self._waker.wake()

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The messages that were given up, the oldest first. One statement."""
        return await self._store.dead_letters(limit)

    async def requeue(self, *ids: UUID) -> int:
        """Let dead letters be delivered again, with new attempts. Returns how many of the ids were dead letters.

        They keep their place: a message is delivered before those of its key that wait, but after those that were
        delivered meanwhile.
        """
        return await self._store.requeue(ids) if ids else 0

    async def _claim_until_stopped(self, deliveries: Deliveries) -> None:
        checked, failures = False, 0
        while not self._stopped:
            free = self._batch - deliveries.held
            if free * 2 < self._batch:
                await self._waker.wait(self._poll)
                continue
            try:
                if not checked:
                    await self._store.check()
                    checked = True
                claimed = await deliveries.claim(free)
            except (DatabaseUnavailableError, DatabaseTimeoutError, TransactionError):
                failures += 1
                _log.warning("The outbox could not be read, and is tried again", exc_info=True)
                await self._waker.wait(min(self._poll * failures, _LONGEST_PAUSE))
                continue
            failures = 0
            if not claimed:
                await self._waker.wait(self._poll)

    @asynccontextmanager
    async def _deliveries(self) -> AsyncIterator[Deliveries]:
        if self._working is not None:
            raise MisuseError("The relay runs already; make another one to run two side by side.")
        deliveries = self._working = Deliveries(self._store, self._rules, self._concurrency, self._waker.wake)
        if self._stopped:
            deliveries.stop()
        recording = asyncio.create_task(deliveries.keep_recording())
        try:
            yield deliveries
        finally:
            try:
                await _to_its_end(deliveries.end(recording, _ENDING))
            finally:
                self._working = None


def _log_error(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.error("The relay of the outbox has ended by an error", exc_info=error)


async def _to_its_end(work: Coroutine[object, object, None]) -> None:
    """Await ``work`` even if this task is cancelled meanwhile. The cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
