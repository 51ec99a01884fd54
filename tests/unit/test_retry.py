"""Retries: which failures, how often, after which delays, and what the hooks are told."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dotmac_database.errors import (
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    EntityNotFoundError,
    StaleEntityError,
    TransactionError,
    ValidationError,
)
from dotmac_database.retry import (
    RetryAttempt,
    RetryBudget,
    RetryPolicy,
    RetryStrategy,
    is_transient,
    with_retry,
)

LOST = TransactionError("lost a race", transient=True, sqlstate="40001")
QUICK = RetryPolicy(max_attempts=4, base_delay=0.0)


class Flaky:
    """Fails with these, in turn, and then succeeds."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= len(self.failures):
            raise self.failures[self.calls - 1]
        return "done"


def run(kind: str, policy: RetryPolicy, work: Callable[[], Any], **options: Any) -> Any:
    """Call ``work`` once through each kind of decorated function."""
    retry = with_retry(policy, **options)

    async def coroutine() -> Any:
        return work()

    def generator() -> Iterator[Any]:
        yield work()

    async def async_generator() -> AsyncIterator[Any]:
        yield work()

    async def collect() -> Any:
        return await anext(retry(async_generator)())

    match kind:
        case "function":
            return retry(work)()
        case "coroutine":
            return asyncio.run(retry(coroutine)())
        case "generator":
            return next(iter(list(retry(generator)())))
        case _:
            return asyncio.run(collect())


KINDS = ["function", "coroutine", "generator", "async_generator"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_transient_failure_is_tried_again(kind: str) -> None:
    work = Flaky(LOST, DatabaseUnavailableError())
    assert run(kind, QUICK, work) == "done"
    assert work.calls == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_failure_leaves_as_it_is_with_a_note(kind: str) -> None:
    last = TransactionError("the last", transient=True)
    work = Flaky(LOST, LOST, LOST, last)
    with pytest.raises(TransactionError) as raised:
        run(kind, QUICK, work)
    assert raised.value is last
    assert work.calls == 4
    assert last.__notes__[0].startswith("Gave up after 4 attempts")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [
        ValueError("the user's own"),
        ConnectionError("of some other network"),
        DuplicateEntityError(),
        ConstraintViolationError(),
        EntityNotFoundError(),
        StaleEntityError(),
        ValidationError(),
        DatabaseTimeoutError(),
        TransactionError("can't go on"),
        TransactionError("maybe", outcome="unknown"),
    ],
    ids=repr,
)
def test_other_failures_are_not(kind: str, error: Exception) -> None:
    work = Flaky(error)
    with pytest.raises(type(error)) as raised:
        run(kind, QUICK, work)
    assert raised.value is error
    assert work.calls == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_outcome_is_tried_again_only_where_that_does_no_harm(kind: str) -> None:
    work = Flaky(TransactionError("lost during COMMIT", outcome="unknown"))
    assert run(kind, QUICK, work, idempotent=True) == "done"
    assert work.calls == 2


def sqlite_error(code: int) -> exc.OperationalError:
    cause = sqlite3.OperationalError("from sqlite3")
    cause.sqlite_errorcode = code
    return exc.OperationalError("UPDATE t", {"secret": 42}, cause)


def postgres_error(sqlstate: str) -> exc.DBAPIError:
    cause = Exception("from a driver")
    cause.sqlstate = sqlstate  # type: ignore[attr-defined]  # as drivers have it
    return exc.DBAPIError("UPDATE t", {"secret": 42}, cause)


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "08006", "57P01", "57P03", "53300"])
def test_transient_by_sqlstate(sqlstate: str) -> None:
    assert is_transient(postgres_error(sqlstate))


@pytest.mark.parametrize(
    "sqlstate", ["23505", "23503", "22P02", "42501", "42P01", "57014", "55P03", "28P01", "3D000", "53100", "40003"]
)
def test_lasting_by_sqlstate(sqlstate: str) -> None:
    assert not is_transient(postgres_error(sqlstate))


