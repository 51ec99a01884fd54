"""Whole transactions, run again: each failure below is made to happen to the database itself."""

# ruff: noqa: PT012  # the block that an exception leaves is what is tested
from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dotmac_database.errors import (
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    TransactionError,
    ValidationError,
)
from dotmac_database.execution.state import state_of, sync_session
from dotmac_database.retry import RetryAttempt, RetryPolicy, with_retry
from dotmac_database.transactions import TransactionManager, TransactionOptions, on_commit

SERIALIZABLE = TransactionOptions(isolation_level="SERIALIZABLE")


class MineError(Exception):
    """The user's own."""


@pytest.fixture
def records() -> list[RetryAttempt]:
    return []


@pytest.fixture
def manager(world: Any, records: list[RetryAttempt]) -> TransactionManager:
    """Waits between attempts, and fails the test if a connection is held meanwhile."""
    held: list[int] = []
    policy = RetryPolicy(
        max_attempts=4, base_delay=0.005, hooks=(records.append, lambda _: held.append(world.checked_out()))
    )
    manager = TransactionManager(world.maker, policy=policy)
    manager.held = held  # type: ignore[attr-defined]  # for the tests
    return manager


@pytest.fixture
def other(urls: dict[str, str]) -> Iterator[Callable[[str], Any]]:
    """Runs a statement on another connection, and commits it."""
    engine = create_engine(urls["sync"], connect_args={"timeout": 0.05} if "sqlite" in urls["sync"] else {})

    def run(statement: str) -> Any:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None

    yield run
    engine.dispose()


def insert(session: Session, world: Any, name: str) -> str:
    session.add(world.Account(name=name))
    session.flush()
    return name


def postgresql_only(world: Any) -> None:
    if world.dialect != "postgresql":
        pytest.skip("PostgreSQL's")


def test_commits_and_returns_the_result_on_a_session_of_the_factory(world: Any, manager: Any) -> None:
    assert world.retrying(manager, lambda s: insert(s, world, "a")) == "a"
    assert world.names() == ["a"]
    assert world.checked_out() == 0


def test_on_a_given_session(world: Any, manager: Any) -> None:
    with world.session() as session:
        world.retrying(manager, lambda s: insert(s, world, "a"), session)
        assert not session.in_transaction()
    assert world.names() == ["a"]


def test_a_mapped_result_keeps_its_values(world: Any, manager: Any) -> None:
    def make(session: Session) -> Any:
        account = world.Account(name="a")
        session.add(account)
        return [account]

    (account,) = world.retrying(manager, make)
    assert (account.name, account.id) == ("a", 1)


@pytest.mark.parametrize("given", [False, True], ids=["factory", "session"])
def test_a_lost_serialization_race_begins_anew(
    world: Any, manager: Any, records: list[RetryAttempt], other: Any, given: bool
) -> None:
    postgresql_only(world)
    manager.options = SERIALIZABLE
    other("INSERT INTO tx_accounts (id, name) VALUES (1, 'start')")

    def rename(session: Session) -> str:
        account = session.scalars(select(world.Account)).one()
        if len(records) < 2:
            other(f"UPDATE tx_accounts SET name = 'other {len(records)}'")
        account.name = f"{account.name}, and mine"
        session.flush()
        return str(account.name)

    if given:
        with world.session() as session:
            assert world.retrying(manager, rename, session) == "other 1, and mine"
    else:
        assert world.retrying(manager, rename) == "other 1, and mine"
    assert world.names() == ["other 1, and mine"]
    assert [record.outcome for record in records] == ["retrying", "retrying", "succeeded"]
    assert records[0].error.sqlstate == "40001"  # type: ignore[union-attr]  # a TransactionError
    assert manager.held[:2] == [0, 0]


