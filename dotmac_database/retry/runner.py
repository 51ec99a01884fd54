"""Runs the attempts of one operation, with tenacity."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity
from sqlalchemy.util.concurrency import await_, in_greenlet

from .policy import EVERY_ATTEMPT, RetryAttempt, RetryPolicy
from .transient import is_transient

R = TypeVar("R")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retries:
    """How an operation is retried. ``operation`` is its name for hooks and logs.

    ``idempotent``: it may be run again even if its COMMIT may have taken effect. ``enclosed``: it is part of a larger
    transaction. Only the whole transaction could be retried, so there is only one attempt.
    """

    policy: RetryPolicy
    operation: str
    idempotent: bool = False
    enclosed: bool = False

    def run(self, attempt: Callable[[], R], clean: Callable[[], None] | None = None) -> R:
        """Call ``attempt`` until it succeeds or must not be retried. ``clean`` is called before each wait."""
        run = _Run(self)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            if clean is not None:
                clean()
            run.waits(state)

        try:
            result = tenacity.Retrying(sleep=_sleep, before_sleep=before_sleep, **run.settings())(attempt)
        except BaseException as error:
            run.failed(error)
            raise
        run.succeeded()
        return result

    async def run_async(
        self, attempt: Callable[[], Awaitable[R]], clean: Callable[[], Awaitable[None]] | None = None
    ) -> R:
        """As `run`, with coroutine functions."""
        run = _Run(self)

        async def before_sleep(state: tenacity.RetryCallState) -> None:
            if clean is not None:
                await clean()
            run.waits(state)

        try:
            result: R = await tenacity.AsyncRetrying(before_sleep=before_sleep, **run.settings())(attempt)
        except BaseException as error:
            run.failed(error)
            raise
        run.succeeded()
        return result


class _Run:
    """The attempts of one call: decides whether to retry, and calls the hooks."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._policy = retries.policy
        self._number = 0
        self._start = time.monotonic()

    def settings(self) -> dict[str, Any]:
        return {"before": self._before, "retry": self._retry, "wait": self._wait, "stop": self._stop, "reraise": True}

    def waits(self, state: tenacity.RetryCallState) -> None:
        self._call_hooks(state.outcome.exception() if state.outcome else None, state.upcoming_sleep)

    def failed(self, error: BaseException) -> None:
        if is_transient(error, idempotent=self._retries.idempotent):
            if self._retries.enclosed:
                error.add_note("Not retried: it is part of a transaction that began earlier; retry all of it.")
            elif self._number > 1:
                error.add_note(f"Gave up after {self._number} attempts in {time.monotonic() - self._start:.2f} s.")
        self._call_hooks(error, None)

    def succeeded(self) -> None:
        if self._policy.budget is not None:
            self._policy.budget.deposit()
        self._call_hooks(None, None)

    def _before(self, state: tenacity.RetryCallState) -> None:
        self._number = state.attempt_number

    def _retry(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if error is None or self._retries.enclosed:
            return False
        return is_transient(error, idempotent=self._retries.idempotent)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        return self._policy.delay(state.attempt_number)

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        policy = self._policy
        if state.attempt_number >= policy.max_attempts:
            return True
        begins_after = time.monotonic() - self._start + state.upcoming_sleep
        if policy.deadline is not None and begins_after > policy.deadline:
            return True
        return policy.budget is not None and not policy.budget.withdraw()

    def _call_hooks(self, error: BaseException | None, delay: float | None) -> None:
        elapsed = time.monotonic() - self._start
        attempt = RetryAttempt(self._retries.operation, self._number, self._policy.max_attempts, elapsed, error, delay)
        if delay is not None:
            _log.info(
                "%s: attempt %d of %d failed (%s); the next one follows in %.3f s",
                attempt.operation,
                attempt.number,
                attempt.max_attempts,
                type(error).__name__,
                delay,
            )
        for hook in (*self._policy.hooks, *EVERY_ATTEMPT):
            try:
                hook(attempt)
            except Exception:  # noqa: BLE001 - a failing hook must not affect the operation
                _log.exception("A retry hook failed")


def _sleep(seconds: float) -> None:
    """Wait. In sync code that an `AsyncSession` runs, other tasks of the event loop continue meanwhile."""
    if in_greenlet():
        await_(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