def test_exceptions_straight_from_a_driver_are_judged_alike() -> None:
    assert is_transient(psycopg.errors.SerializationFailure())
    assert is_transient(psycopg.OperationalError("the connection is lost"))
    assert is_transient(asyncpg.DeadlockDetectedError())
    assert is_transient(asyncpg.ConnectionDoesNotExistError())
    assert is_transient(sqlite_error(sqlite3.SQLITE_BUSY).orig or ValueError())
    assert not is_transient(psycopg.errors.UniqueViolation())
    assert not is_transient(asyncpg.UndefinedTableError())
    with pytest.raises(DuplicateEntityError) as raised:
        run("function", QUICK, Flaky(psycopg.errors.UniqueViolation()))
    assert isinstance(raised.value.__cause__, psycopg.errors.UniqueViolation)


def test_transient_by_sqlite_code() -> None:
    assert is_transient(sqlite_error(sqlite3.SQLITE_BUSY))
    assert is_transient(sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT))
    assert not is_transient(sqlite_error(sqlite3.SQLITE_FULL))
    assert not is_transient(sqlite_error(sqlite3.SQLITE_CORRUPT))
    assert not is_transient(sqlite_error(sqlite3.SQLITE_CONSTRAINT))


@pytest.mark.parametrize("kind", KINDS)
def test_sqlalchemys_exceptions_leave_as_the_toolkits(kind: str) -> None:
    original = sqlite_error(sqlite3.SQLITE_BUSY)
    work = Flaky(*[original] * 9)
    with pytest.raises(TransactionError) as raised:
        run(kind, QUICK, work)
    assert work.calls == 4
    assert raised.value.__cause__ is original.orig
    assert "42" not in str(raised.value)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (RetryStrategy.FIXED, [1, 1, 1, 1, 1, 1]),
        (RetryStrategy.LINEAR, [1, 2, 3, 4, 5, 5]),
        (RetryStrategy.EXPONENTIAL, [1, 2, 4, 5, 5, 5]),
    ],
)
def test_delays_grow_by_the_strategy_up_to_the_limit(strategy: RetryStrategy, expected: list[float]) -> None:
    policy = RetryPolicy(base_delay=1.0, max_delay=5.0, strategy=strategy, jitter_ratio=0.0)
    assert [policy.delay(attempt) for attempt in range(1, 7)] == expected


def test_a_part_of_the_delay_is_random() -> None:
    policy = RetryPolicy(base_delay=10.0, strategy=RetryStrategy.FIXED, jitter_ratio=0.2)
    delays = [policy.delay(1) for _ in range(500)]
    assert 8.0 <= min(delays) < 8.2
    assert 9.8 < max(delays) <= 10.0


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(base_delay=10.0, jitter_ratio=1.0),
        RetryPolicy(base_delay=10.0, strategy=RetryStrategy.JITTERED),
    ],
    ids=["ratio", "strategy"],
)
def test_full_jitter_is_anything_up_to_the_delay(policy: RetryPolicy) -> None:
    delays = [policy.delay(2) for _ in range(1000)]
    assert 0.0 <= min(delays) < 0.5
    assert 19.5 < max(delays) <= 20.0


def test_a_huge_exponent_is_the_limit() -> None:
    assert RetryPolicy(jitter_ratio=0.0).delay(100_000) == 60.0


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"base_delay": -1.0},
        {"max_delay": -1.0},
        {"jitter_ratio": 1.5},
        {"deadline": -1.0},
        {"strategy": "wild"},
    ],
)
def test_senseless_policies_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        RetryPolicy(**options)
    assert raised.value.field == next(iter(options))


def test_a_strategy_may_be_given_by_name() -> None:
    assert RetryPolicy(strategy="linear").strategy is RetryStrategy.LINEAR  # type: ignore[arg-type]  # from settings


@pytest.mark.parametrize("kind", KINDS)
def test_no_attempt_begins_after_the_deadline(kind: str) -> None:
    policy = RetryPolicy(max_attempts=100, base_delay=0.1, strategy=RetryStrategy.FIXED, jitter_ratio=0.0, deadline=0.5)
    work = Flaky(*[LOST] * 100)
    with pytest.raises(TransactionError):
        run(kind, policy, work)
    assert 1 <= work.calls <= 6  # of a hundred


