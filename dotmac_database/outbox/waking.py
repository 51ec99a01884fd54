"""What wakes a relay that has nothing to do: a notification of PostgreSQL, a call, or the time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncEngine

from ..dialects.listening import listen
from ..health.shared_checks import beside_the_pool
from .publishing import CHANNEL, QUIET

_log = logging.getLogger(__name__)


class Waker:
    """An alarm that several causes can set off. A notification sets it off twice: see `QUIET`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._again_at: float | None = None

    def wake(self) -> None:
        """End the current or the next `wait`."""
        self._event.set()

    def notified(self) -> None:
        """As `wake`, for a message of a process that may have written others without a notification."""
        self._again_at = time.monotonic() + 2 * QUIET
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait until something wakes the relay, at most so many seconds."""
        if self._again_at is not None:
            seconds = min(seconds, max(0.0, self._again_at - time.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()
        if self._again_at is not None and time.monotonic() >= self._again_at:
            self._again_at = None

    @asynccontextmanager
    async def listening(self, engine: AsyncEngine, seconds: float) -> AsyncIterator[None]:
        """Listen in this block, on a connection beside the pool.

        If the connection is lost, the next one is tried after so many seconds.
        """
        task = asyncio.create_task(self._listen(engine, seconds))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _listen(self, engine: AsyncEngine, seconds: float) -> None:
        while True:
            beside = AsyncEngine(beside_the_pool(engine.sync_engine))
            try:
                await listen(beside, CHANNEL, self.notified)
            except Exception:  # noqa: BLE001 - whatever it is, the relay goes on by polling
                _log.warning("The outbox can't listen for notifications, and polls until it can", exc_info=True)
            finally:
                await beside.dispose()
            await asyncio.sleep(seconds)
