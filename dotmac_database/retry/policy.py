"""Retry policies: the number of attempts and the delays between them, independent of any database."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from ..errors import ValidationError


class RetryStrategy(StrEnum):
    """How the delay grows from attempt to attempt."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"
    JITTERED = "jittered"
    """Exponential with full jitter: a random delay between 0 and the exponential one."""


@dataclass(frozen=True, slots=True)
class RetryAttempt:
    """One finished attempt.

    ``number`` counts from 1 to at most ``max_attempts``. ``elapsed`` is the time since the first attempt began, in
    seconds. ``error`` is None after a success. ``delay`` is the time until the next attempt, in seconds; None if no
    attempt follows.
    """

    operation: str
    number: int
    max_attempts: int
    elapsed: float
    error: BaseException | None = None
    delay: float | None = None

    @property
    def outcome(self) -> Literal["succeeded", "retrying", "failed"]:
        """Whether the attempt succeeded, is followed by another one, or was the last one and failed."""
        if self.error is None:
            return "succeeded"
        return "failed" if self.delay is None else "retrying"


class RetryHook(Protocol):
    """Called after each attempt. Its exceptions are logged and suppressed."""

    def __call__(self, attempt: RetryAttempt, /) -> None:
        """Record ``attempt``."""
        ...


EVERY_ATTEMPT: list[RetryHook] = []
"""The hooks that are called after each attempt, whatever its policy: those of the telemetry."""


class RetryBudget:
    """A limit on the retries of all calls that share it, so that they do not overload a struggling database.

    It is a token bucket: it starts with ``capacity`` tokens, which is also the maximum. A retry takes one token, and a
    successful operation gives back ``ratio`` tokens. If less than one token is left, failures are not retried. The
    budget is thread-safe.
    """

    def __init__(self, capacity: float = 100.0, ratio: float = 0.1) -> None:
        if capacity < 0 or ratio < 0:
            raise ValidationError("A retry budget's capacity and ratio must not be negative.")
        self.capacity = capacity
        self.ratio = ratio
        self._tokens = capacity
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        """The number of tokens left."""
        return self._tokens

    def deposit(self) -> None:
        """Return a fraction of a token after a success."""
        with self._lock:
            self._tokens = min(self.capacity, self._tokens + self.ratio)

    def withdraw(self) -> bool:
        """Take a token for a retry. Returns False if there is none."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts of an operation, and the delays between them.

    ``max_attempts`` includes the first attempt. Delays are in seconds: ``base_delay`` after the first failure, growing
    by ``strategy`` (``multiplier`` is the factor of the exponential one), up to ``max_delay``. The fraction
    ``jitter_ratio`` of each delay is random: 0.1 gives 90 to 100 % of the delay, and 1.0 (full jitter) 0 to 100 %.

    No attempt begins later than ``deadline`` seconds after the start of the first one (None: no limit). The deadline
    does not interrupt a running attempt; use a statement timeout for that. ``budget`` is shared with other calls.
    ``hooks`` are called with a `RetryAttempt` after each attempt. Raises `ValidationError` for invalid values.
    """

    max_attempts: int = 3
    base_delay: float = 1.0
    max_delay: float = 60.0
    strategy: RetryStrategy = RetryStrategy.EXPONENTIAL
    jitter_ratio: float = 0.1
    multiplier: float = field(default=2.0, kw_only=True)
    deadline: float | None = field(default=None, kw_only=True)
    budget: RetryBudget | None = field(default=None, kw_only=True)
    hooks: tuple[RetryHook, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValidationError("max_attempts must be 1 or more.", field="max_attempts")
        for name in ("base_delay", "max_delay", "multiplier", "deadline"):
            if (getattr(self, name) or 0.0) < 0:
                raise ValidationError(f"{name} must not be negative.", field=name)
        if not 0 <= self.jitter_ratio <= 1:
            raise ValidationError("jitter_ratio must be between 0 and 1.", field="jitter_ratio")
        try:
            object.__setattr__(self, "strategy", RetryStrategy(self.strategy))
        except ValueError:
            known = ", ".join(RetryStrategy)
            raise ValidationError(f"strategy must be one of {known}.", field="strategy") from None

    def delay(self, attempt: int) -> float:
        """The delay after the failure of attempt number ``attempt`` (from 1), in seconds; random with jitter."""
        match self.strategy:
            case RetryStrategy.FIXED:
                full = self.base_delay
            case RetryStrategy.LINEAR:
                full = self.base_delay * attempt
            case _:
                full = self._exponential(attempt)
        full = min(full, self.max_delay)
        jitter = 1.0 if self.strategy is RetryStrategy.JITTERED else self.jitter_ratio
        return full * (1.0 - jitter * random.random())  # noqa: S311  # not used for security

    def _exponential(self, attempt: int) -> float:
        try:
            return self.base_delay * self.multiplier ** (attempt - 1)
        except OverflowError:
            return self.max_delay
