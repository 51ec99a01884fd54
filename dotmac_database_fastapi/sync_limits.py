"""Limits the concurrent ``def`` requests to the number of connections in the pool.

FastAPI runs ``def`` endpoints in about 40 threads, and needs a thread again to serialize the response. If requests
waited for a connection in those threads, the requests that hold the connections would find no thread, and could not
finish. So requests wait in the event loop for a slot before they get a thread. There is one slot for each connection.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from anyio import Semaphore, WouldBlock, fail_after, to_thread

from dotmac_database import DatabaseTimeoutError


class SyncLimit:
    """The slots for an engine with these options of `create_engine`. Each event loop has its own slots."""

    def __init__(self, engine_options: dict[str, Any]) -> None:
        self._size = engine_options.get("pool_size", 5)
        self._overflow = engine_options.get("max_overflow", 10)
        self._timeout = engine_options.get("pool_timeout", 30)
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Semaphore] = WeakKeyDictionary()

    async def acquire(self) -> Semaphore:
        """Take a slot: the caller must release the semaphore that is returned.

        Raises `DatabaseTimeoutError` if no slot becomes free within the pool's timeout.
        """
        semaphore = self._semaphore()
        try:
            semaphore.acquire_nowait()
        except WouldBlock:
            await self._wait(semaphore)
        return semaphore

    async def _wait(self, semaphore: Semaphore) -> None:
        try:
            with fail_after(self._timeout):
                await semaphore.acquire()
        except TimeoutError as late:
            raise DatabaseTimeoutError("No connection became free in time.") from late

    def _semaphore(self) -> Semaphore:
        loop = asyncio.get_running_loop()
        semaphore = self._of_loop.get(loop)
        if semaphore is None:
            threads = max(1, int(to_thread.current_default_thread_limiter().total_tokens) // 2)
            unbounded = self._size == 0 or self._overflow < 0
            semaphore = Semaphore(threads if unbounded else min(threads, self._size + self._overflow))
            self._of_loop[loop] = semaphore
        return semaphore