def test_the_wait_is_not_begun_when_it_would_outlast_the_deadline() -> None:
    policy = RetryPolicy(max_attempts=3, base_delay=120.0, deadline=1.0)
    start = time.monotonic()
    with pytest.raises(TransactionError):
        run("function", policy, Flaky(LOST))
    assert time.monotonic() - start < 60


def test_a_budget_limits_the_retries_of_all_calls_together() -> None:
    budget = RetryBudget(capacity=3, ratio=0.5)
    policy = RetryPolicy(max_attempts=3, base_delay=0.0, budget=budget)
    calls = []
    for _ in range(3):
        work = Flaky(LOST, LOST, LOST)
        with pytest.raises(TransactionError):
            run("function", policy, work)
        calls.append(work.calls)
    assert calls == [3, 2, 1]
    assert budget.tokens == 0
    for _ in range(10):
        run("function", policy, Flaky())
    assert budget.tokens == 3
    assert run("function", policy, Flaky(LOST)) == "done"


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_get_one_record_an_attempt(kind: str) -> None:
    records: list[RetryAttempt] = []

    def broken(attempt: RetryAttempt) -> None:
        raise LookupError(attempt.operation)

    policy = RetryPolicy(max_attempts=4, base_delay=0.001, jitter_ratio=0.0, hooks=(broken, records.append))
    run(kind, policy, Flaky(LOST, LOST))
    assert [(record.number, record.outcome, record.error, record.delay) for record in records] == [
        (1, "retrying", LOST, 0.001),
        (2, "retrying", LOST, 0.002),
        (3, "succeeded", None, None),
    ]
    assert 0 <= records[0].elapsed < records[2].elapsed
    assert {record.max_attempts for record in records} == {4}
    records.clear()
    with pytest.raises(KeyError):
        run(kind, policy, Flaky(LOST, KeyError("own")))
    assert [record.outcome for record in records] == ["retrying", "failed"]


def test_a_cancelled_call_is_not_tried_again() -> None:
    work = Flaky(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        run("coroutine", QUICK, work)
    assert work.calls == 1


def test_a_generator_that_has_given_an_item_is_not_begun_again() -> None:
    begun = []

    @with_retry(QUICK)
    def rows() -> Iterator[int]:
        begun.append(1)
        yield 1
        raise LOST

    @with_retry(QUICK)
    async def async_rows() -> AsyncIterator[int]:
        begun.append(1)
        yield 1
        raise sqlite_error(sqlite3.SQLITE_BUSY)

    async def collect() -> None:
        async for item in async_rows():
            seen.append(item)  # noqa: PERF401  # what was seen before the failure counts

    seen: list[int] = []
    with pytest.raises(TransactionError):
        seen.extend(rows())
    assert len(begun) == 1
    with pytest.raises(TransactionError):
        asyncio.run(collect())
    assert (len(begun), seen) == (2, [1, 1])


def test_a_generator_that_is_left_early_is_closed() -> None:
    closed = []

    @with_retry(QUICK)
    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("async")

    @with_retry(QUICK)
    def plain_rows() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("sync")

    async def main() -> None:
        items = rows()
        assert await anext(items) == 1
        await items.aclose()  # type: ignore[attr-defined]  # it is a generator

    asyncio.run(main())
    items = plain_rows()
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]  # it is a generator
    assert closed == ["async", "sync"]


def test_an_empty_generator_stays_empty() -> None:
    @with_retry
    def rows() -> Iterator[int]:
        yield from ()

    assert list(rows()) == []


def test_without_a_policy_and_with_the_name_kept() -> None:
    @with_retry
    def plain(a: int, *, b: int = 2) -> int:
        """Add."""
        return a + b

    @with_retry()
    async def called(a: int) -> int:
        return a

    assert plain(1, b=4) == 5
    assert (plain.__name__, plain.__doc__) == ("plain", "Add.")
    assert asyncio.run(called(7)) == 7
    assert with_retry(functools.partial(plain, 1))() == 3


# Sessions among the arguments.


@pytest.fixture
def engine(tmp_path: Any) -> Iterator[Any]:
    engine = create_engine(f"sqlite:///{tmp_path}/retry.db", pool_size=1, max_overflow=0, pool_timeout=0.1)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    yield engine
    engine.dispose()


class Repository:
    def __init__(self, db: Any) -> None:
        self.db = db


