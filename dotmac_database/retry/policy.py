"""How often, and after which delays, a failed operation is tried again: values that know no database."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from ..errors import ValidationError


class RetryStrategy(StrEnum):
    """How the delay grows from one attempt to the next."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"
    JITTERED = "jittered"
    """Exponential with full jitter: anything between nothing and the exponential delay."""


@dataclass(frozen=True, slots=True)
class RetryAttempt:
    """One attempt that has ended.

    ``number`` counts from 1, of at most ``max_attempts``; ``elapsed`` is the time in seconds since the first one
    began; ``error`` is None after a success; ``delay`` is the time in seconds until the next attempt, None when
    there is none.
    """

    operation: str
    number: int
    max_attempts: int
    elapsed: float
    error: BaseException | None = None
    delay: float | None = None

    @property
    def outcome(self) -> Literal["succeeded", "retrying", "failed"]:
        """What follows from it."""
        if self.error is None:
            return "succeeded"
        return "failed" if self.delay is None else "retrying"


class RetryHook(Protocol):
    """Called after each attempt. What it raises is logged, and goes no further."""

    def __call__(self, attempt: RetryAttempt, /) -> None:
        """Take note of ``attempt``."""
        ...


class RetryBudget:
    """A limit on retries over all calls that share it, so that they do not bury a database that is in trouble.

    It holds ``capacity`` tokens at first and at most. A retry takes one; an operation that succeeds gives ``ratio``
    of one back. With none left, failures are not retried. Thread-safe.
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
        """What is left."""
        return self._tokens

    def deposit(self) -> None:
        """Count a success."""
        with self._lock:
            self._tokens = min(self.capacity, self._tokens + self.ratio)

    def withdraw(self) -> bool:
        """Take a token for a retry; False when there is none."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which delays, an operation is tried.

    ``max_attempts`` counts all attempts. Delays are in seconds: ``base_delay`` after the first failure, growing by
    ``strategy`` (``multiplier`` is the exponential one's factor), never above ``max_delay``. Of each delay the part
    ``jitter_ratio`` is random: 0.1 gives 90 to 100 % of it, 1.0 (full jitter) anything from nothing to all.

    ``deadline`` is in seconds from the start of the first attempt: no attempt begins later, None for no limit.
    It does not interrupt an attempt; a statement timeout does. ``budget`` is shared with other calls. ``hooks`` get
    one `RetryAttempt` for each attempt. Raises `ValidationError` for values that make no sense.
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
        """The seconds to wait after attempt number ``attempt`` (from 1) failed; random where there is jitter."""
        match self.strategy:
            case RetryStrategy.FIXED:
                full = self.base_delay
            case RetryStrategy.LINEAR:
                full = self.base_delay * attempt
            case _:
                full = self._exponential(attempt)
        full = min(full, self.max_delay)
        jitter = 1.0 if self.strategy is RetryStrategy.JITTERED else self.jitter_ratio
        return full * (1.0 - jitter * random.random())  # noqa: S311  # no secret

    def _exponential(self, attempt: int) -> float:
        try:
            return self.base_delay * self.multiplier ** (attempt - 1)
        except OverflowError:
            return self.max_delay