def test_a_race_that_is_lost_at_commit(world: Any, manager: Any, records: list[RetryAttempt], other: Any) -> None:
    """Write skew: each reads what the other writes; PostgreSQL may tell one of them at COMMIT only."""
    postgresql_only(world)
    manager.options = SERIALIZABLE
    other("INSERT INTO tx_accounts (id, name) VALUES (1, 'a'), (2, 'b')")
    rival = sessionmaker(create_engine(world.urls["sync"], isolation_level="SERIALIZABLE"))

    def skew(session: Session) -> None:
        session.execute(text("SELECT count(*) FROM tx_accounts")).all()
        if not records:
            with rival() as second:
                second.execute(text("SELECT count(*) FROM tx_accounts")).all()
                second.execute(text("UPDATE tx_accounts SET parent_id = 2 WHERE id = 2"))
                session.execute(text("UPDATE tx_accounts SET parent_id = 1 WHERE id = 1"))
                second.commit()
            second.get_bind().dispose()
        else:
            session.execute(text("UPDATE tx_accounts SET parent_id = 1 WHERE id = 1"))

    world.retrying(manager, skew)
    assert [record.outcome for record in records] == ["retrying", "succeeded"]
    assert records[0].error.sqlstate == "40001"  # type: ignore[union-attr]  # a TransactionError


def test_a_deadlock_is_resolved(world: Any, manager: Any, records: list[RetryAttempt], other: Any) -> None:
    postgresql_only(world)
    other("INSERT INTO tx_accounts (id, name) VALUES (1, 'a'), (2, 'b')")
    has_first, rival_done = threading.Event(), threading.Event()
    engine = create_engine(world.urls["sync"])

    def rival() -> None:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL deadlock_timeout = '1h'"))  # the other one is the victim
            connection.execute(text("UPDATE tx_accounts SET parent_id = 2 WHERE id = 2"))
            has_first.set()
            connection.execute(text("UPDATE tx_accounts SET parent_id = 2 WHERE id = 1"))
        rival_done.set()

    thread = threading.Thread(target=rival)

    def work(session: Session) -> None:
        session.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
        session.execute(text("UPDATE tx_accounts SET parent_id = 1 WHERE id = 1"))
        if not records:
            thread.start()
            assert has_first.wait(60)
            # The server looks for a deadlock only once in each wait, so the rival must be waiting by then.
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            while not other(waiting):
                time.sleep(0.01)
        session.execute(text("UPDATE tx_accounts SET parent_id = 1 WHERE id = 2"))

    try:
        world.retrying(manager, work)
    finally:
        thread.join(60)
        engine.dispose()
    assert rival_done.is_set()
    assert [record.outcome for record in records][-1] == "succeeded"
    assert records[0].error.sqlstate == "40P01"  # type: ignore[union-attr]  # a TransactionError


def test_a_busy_sqlite_is_waited_for(world: Any, manager: Any, records: list[RetryAttempt]) -> None:
    if world.dialect != "sqlite":
        pytest.skip("SQLite's")
    engine = create_engine(world.urls["sync"])
    blocker = engine.connect()
    blocker.exec_driver_sql("BEGIN IMMEDIATE")

    def work(session: Session) -> str:
        if records:
            blocker.rollback()
        return insert(session, world, "a")

    assert world.retrying(manager, work) == "a"
    blocker.close()
    engine.dispose()
    assert [record.outcome for record in records] == ["retrying", "succeeded"]
    assert isinstance(records[0].error, TransactionError)
    assert manager.held[0] == 0


@pytest.mark.parametrize("given", [False, True], ids=["factory", "session"])
def test_a_connection_that_is_lost_in_the_middle(
    world: Any, manager: Any, records: list[RetryAttempt], other: Any, given: bool
) -> None:
    postgresql_only(world)

    def work(session: Session) -> str:
        insert(session, world, f"try {len(records)}")
        if len(records) < 2:
            other(f"SELECT pg_terminate_backend({session.scalar(text('SELECT pg_backend_pid()'))}, 1000)")
        session.execute(text("SELECT 1"))
        return "done"

    if given:
        with world.session() as session:
            assert world.retrying(manager, work, session) == "done"
    else:
        assert world.retrying(manager, work) == "done"
    assert world.names() == ["try 2"]
    assert isinstance(records[0].error, DatabaseUnavailableError)