@pytest.mark.parametrize(
    "wrap", [lambda s: s, Repository, lambda s: scoped_session(lambda: s)], ids=["session", "held", "scoped"]
)
def test_each_attempt_finds_a_clean_session_and_no_wait_holds_a_connection(
    engine: Any, wrap: Callable[[Session], Any]
) -> None:
    waiting: list[int] = []
    policy = RetryPolicy(max_attempts=3, base_delay=0.0, hooks=(lambda _: waiting.append(engine.pool.checkedout()),))
    found = []

    @with_retry(policy)
    def insert(target: Any) -> int:
        session = target if isinstance(target, Session) else target.db if isinstance(target, Repository) else target()
        found.append(session.in_transaction())
        session.execute(text("INSERT INTO t VALUES (1)"))
        if len(found) < 3:
            raise LOST
        return int(session.scalar(text("SELECT count(*) FROM t")) or 0)

    with Session(engine) as session:
        assert insert(wrap(session)) == 1
        assert session.in_transaction(), "with_retry commits nothing"
    assert found == [False, False, False]
    assert waiting[:2] == [0, 0]


def test_async_sessions_are_cleaned_too(tmp_path: Any) -> None:
    found = []

    @with_retry(QUICK)
    async def insert(*, session: AsyncSession) -> int:
        found.append(session.in_transaction())
        await session.execute(text("INSERT INTO t VALUES (1)"))
        if len(found) < 3:
            raise LOST
        return int(await session.scalar(text("SELECT count(*) FROM t")) or 0)

    async def main() -> int:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/retry.db")
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (a INTEGER)"))
        async with AsyncSession(engine) as session:
            count = await insert(session=session)
        await engine.dispose()
        return count

    assert asyncio.run(main()) == 1
    assert found == [False, False, False]


def enclosed_by_begin(session: Session) -> None:
    session.begin()


def enclosed_by_write(session: Session) -> None:
    session.execute(text("INSERT INTO t VALUES (1)"))


@pytest.mark.parametrize("enclose", [enclosed_by_begin, enclosed_by_write])
def test_inside_a_transaction_there_is_one_attempt(engine: Any, enclose: Callable[[Session], None]) -> None:
    calls = []

    @with_retry(QUICK)
    def work(session: Session) -> None:
        calls.append(session)
        raise TransactionError("lost", transient=True)

    with Session(engine) as session:
        enclose(session)
        with pytest.raises(TransactionError) as raised:
            work(session)
        assert session.in_transaction(), "what was written before is not rolled back"
    assert len(calls) == 1
    assert raised.value.__notes__[0].startswith("Not retried: it is part of a transaction")


def test_a_transaction_of_reads_does_not_stand_in_the_way(engine: Any) -> None:
    work = Flaky(LOST)

    @with_retry(QUICK)
    def read(session: Session) -> str:
        session.execute(text("SELECT * FROM t"))
        return work()

    with Session(engine) as session:
        session.execute(text("SELECT * FROM t"))
        assert session.in_transaction()
        assert read(session) == "done"


def test_a_wait_inside_run_sync_lets_the_event_loop_go_on() -> None:
    policy = RetryPolicy(max_attempts=2, base_delay=0.1, jitter_ratio=0.0)
    went_on = []

    async def main() -> list[bool]:
        engine = create_async_engine("sqlite+aiosqlite://")
        loop = asyncio.get_running_loop()
        work = Flaky(LOST)
        seen: list[bool] = []

        def attempt() -> str:
            seen.append(bool(went_on))
            loop.call_soon(went_on.append, True)
            return work()

        async with AsyncSession(engine) as session:
            await session.run_sync(lambda _: run("function", policy, attempt))
        await engine.dispose()
        return seen

    assert asyncio.run(main()) == [False, True]


def test_a_database_error_of_a_session_that_died_in_its_transaction(engine: Any) -> None:
    """The question whether it has written can fail too: as the toolkit's exception."""
    maker = sessionmaker(engine)
    with maker() as session:
        session.execute(text("SELECT 1"))
        session.connection().invalidate()
        with pytest.raises(DatabaseError):
            with_retry(QUICK)(lambda s: s.execute(text("SELECT 1")))(session)
