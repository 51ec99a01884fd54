"""The circuit breaker: what trips it, what does not, and that one trial is one, also under threads and tasks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
from sqlalchemy import create_engine, exc, text

from dotmac_database.errors import (
    CircuitOpenError,
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    EntityNotFoundError,
    InvalidCursorError,
    PermissionDeniedError,
    StaleEntityError,
    TenantIsolationError,
    TransactionError,
    ValidationError,
)
from dotmac_database.retry.breaker import CircuitBreaker, CircuitChange

SHORT = 0.05


class Clock:
    """The breaker's clock, which a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """No test depends on how long its steps take."""
    clock = Clock()
    monkeypatch.setattr("dotmac_database.retry.breaker.time", clock)
    return clock


ANSWERS = [
    EntityNotFoundError(),
    DuplicateEntityError(),
    ConstraintViolationError(),
    ValidationError(),
    InvalidCursorError(),
    StaleEntityError(),
    PermissionDeniedError(),
    TenantIsolationError(),
    TransactionError("lost a race", transient=True, sqlstate="40001"),
    exc.NoResultFound(),
]
FAILURES = [
    DatabaseUnavailableError(),
    DatabaseTimeoutError(),
    TransactionError(outcome="unknown"),
    exc.OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly")),
    exc.TimeoutError(),
    RuntimeError("anything else of expected_exception"),
]


def named(error: BaseException) -> str:
    return type(error).__name__


def fail_with(breaker: CircuitBreaker, error: BaseException) -> None:
    with pytest.raises(type(error)), breaker:
        raise error


def opened(**options: Any) -> CircuitBreaker:
    breaker = CircuitBreaker(1, **options)
    fail_with(breaker, DatabaseUnavailableError())
    return breaker


class Face:
    """The same call through one of the breaker's faces."""

    def __init__(self, kind: str, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self.call: Callable[[BaseException | None], None] = getattr(self, kind)

    def function(self, error: BaseException | None) -> None:
        self._breaker(self._work)(error)

    def coroutine(self, error: BaseException | None) -> None:
        @self._breaker
        async def work() -> None:
            self._work(error)

        asyncio.run(work())

    def block(self, error: BaseException | None) -> None:
        with self._breaker:
            self._work(error)

    def async_block(self, error: BaseException | None) -> None:
        async def main() -> None:
            async with self._breaker:
                self._work(error)

        asyncio.run(main())

    @staticmethod
    def _work(error: BaseException | None) -> None:
        if error is not None:
            raise error


@pytest.mark.parametrize("kind", ["function", "coroutine", "block", "async_block"])
def test_opens_after_failures_in_a_row_and_closes_after_a_good_trial(kind: str, clock: Clock) -> None:
    breaker = CircuitBreaker(failure_threshold=3, recovery_timeout=SHORT)
    call = Face(kind, breaker).call
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            call(DatabaseUnavailableError())
    assert breaker.state == "closed"
    call(None)
    for _ in range(3):
        assert breaker.state == "closed"
        with pytest.raises(DatabaseUnavailableError):
            call(DatabaseUnavailableError())
    assert breaker.state == "open"
    with pytest.raises(CircuitOpenError) as refused:
        call(None)
    assert refused.value.retry_after == pytest.approx(SHORT)
    clock.pass_by(2 * SHORT)
    assert breaker.state == "half_open"
    call(None)
    assert breaker.state == "closed"
    assert breaker.failures == 0


@pytest.mark.parametrize("kind", ["function", "coroutine", "block", "async_block"])
def test_a_failed_trial_opens_for_as_long_again(kind: str, clock: Clock) -> None:
    breaker = opened(recovery_timeout=SHORT)
    clock.pass_by(2 * SHORT)
    with pytest.raises(DatabaseUnavailableError):
        Face(kind, breaker).call(DatabaseUnavailableError())
    assert breaker.state == "open"
    assert breaker.retry_after == pytest.approx(SHORT)


@pytest.mark.parametrize("error", ANSWERS, ids=named)
def test_an_answer_of_a_working_database_is_no_failure(error: Exception) -> None:
    breaker = CircuitBreaker(2)
    for _ in range(3):
        fail_with(breaker, error)
    assert breaker.state == "closed"
    fail_with(breaker, DatabaseUnavailableError())
    fail_with(breaker, error)
    assert breaker.failures == 0


@pytest.mark.parametrize("error", FAILURES, ids=named)
def test_unavailability_is_a_failure(error: Exception) -> None:
    breaker = CircuitBreaker(2)
    fail_with(breaker, error)
    assert breaker.state == "closed"
    fail_with(breaker, error)
    assert breaker.state == "open"


def test_an_answer_closes_a_half_open_circuit() -> None:
    breaker = opened(recovery_timeout=0.0)
    fail_with(breaker, DuplicateEntityError())
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    "statement", ["INSERT INTO t VALUES (1)", "SELECT * FROM missing", "SELECT"], ids=["duplicate", "table", "syntax"]
)
def test_sqlalchemys_own_exceptions_are_judged_alike(statement: str) -> None:
    breaker = CircuitBreaker(1)
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
        with pytest.raises(exc.DBAPIError), breaker:
            connection.execute(text(statement))
    assert breaker.state == "closed"


