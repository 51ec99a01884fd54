"""The deliveries of one relay: those of a key one after another, others beside each other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID, uuid4

from ..retry.policy import RetryPolicy
from .claims import Claimed, Delivered, Failed, Outcome, Released
from .message import OutboxMessage, lane_of
from .store import OutboxStore

_log = logging.getLogger(__name__)

Deliver: TypeAlias = Callable[[OutboxMessage], Awaitable[object]]
"""The user's coroutine function. If it raises an exception, the message is delivered again later."""

_PAUSE = 0.2
"""The time between two attempts to record outcomes while the database can't be reached, in seconds."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How messages are delivered; see `OutboxRelay`."""

    deliver: Deliver
    attempts: int
    policy: RetryPolicy
    timeout: float | None


@dataclass(slots=True)
class _Lease:
    """A claim of the relay: the time at which it ends (of `time.monotonic`), and how many outcomes are not recorded."""

    deadline: float
    held: int


class Deliveries:
    """The messages that a relay has claimed, until their outcomes are recorded.

    ``changed`` is called after outcomes were recorded.
    """

    def __init__(self, store: OutboxStore, rules: Rules, concurrency: int, changed: Callable[[], None]) -> None:
        self.delivered = 0
        self._store = store
        self._rules = rules
        self._slots = asyncio.Semaphore(concurrency)
        self._changed = changed
        self._leases: dict[UUID, _Lease] = {}
        self._lanes: set[asyncio.Task[None]] = set()
        self._outcomes: list[Outcome] = []
        self._reported = asyncio.Event()
        self._settled = asyncio.Event()
        self._stopping = False
        self._ending = False

    @property
    def held(self) -> int:
        """The number of messages whose outcome is not recorded yet."""
        return sum(lease.held for lease in self._leases.values())

    async def claim(self, batch: int) -> int:
        """Claim up to ``batch`` messages and begin to deliver them. Returns their number."""
        claim_id, begun = uuid4(), time.monotonic()
        # It is noted before the claim, so that `finish` releases it if this task is cancelled during the COMMIT.
        lease = self._leases[claim_id] = _Lease(begun + self._store.lease, 0)
        try:
            claimed = await self._store.claim(claim_id, batch)
        except Exception:
            del self._leases[claim_id]
            raise
        lease.held = len(claimed)
        if not claimed:
            del self._leases[claim_id]
        for lane in _lanes(claimed):
            task = asyncio.create_task(self._deliver_in_order(claim_id, lane))
            self._lanes.add(task)
            task.add_done_callback(self._lanes.discard)
        return len(claimed)

    async def _deliver_in_order(self, claim_id: UUID, lane: list[Claimed]) -> None:
        """Deliver the messages of a key until one fails. The later ones are released, and wait for it."""
        lane = lane.copy()
        tried = False
        try:
            while lane and not self._stopping:
                async with self._slots:
                    if self._stopping or self._is_over(claim_id):
                        break
                    tried = True
                    outcome = await self._deliver(claim_id, lane[0])
                tried = False
                del lane[0]
                self._report(outcome)
                if not isinstance(outcome, Delivered):
                    break
        finally:
            for number, each in enumerate(lane):
                self._report(Released(claim_id, each.position, tried=tried and number == 0))

    def _is_over(self, claim_id: UUID) -> bool:
        """Whether other relays may have claimed the messages, because this process has not run for a time."""
        return time.monotonic() >= self._leases[claim_id].deadline

    async def _deliver(self, claim_id: UUID, each: Claimed) -> Outcome:
        rules, task = self._rules, asyncio.current_task()
        try:
            async with asyncio.timeout(rules.timeout):
                await rules.deliver(each.message)
        except asyncio.CancelledError as error:
            if task is None or task.cancelling():
                raise
            return self._failed(claim_id, each, error)  # the user's own coroutine was cancelled, and not the relay
        except Exception as error:  # noqa: BLE001 - it is the user's, and the message is delivered again
            return self._failed(claim_id, each, error)
        self.delivered += 1
        return Delivered(claim_id, each.position)

    def _failed(self, claim_id: UUID, each: Claimed, error: BaseException) -> Failed:
        failures = each.failures + 1
        gives_up = failures >= self._rules.attempts
        _log.log(
            logging.ERROR if gives_up else logging.WARNING,
            "The message %s of the topic %r was not delivered (failure %d of %d)%s",
            *(each.message.id, each.message.topic, failures, self._rules.attempts),
            "; it is given up" if gives_up else "",
            exc_info=error,
        )
        delay = None if gives_up else self._rules.policy.delay(failures)
        return Failed(claim_id, each.position, delay, f"{type(error).__module__}.{type(error).__qualname__}")

    def _report(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._reported.set()

    async def keep_recording(self) -> None:
        """Record outcomes as they come, all of those that wait at once, and renew claims, until `end` is called.

        While the database can't be reached, it tries again and again.
        """
        while not self._ending:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._store.lease / 3):
                    await self._reported.wait()
            if not await self._record():
                await asyncio.sleep(_PAUSE)

    async def _record(self) -> bool:
        """Record the outcomes that wait; returns False if the database could not do it."""
        self._reported.clear()
        outcomes, self._outcomes = self._outcomes, []
        begun, lease = time.monotonic(), self._store.lease
        ended: dict[UUID, int] = {}
        for each in outcomes:
            ended[each.claim] = ended.get(each.claim, 0) + 1
        renewed = [
            claim_id
            for claim_id, each in self._leases.items()
            if each.held > ended.get(claim_id, 0) and each.deadline - begun < lease * 2 / 3
        ]
        if not outcomes and not renewed:
            return True
        try:
            late = await self._store.record(outcomes, renewed)
        except BaseException as error:
            self._outcomes[:0] = outcomes  # to record an outcome twice has no effect
            self._reported.set()
            if not isinstance(error, Exception):
                raise
            _log.warning("The outcomes of deliveries could not be recorded yet", exc_info=error)
            return False
        if late:
            _log.warning("The claims of %d messages were over; other relays deliver them again", late)
        now = time.monotonic()
        for claim_id in renewed:
            if now < self._leases[claim_id].deadline:  # else another relay may have claimed the messages before
                self._leases[claim_id].deadline = begun + lease
        for claim_id, number in ended.items():
            self._leases[claim_id].held -= number
            if not self._leases[claim_id].held:
                del self._leases[claim_id]
        self._settled.set()
        self._changed()
        return True

    async def finished(self) -> None:
        """Wait until all messages are delivered and recorded by `keep_recording`.

        It stops to wait for the recording when the claims are over, since other relays have the messages then.
        """
        while self._lanes or any(time.monotonic() < lease.deadline for lease in self._leases.values()):
            self._settled.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    await self._settled.wait()

    def stop(self) -> None:
        """Begin no further delivery."""
        self._stopping = True

    async def end(self, recording: asyncio.Task[None], seconds: float) -> None:
        """Cancel the deliveries that run, record what is known, and release the rest, within so many seconds.

        ``recording`` is the task of `keep_recording`, which ends too.
        """
        self._stopping = self._ending = True
        for lane in self._lanes:
            lane.cancel()
        self._reported.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.wait({recording, *self._lanes})
                while self._outcomes:
                    if not await self._record():
                        await asyncio.sleep(_PAUSE)
                if self._leases:
                    await self._store.release([*self._leases])
        recording.cancel()
        with suppress(asyncio.CancelledError):
            await recording


def _lanes(claimed: Iterable[Claimed]) -> list[list[Claimed]]:
    """The messages of each key, in order. A message without a key is alone."""
    lanes: dict[object, list[Claimed]] = {}
    for each in claimed:
        message = each.message
        lane = lane_of(message.tenant_id, message.topic, message.key)
        lanes.setdefault(message.id if lane is None else lane, []).append(each)
    return list(lanes.values())