def test_a_connection_that_is_lost_in_a_savepoint_takes_the_outer_block_with_it(world: Any, other: Any) -> None:
    """Also when the failure of the inner one is swallowed: nothing of the outer one may be committed without it."""
    postgresql_only(world)
    with world.session() as session:
        with pytest.raises(DatabaseError), world.transaction(session):
            world.add(session, "outer")
            with pytest.raises(DatabaseUnavailableError), world.transaction(session):
                world.add(session, "inner")
                pid = world.do(session.scalar(text("SELECT pg_backend_pid()")))
                other(f"SELECT pg_terminate_backend({pid}, 1000)")
                world.do(session.execute(text("SELECT 1")))
        assert not session.in_transaction()
        with world.transaction(session):
            world.add(session, "next")
    assert world.names() == ["next"]


@pytest.fixture
def dies_at_commit(world: Any, other: Any) -> Iterator[None]:
    """The next transaction that inserts a row named 'fatal…' loses its connection while COMMIT runs."""
    postgresql_only(world)
    other("CREATE TABLE IF NOT EXISTS tx_deaths (n int)")
    other("CREATE SEQUENCE IF NOT EXISTS tx_dying")  # sequences survive the rollback
    other(
        """CREATE OR REPLACE FUNCTION tx_die() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.name LIKE 'fatal%' AND nextval('tx_dying') = 1 THEN
                PERFORM pg_terminate_backend(pg_backend_pid());
                PERFORM pg_sleep(1);
            END IF;
            RETURN NULL;
        END $$"""
    )
    other(
        "CREATE CONSTRAINT TRIGGER tx_dies AFTER INSERT ON tx_accounts DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION tx_die()"
    )
    yield
    other("DROP SEQUENCE tx_dying")


@pytest.mark.usefixtures("dies_at_commit")
def test_a_connection_that_is_lost_during_commit_leaves_the_outcome_unknown(
    world: Any, manager: Any, records: list[RetryAttempt]
) -> None:
    seen: list[str] = []

    def work(session: Session) -> None:
        insert(session, world, "fatal")
        on_commit(session, lambda: seen.append("committed"))

    with pytest.raises(TransactionError) as raised:
        world.retrying(manager, work)
    assert raised.value.outcome == "unknown"
    assert raised.value.__cause__ is not None
    assert [record.outcome for record in records] == ["failed"]
    assert seen == []
    assert world.checked_out() == 0


@pytest.mark.usefixtures("dies_at_commit")
def test_it_is_tried_again_where_that_does_no_harm(world: Any, manager: Any, records: list[RetryAttempt]) -> None:
    world.retrying(manager, lambda s: insert(s, world, "fatal"), idempotent=True)
    assert [record.outcome for record in records] == ["retrying", "succeeded"]
    assert world.names() == ["fatal"]


@pytest.mark.usefixtures("dies_at_commit")
def test_with_retry_knows_a_commit_by_hand_from_another_statement(world: Any) -> None:
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        insert(session, world, "fatal")
        session.commit()

    with world.session() as session, pytest.raises(TransactionError) as raised:
        if world.runner is None:
            with_retry(RetryPolicy(base_delay=0.0))(work)(session)
        else:

            @with_retry(RetryPolicy(base_delay=0.0))
            async def async_work(session: Any) -> None:
                await session.run_sync(work)

            world.do(async_work(session))
    assert raised.value.outcome == "unknown"
    assert len(calls) == 1


@pytest.mark.parametrize("error", [MineError("own"), ConnectionError("another network's"), DatabaseTimeoutError()])
def test_other_failures_are_not_tried_again_and_leave_unchanged(
    world: Any, manager: Any, records: list[RetryAttempt], error: Exception
) -> None:
    def work(session: Session) -> None:
        insert(session, world, "a")
        raise error

    with pytest.raises(type(error)) as raised:
        world.retrying(manager, work)
    assert raised.value is error
    assert len(records) == 1
    assert world.names() == []


def test_answers_of_the_database_are_not_tried_again(world: Any, manager: Any, records: list[RetryAttempt]) -> None:
    world.retrying(manager, lambda s: insert(s, world, "a"))
    with pytest.raises(DuplicateEntityError):
        world.retrying(manager, lambda s: insert(s, world, "a"))

    def orphan(session: Session) -> None:
        session.add(world.Account(name="orphan", parent_id=99))

    with pytest.raises(ConstraintViolationError):
        world.retrying(manager, orphan)
    assert [record.number for record in records] == [1, 1, 1]