def test_the_toolkits_plain_error_is_an_answer_where_the_database_gave_it() -> None:
    breaker = CircuitBreaker(1)
    answer = DatabaseError("The database: the statement failed.")
    answer.__cause__ = sqlite3.OperationalError("no such table")
    answer.__cause__.sqlite_errorcode = 1  # as sqlite3 sets it
    fail_with(breaker, answer)
    assert breaker.state == "closed"
    fail_with(breaker, DatabaseError("by hand"))
    assert breaker.state == "open"


def test_only_the_expected_exception_counts() -> None:
    breaker = CircuitBreaker(1, expected_exception=DatabaseUnavailableError)
    fail_with(breaker, KeyError("other"))
    assert breaker.state == "closed"
    fail_with(breaker, DatabaseUnavailableError())
    assert breaker.state == "open"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()], ids=named)
def test_a_call_that_was_stopped_says_nothing(error: BaseException, clock: Clock) -> None:
    breaker = CircuitBreaker(2, recovery_timeout=SHORT)
    fail_with(breaker, DatabaseUnavailableError())
    fail_with(breaker, error)
    assert breaker.failures == 1
    fail_with(breaker, DatabaseUnavailableError())
    clock.pass_by(2 * SHORT)
    fail_with(breaker, error)
    assert breaker.state == "half_open"
    with breaker:
        pass
    assert breaker.state == "closed"


def test_a_trial_that_is_cancelled_gives_its_place_to_the_next() -> None:
    breaker = opened(recovery_timeout=0.0)

    @breaker
    async def call(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def main() -> str:
        trial = asyncio.create_task(call(60))
        await asyncio.sleep(0)
        with pytest.raises(CircuitOpenError):
            await call(0)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        return await call(0)

    assert asyncio.run(main()) == "done"
    assert breaker.state == "closed"


def test_one_trial_under_threads(clock: Clock) -> None:
    breaker = opened(recovery_timeout=SHORT)
    clock.pass_by(2 * SHORT)
    start, release, made = threading.Barrier(16), threading.Event(), []

    @breaker
    def call() -> None:
        made.append(1)
        release.wait(60)

    def caller() -> bool:
        start.wait()
        try:
            call()
        except CircuitOpenError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        results = [pool.submit(caller) for _ in range(16)]
        while sum(result.done() for result in results) < 15:
            time.sleep(0.001)
        assert breaker.state == "half_open"
        release.set()
        assert sum(result.result() for result in results) == 1
    assert len(made) == 1
    assert breaker.state == "closed"


def test_one_trial_under_tasks() -> None:
    breaker = opened(recovery_timeout=0.0)
    made = []

    @breaker
    async def call() -> None:
        made.append(1)
        await asyncio.sleep(0.01)

    async def main() -> list[BaseException | None]:
        return await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)

    results = asyncio.run(main())
    assert len(made) == 1
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 49
    assert breaker.state == "closed"


