"""A circuit breaker: stops calls to a database that does not respond, until it responds again.

No existing library fits. Each one either lets all callers through after the timeout, or holds a lock during the
protected call, or supports threads but not asyncio tasks (see ``docs/dependencies.md``).
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, cast

from sqlalchemy import exc as sa

from ..errors import (
    CircuitOpenError,
    ConstraintViolationError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    EntityNotFoundError,
    PermissionDeniedError,
    StaleEntityError,
    TenantIsolationError,
    TransactionError,
    ValidationError,
)
from .transient import database_error

P = ParamSpec("P")
R = TypeVar("R")
CircuitState: TypeAlias = Literal["closed", "open", "half_open"]

_log = logging.getLogger(__name__)

_ANSWERS = (
    EntityNotFoundError,
    DuplicateEntityError,
    ConstraintViolationError,
    ValidationError,
    StaleEntityError,
    PermissionDeniedError,
    TenantIsolationError,
)
"""Errors that prove the database is responding; they do not count as failures."""


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """A change of a breaker's state. ``failures`` is the number of consecutive failures, 0 if the circuit closed.

    ``error`` is the exception of the call that caused the change; None if the call succeeded, or if no call caused it.
    """

    name: str | None
    before: CircuitState
    after: CircuitState
    failures: int
    error: BaseException | None


class CircuitHook(Protocol):
    """Called after each change of state, outside of the lock. Its exceptions are logged and suppressed."""

    def __call__(self, change: CircuitChange, /) -> None:
        """Record ``change``."""
        ...


EVERY_CHANGE: list[CircuitHook] = []
"""The hooks that are called for each change of each breaker: those of the telemetry."""


@dataclass(frozen=True, slots=True, eq=False)
class _Permit:
    """The permission for one call.

    ``era`` is a number that grows whenever the circuit opens or closes. If it has grown during the call, the outcome of
    the call comes too late, and does not count.
    """

    era: int


class CircuitBreaker:
    """Makes calls fail immediately while a database is down, instead of waiting for it each time.

    Use it as a decorator of a function or coroutine function, or as a context manager (``with`` and ``async with``).
    One breaker may be shared by any number of threads and tasks; it holds no lock during a call.

    ``failure_threshold`` consecutive failures open the circuit. A call fails if it raises an ``expected_exception``,
    unless the exception proves that the database is responding. Such exceptions are: not found, duplicate, a violated
    constraint, validation, a stale version, tenant isolation, a transaction that failed because of a concurrent one,
    and other errors that the database reports, such as a syntax error. With these, and with any other exception, the
    call counts as a success. A cancelled call does not count.

    While the circuit is open, the breaker raises `CircuitOpenError` instead of making the call. After
    ``recovery_timeout`` seconds it lets one trial call through. If this succeeds, the circuit closes; if it fails, the
    circuit is open for the same time again.

    ``name`` appears in messages and changes; ``hooks`` are called for every change. Raises `ValidationError` for a
    threshold below 1 or a negative timeout.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        expected_exception: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        *,
        name: str | None = None,
        hooks: Sequence[CircuitHook] = (),
    ) -> None:
        if failure_threshold < 1:
            raise ValidationError("failure_threshold must be 1 or more.", field="failure_threshold")
        if recovery_timeout < 0:
            raise ValidationError("recovery_timeout must not be negative.", field="recovery_timeout")
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self.expected_exception = expected_exception
        self.name = name
        self._hooks = tuple(hooks)
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None  # None: closed
        self._trial: _Permit | None = None
        self._era = 0

    @property
    def state(self) -> CircuitState:
        """``"closed"``, ``"open"``, or ``"half_open"`` after the recovery timeout."""
        with self._lock:
            return self._state()

    @property
    def failures(self) -> int:
        """The number of consecutive failures."""
        return self._failures

    @property
    def retry_after(self) -> float:
        """The time until the next trial call, in seconds; 0.0 if a call would be let through now.

        While a trial call is running, it is the time after which it makes sense to try again: at most one second.
        """
        with self._lock:
            return self._retry_after()

    def reset(self) -> None:
        """Close the circuit and reset the number of failures."""
        with self._lock:
            change = self._close(None)
        self._call_hooks(change)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Protect a function or coroutine function. The result has this breaker as attribute ``circuit_breaker``."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ValidationError("A circuit breaker takes a function or a coroutine function, not a generator.")
        if self.name is None:
            self.name = getattr(function, "__qualname__", None)

        protected = (
            self._around_coroutine(function) if inspect.iscoroutinefunction(function) else self._around(function)
        )
        protected.circuit_breaker = self  # type: ignore[attr-defined]  # functions take attributes
        return cast("Callable[P, R]", protected)

    def _around(self, function: Callable[..., object]) -> Callable[..., Any]:
        @wraps(function)
        def protected(*args: Any, **kwargs: Any) -> Any:
            with self._call():
                return function(*args, **kwargs)

        return protected

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def protected(*args: Any, **kwargs: Any) -> Any:
            with self._call():
                return await function(*args, **kwargs)

        return protected

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Let one call through, and count its outcome."""
        permit = self._admit()
        try:
            yield
        except BaseException as error:
            self._settle(permit, error)
            raise
        self._settle(permit, None)

    def __enter__(self) -> Self:
        _ENTERED.set((*_ENTERED.get(), (self, self._admit())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._settle(self._leave(), error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _leave(self) -> _Permit:
        entered = _ENTERED.get()
        for index in range(len(entered) - 1, -1, -1):
            breaker, permit = entered[index]
            if breaker is self:
                _ENTERED.set(entered[:index] + entered[index + 1 :])
                return permit
        # The block may be left in another context than the one in which it was entered, such as in another thread.
        return self._trial or _Permit(self._era)

    def _state(self) -> CircuitState:
        if self._opened_at is None:
            return "closed"
        return "open" if time.monotonic() < self._opened_at + self.recovery_timeout else "half_open"

    def _retry_after(self) -> float:
        if self._opened_at is None:
            return 0.0
        left = self._opened_at + self.recovery_timeout - time.monotonic()
        if left > 0:
            return left
        return min(1.0, self.recovery_timeout) if self._trial is not None else 0.0

    def _admit(self) -> _Permit:
        with self._lock:
            if self._opened_at is None:
                return _Permit(self._era)
            if self._state() == "half_open" and self._trial is None:
                self._trial = _Permit(self._era)
                permit, change = self._trial, self._change("open", "half_open", None)
            else:
                named = f" of {self.name}" if self.name else ""
                raise CircuitOpenError(
                    f"The circuit breaker{named} is open after {self._failures} failures in a row.",
                    retry_after=self._retry_after(),
                )
        self._call_hooks(change)
        return permit

    def _settle(self, permit: _Permit, error: BaseException | None) -> None:
        says_nothing = isinstance(error, CircuitOpenError) or (
            error is not None and not isinstance(error, (Exception, self.expected_exception))
        )
        failed = error is not None and not says_nothing and self._is_failure(error)
        with self._lock:
            was_trial = permit is self._trial
            if was_trial:
                self._trial = None
            if says_nothing or (permit.era != self._era and not was_trial):
                return
            change = self._fail(error, was_trial) if failed else self._close(error)
        self._call_hooks(change)

    def _is_failure(self, error: BaseException) -> bool:
        return isinstance(error, self.expected_exception) and not _is_answer(error)

    def _fail(self, error: BaseException | None, was_trial: bool) -> CircuitChange | None:
        self._failures += 1
        if not was_trial and self._failures < self.failure_threshold:
            return None
        self._era += 1
        self._opened_at = time.monotonic()
        return self._change("half_open" if was_trial else "closed", "open", error)

    def _close(self, error: BaseException | None) -> CircuitChange | None:
        before = self._state()
        self._failures = 0
        self._trial = None
        if self._opened_at is None:
            return None
        self._era += 1
        self._opened_at = None
        return self._change(before, "closed", error)

    def _change(self, before: CircuitState, after: CircuitState, error: BaseException | None) -> CircuitChange:
        return CircuitChange(self.name, before, after, self._failures, error)

    def _call_hooks(self, change: CircuitChange | None) -> None:
        if change is None:
            return
        _log.log(
            logging.WARNING if change.after == "open" else logging.INFO,
            "Circuit breaker %s: %s -> %s after %d failures in a row",
            change.name or "(unnamed)",
            change.before,
            change.after,
            change.failures,
        )
        for hook in (*self._hooks, *EVERY_CHANGE):
            try:
                hook(change)
            except Exception:  # noqa: BLE001 - a failing hook must not affect the call
                _log.exception("A hook of the circuit breaker %s failed", self.name or "(unnamed)")


_ENTERED: ContextVar[tuple[tuple[CircuitBreaker, _Permit], ...]] = ContextVar("dotmac_database_breakers", default=())
"""The open ``with`` blocks of breakers in this task or thread, each with its permit, the outermost first."""


def _is_answer(error: BaseException) -> bool:
    """Whether an exception proves that the database is responding. Exceptions of the user's own code do not."""
    if isinstance(error, (sa.NoResultFound, sa.MultipleResultsFound)):
        return True
    failure = database_error(error)
    if failure is None or isinstance(failure, (DatabaseUnavailableError, DatabaseTimeoutError)):
        return False
    if isinstance(failure, TransactionError):
        return failure.transient or failure.sqlstate is not None
    if isinstance(failure, _ANSWERS):
        return True
    # Any other error with a SQLSTATE of the database (no such table, a syntax error) is a response too.
    return hasattr(failure.__cause__, "sqlstate") or hasattr(failure.__cause__, "sqlite_errorcode")