def test_it_gives_up(world: Any, manager: Any, records: list[RetryAttempt]) -> None:
    def work(session: Session) -> None:
        insert(session, world, "a")
        raise TransactionError("lost", transient=True)

    with pytest.raises(TransactionError) as raised:
        world.retrying(manager, work)
    assert len(records) == 4
    assert raised.value.__notes__[0].startswith("Gave up after 4 attempts")
    assert world.names() == []


def test_inside_an_outer_transaction_there_is_one_attempt_in_a_savepoint(
    world: Any, manager: Any, records: list[RetryAttempt]
) -> None:
    def work(session: Session) -> None:
        insert(session, world, "inner")
        raise TransactionError("lost", transient=True)

    with world.session() as session, world.transaction(session):
        world.add(session, "outer")
        with pytest.raises(TransactionError) as raised:
            world.retrying(manager, work, session)
        assert raised.value.__notes__[0].startswith("Not retried: it is part of a transaction")
    assert len(records) == 1
    assert world.names() == ["outer"]


def test_what_the_session_wrote_before_is_not_lost_to_a_retry(world: Any, manager: Any) -> None:
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(session.execute(text("SELECT 1")).scalar_one())
        if len(calls) == 1:
            raise TransactionError("lost", transient=True)

    with world.session() as session:
        world.add(session, "before")
        with pytest.raises(TransactionError):
            world.retrying(manager, work, session)
        assert len(calls) == 1
        assert not session.in_transaction()


@pytest.mark.parametrize("true_begin", [False, True])
def test_what_the_session_read_before_does_not_stand_in_the_way(world: Any, manager: Any, true_begin: bool) -> None:
    """On SQLite also where the engine sends BEGIN for reads, as the toolkit's own does."""
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(1)
        insert(session, world, "a")
        if len(calls) == 1:
            raise TransactionError("lost", transient=True)

    with world.session() as session:
        state_of(sync_session(session))  # as any use of the toolkit does
        if true_begin:
            world.do(session.execute(text("BEGIN" if world.dialect == "sqlite" else "SELECT 1")))
        world.do(session.execute(select(world.Account)))
        assert session.in_transaction()
        world.retrying(manager, work, session)
    assert world.names() == ["a"]
    assert len(calls) == 2


def test_a_function_with_retries_of_its_own_is_not_retried_twice(world: Any, manager: Any) -> None:
    calls: list[int] = []

    @with_retry(RetryPolicy(max_attempts=5, base_delay=0.0))
    def work(session: Session) -> None:
        calls.append(1)
        insert(session, world, "a")
        raise TransactionError("lost", transient=True)

    with pytest.raises(TransactionError):
        world.retrying(manager, work)
    assert len(calls) == 4


def test_a_failing_commit_callback_is_no_reason_to_run_it_again(world: Any, manager: Any) -> None:
    def broken() -> None:
        raise DatabaseUnavailableError

    def work(session: Session) -> None:
        insert(session, world, "a")
        on_commit(session, broken)

    world.retrying(manager, work)
    assert world.names() == ["a"]


def test_cancelled_while_it_waits(world: Any) -> None:
    if world.runner is None:
        pytest.skip("asyncio's")
    retrying = asyncio.Event()
    policy = RetryPolicy(base_delay=600.0, max_delay=600.0, hooks=(lambda _: retrying.set(),))
    manager = TransactionManager(world.maker, policy=policy)
    calls: list[int] = []

    async def work(session: Any) -> None:
        calls.append(1)
        await session.execute(text("SELECT 1"))
        raise TransactionError("lost", transient=True)

    async def main() -> None:
        task = asyncio.create_task(manager.async_execute_with_retry(work))
        await retrying.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    world.do(main())
    assert len(calls) == 1


def test_blocks_of_the_manager(world: Any, manager: Any) -> None:
    kind = "sync_transaction" if world.runner is None else "async_transaction"
    block = getattr(manager, kind)
    with world.session() as session:
        with world.entered(block(session)) as tx:
            assert tx is session
            world.add(tx, "a")
        with pytest.raises(MineError), world.entered(block(session)):
            world.add(session, "b")
            raise MineError
    with world.entered(block()) as made:
        world.add(made, "c")
    assert world.names() == ["a", "c"]