def test_failures_are_counted_exactly_under_threads() -> None:
    breaker = CircuitBreaker(1601)

    def fail() -> None:
        for _ in range(100):
            fail_with(breaker, DatabaseUnavailableError())

    with ThreadPoolExecutor(16) as pool:
        for job in [pool.submit(fail) for _ in range(16)]:
            job.result()
    assert breaker.failures == 1600
    assert breaker.state == "closed"


@pytest.mark.parametrize("late", [None, DatabaseUnavailableError()], ids=["success", "failure"])
def test_a_result_from_before_the_change_is_ignored(late: BaseException | None, clock: Clock) -> None:
    breaker = CircuitBreaker(1, recovery_timeout=60)

    @breaker
    async def call(seconds: float, error: BaseException | None) -> None:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error

    async def main() -> None:
        slow = asyncio.create_task(call(SHORT, late))
        await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailableError):
            await call(0, DatabaseUnavailableError())
        before = breaker.retry_after
        clock.pass_by(1)
        await asyncio.gather(slow, return_exceptions=True)
        assert breaker.state == "open"
        assert breaker.retry_after < before
        assert breaker.failures == 1

    asyncio.run(main())


def test_a_block_may_be_left_in_another_context_than_it_was_entered() -> None:
    breaker = opened(recovery_timeout=0.0)
    Context().run(breaker.__enter__)
    assert breaker.state == "half_open"
    Context().run(breaker.__exit__, None, None, None)
    assert breaker.state == "closed"


def test_blocks_of_two_breakers_nest() -> None:
    outer, inner = CircuitBreaker(1), CircuitBreaker(1)
    with pytest.raises(DatabaseUnavailableError), outer, inner:
        raise DatabaseUnavailableError
    assert (outer.state, inner.state) == ("open", "open")
    outer.reset()
    with pytest.raises(CircuitOpenError), outer, inner:
        pass
    assert outer.state == "closed", "the inner breaker's refusal is no failure of a call"


def test_hooks_are_told_of_each_change_and_cannot_break_a_call() -> None:
    changes: list[CircuitChange] = []

    def broken(change: CircuitChange) -> None:
        raise LookupError(change.name)

    breaker = CircuitBreaker(2, recovery_timeout=0.0, name="orders", hooks=[broken, changes.append])
    error = DatabaseUnavailableError()
    fail_with(breaker, error)
    fail_with(breaker, error)
    fail_with(breaker, error)
    with breaker:
        pass
    assert [(change.before, change.after, change.failures) for change in changes] == [
        ("closed", "open", 2),
        ("open", "half_open", 2),
        ("half_open", "open", 3),
        ("open", "half_open", 3),
        ("half_open", "closed", 0),
    ]
    assert changes[0].error is error
    assert {change.name for change in changes} == {"orders"}


def test_reset_closes() -> None:
    breaker = opened()
    breaker.reset()
    with breaker:
        pass
    assert breaker.state == "closed"


def test_the_decorated_function_keeps_its_name_and_gives_its_breaker() -> None:
    breaker = CircuitBreaker(1)

    @breaker
    def charge(amount: int) -> int:
        """Take money."""
        return amount

    assert charge(3) == 3
    assert charge.__name__ == "charge"
    assert charge.__doc__ == "Take money."
    assert charge.circuit_breaker is breaker  # type: ignore[attr-defined]  # set on the function
    with pytest.raises(RuntimeError), breaker:
        raise RuntimeError
    with pytest.raises(CircuitOpenError, match="charge"):
        charge(3)


@pytest.mark.parametrize("options", [{"failure_threshold": 0}, {"recovery_timeout": -1.0}])
def test_senseless_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        CircuitBreaker(**options)


def test_generators_are_refused() -> None:
    def rows() -> Any:
        yield 1

    with pytest.raises(ValidationError, match="generator"):
        CircuitBreaker()(rows)