def test_neither_a_session_nor_a_factory_is_told(world: Any) -> None:
    manager = TransactionManager()
    kind, factory = ("a Session", "sessions") if world.runner is None else ("an AsyncSession", "async_sessions")
    words = rf"neither a session nor a session_factory. Pass {kind} as .*TransactionManager\(database\.{factory}\)"
    with pytest.raises(TransactionError, match=words):
        world.retrying(manager, lambda _: None)


def test_the_managers_options_are_those_of_each_transaction(world: Any, records: list[RetryAttempt]) -> None:
    postgresql_only(world)
    policy = RetryPolicy(max_attempts=2, base_delay=0.0, hooks=(records.append,))
    manager = TransactionManager(world.maker, policy=policy, options=SERIALIZABLE)
    levels: list[str] = []

    def work(session: Session) -> None:
        levels.append(session.execute(text("SHOW transaction_isolation")).scalar_one())
        if len(levels) == 1:
            raise TransactionError("lost", transient=True)

    world.retrying(manager, work)
    assert levels == ["serializable"] * 2


def test_the_hooks_have_the_operations_name(world: Any, manager: Any, records: list[RetryAttempt]) -> None:
    class Work:
        def __call__(self, _session: Any) -> Any:
            return done() if world.runner is not None else None

    async def done() -> None:
        return None

    def place_order(_session: Any) -> Any:
        return done() if world.runner is not None else None

    method = manager.execute_with_retry if world.runner is None else manager.async_execute_with_retry
    for operation in (Work(), place_order):
        world.do(method(operation))
    assert [record.operation.rpartition(".")[2] for record in records] == ["Work", "place_order"]


def test_on_a_scoped_session(world: Any, manager: Any) -> None:
    kind = scoped_session if world.runner is None else async_scoped_session
    scope: dict[str, Any] = {} if world.runner is None else {"scopefunc": lambda: 1}
    scoped = kind(world.maker, **scope)

    async def nothing() -> None:
        return None

    def work(name: str) -> Any:
        def add(session: Any) -> Any:
            session.add(world.Account(name=name))
            return nothing() if world.runner is not None else None

        return add

    method = "execute_with_retry" if world.runner is None else "async_execute_with_retry"
    world.do(getattr(manager, method)(work("a"), scoped))
    world.do(getattr(TransactionManager(lambda: scoped), method)(work("b")))
    world.do(scoped.remove())
    assert world.names() == ["a", "b"]


def test_a_factory_or_session_of_the_other_face_is_told(world: Any) -> None:
    wrong = TransactionManager(Session if world.runner is not None else lambda: "no session")
    made = "a Session; this needs an AsyncSession" if world.runner is not None else "a str; this needs a Session"
    with pytest.raises(TransactionError, match=f"made {made}"):
        world.retrying(wrong, lambda _: None)
    with pytest.raises((TransactionError, ValidationError), match="was expected, not str"):
        world.retrying(TransactionManager(), lambda _: None, "no session")


def test_a_coroutine_function_in_the_sync_method_is_told() -> None:
    async def work(session: Any) -> None:
        """Never run."""

    with pytest.raises(TransactionError, match="async_execute_with_retry"):
        TransactionManager(Session).execute_with_retry(work)


def test_the_contracts_arguments_make_the_policy() -> None:
    policy = TransactionManager(None, 5, 0.5, 3.0).policy
    assert (policy.max_attempts, policy.base_delay, policy.multiplier) == (6, 0.5, 3.0)
    with pytest.raises(ValidationError, match="max_retries") as raised:
        TransactionManager(max_retries=-1)
    assert raised.value.field == "max_retries"
    policy = TransactionManager().policy
    assert (policy.max_attempts, policy.base_delay, policy.multiplier) == (4, 1.0, 2.0)
    assert TransactionManager(max_retries=0).policy.max_attempts == 1
    assert issubclass(TransactionError, DatabaseError)
