"""`on_commit` and `on_rollback`: after the end of the transaction, and only after that end."""

# ruff: noqa: PT012  # the block that an exception leaves is what is tested
from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from dotmac_database.errors import (
    ConstraintViolationError,
    DatabaseError,
    DuplicateEntityError,
    TenantIsolationError,
)
from dotmac_database.execution.state import sync_session
from dotmac_database.repositories import BaseRepository
from dotmac_database.tenancy import guard_tenants, tenant_scope
from dotmac_database.tenancy.context import binding_of
from dotmac_database.transactions import on_commit, on_rollback
from dotmac_database.transactions.hooks import write_before_commit


class MineError(Exception):
    """The user's own."""


def test_callbacks_run_after_the_outermost_commit_in_order(world: Any) -> None:
    seen: list[Any] = []
    with world.session() as session:
        with world.transaction(session):
            on_commit(session, lambda: seen.append((1, world.checked_out())))
            on_rollback(session, lambda: seen.append("rolled back"))
            world.add(session, "a")
            with world.transaction(session):
                on_commit(session, lambda: seen.append(2))
                world.add(session, "b")
            on_commit(session, lambda: seen.append(3))
            assert seen == []
        assert seen == [(1, 0), 2, 3]
        with world.transaction(session):
            world.add(session, "c")
    assert seen == [(1, 0), 2, 3], "each is called once"


def test_no_commit_callback_after_a_rollback_of_its_transaction(world: Any) -> None:
    seen: list[str] = []
    with world.session() as session:
        with pytest.raises(MineError), world.transaction(session):
            on_commit(session, lambda: seen.append("commit"))
            on_rollback(session, lambda: seen.append("rollback"))
            world.add(session, "a")
            raise MineError
        assert seen == ["rollback"]
        with world.transaction(session):
            world.add(session, "b")
    assert seen == ["rollback"]


def test_no_commit_callback_after_a_rollback_of_its_savepoint(world: Any) -> None:
    seen: list[str] = []

    def register(session: Any, name: str) -> None:
        on_commit(session, lambda: seen.append(f"{name} committed"))
        on_rollback(session, lambda: seen.append(f"{name} rolled back"))

    with world.session() as session:
        with world.transaction(session):
            register(session, "outer")
            with pytest.raises(MineError), world.transaction(session):
                register(session, "middle")
                with world.transaction(session):
                    register(session, "inner")
                    world.add(session, "a")
                raise MineError
            assert seen == ["middle rolled back", "inner rolled back"]
            seen.clear()
            with world.transaction(session):
                register(session, "second")
            world.add(session, "b")
        assert seen == ["outer committed", "second committed"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_callback_of_a_session_may_be_that_of_a_savepoint(world: Any, fails: bool) -> None:
    seen: list[str] = []
    with world.session() as session:
        with pytest.raises(MineError) if fails else contextlib.nullcontext(), world.transaction(session):
            with world.transaction(session):
                on_commit(session, lambda: seen.append("committed"))
                on_rollback(session, lambda: seen.append("rolled back"))
                world.add(session, "a")
            assert seen == []
            if fails:
                raise MineError
        assert seen == (["rolled back"] if fails else ["committed"])


def test_a_session_keeps_no_transaction_that_has_ended(world: Any) -> None:
    ended: list[weakref.ref[Any]] = []
    with world.session() as session:
        on_commit(session, lambda: None)
        for fails in (False, True):
            with pytest.raises(MineError) if fails else contextlib.nullcontext(), world.transaction(session):
                ended.append(weakref.ref(sync_session(session).get_transaction()))
                world.add(session, f"outer {fails}")
                with world.transaction(session):
                    ended.append(weakref.ref(sync_session(session).get_nested_transaction()))
                    world.add(session, f"inner {fails}")
                if fails:
                    raise MineError
        gc.collect()
        assert [each() for each in ended] == [None] * 4


def test_a_commit_that_fails_is_a_rollback(world: Any) -> None:
    seen: list[str] = []
    with world.session() as session:
        with pytest.raises(ConstraintViolationError), world.transaction(session):
            on_commit(session, lambda: seen.append("commit"))
            on_rollback(session, lambda: seen.append("rollback"))
            world.add(session, "orphan", parent_id=99)
        assert seen == ["rollback"]


def test_callbacks_follow_commits_and_rollbacks_by_hand(world: Any) -> None:
    seen: list[str] = []
    with world.session() as session:
        world.add(session, "a")
        on_commit(session, lambda: seen.append("one"))
        world.do(session.commit())
        assert seen == ["one"]
        with world.entered(session.begin()):
            world.add(session, "b")
            on_commit(session, lambda: seen.append("two"))
        assert seen == ["one", "two"]
        world.add(session, "c")
        on_commit(session, lambda: seen.append("three"))
        on_rollback(session, lambda: seen.append("undone"))
        world.do(session.rollback())
        assert seen == ["one", "two", "undone"]
        world.add(session, "d")
        on_commit(session, lambda: seen.append("four"))
        on_rollback(session, lambda: seen.append("closed"))
    assert seen == ["one", "two", "undone", "closed"]


def test_before_a_transaction_the_next_one_is_meant_and_no_read_of_its_own(world: Any) -> None:
    seen: list[str] = []
    with world.session(expire_on_commit=False) as session:
        repository = world.repository(session)
        on_commit(session, lambda: seen.append("one"))
        assert world.do(repository.count()) == 0
        assert seen == []
        world.do(repository.create({"name": "a"}))
        assert seen == ["one"]
        with pytest.raises(MineError), world.transaction(session, lazy=True):
            on_commit(session, lambda: seen.append("two"))
            on_rollback(session, lambda: seen.append("undone"))
            assert world.do(repository.count()) == 1
            world.do(repository.create({"name": "b"}))
            raise MineError
        assert seen == ["one", "undone"]
        with world.transaction(session, lazy=True):
            on_commit(session, lambda: seen.append("three"))
            assert world.do(repository.count()) == 1
        assert seen == ["one", "undone", "three"], "a unit that wrote nothing has succeeded too"


def test_a_failing_callback_fails_nothing(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def broken() -> None:
        raise DatabaseError("in the callback")

    with world.session() as session, world.transaction(session):
        on_commit(session, broken)
        on_commit(session, lambda: seen.append("next"))
        world.add(session, "a")
    assert seen == ["next"]
    assert world.names() == ["a"]
    assert "in the callback" in caplog.text
    assert "<locals>.broken" in caplog.text, "the log says which one it was"


def test_a_callback_may_use_the_session_in_a_transaction_of_its_own(world: Any) -> None:
    with world.session() as session:

        def audit() -> None:
            plain = sync_session(session)
            BaseRepository(plain, world.Account).create({"name": "audit"})

        with world.transaction(session):
            on_commit(session, audit)
            world.add(session, "a")
        assert not session.in_transaction()
    assert world.names() == ["a", "audit"]


def test_a_callback_that_is_a_coroutine_function(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def notify() -> None:
        await asyncio.sleep(0)
        seen.append("sent")

    with world.session() as session, world.transaction(session):
        on_commit(session, notify)
        world.add(session, "a")
    assert seen == ([] if world.runner is None else ["sent"])
    assert ("AsyncSession alone" in caplog.text) is (world.runner is None)


@pytest.mark.parametrize("begun", [False, True])
def test_a_guarded_session_keeps_its_tenant_while_a_callback_waits(world: Any, begun: bool) -> None:
    seen: list[object] = []
    session = guard_tenants(type(world.maker)(world.engine))()
    with tenant_scope(session, "a"):
        if begun:
            world.add(session, "a")
        on_commit(session, lambda: seen.append(binding_of(sync_session(session)).tenant))  # type: ignore[union-attr]
    with pytest.raises(TenantIsolationError), tenant_scope(session, "b"):
        pytest.fail("a callback of tenant a waits")
    with tenant_scope(session, "a"):
        world.add(session, "b")
    world.do(session.commit())
    assert seen == ["a"]
    with tenant_scope(session, "b"):
        world.do(session.commit())
    world.do(session.close())
    assert seen == ["a"]


class TestValuesBeforeCommit:
    """`write_before_commit`, by which the outbox writes its messages."""

    def test_all_values_that_were_not_rolled_back_are_written_by_one_call(self, world: Any) -> None:
        written: list[list[object]] = []

        def write(_: Session, values: Sequence[object]) -> None:
            written.append(list(values))

        with world.session() as session:
            with world.transaction(session):
                with world.transaction(session):
                    write_before_commit(session, write, "in the first savepoint")
                write_before_commit(session, write, "outside")
                with world.transaction(session), world.transaction(session):
                    write_before_commit(session, write, "in an inner savepoint")
                with pytest.raises(MineError), world.transaction(session):
                    with world.transaction(session):
                        write_before_commit(session, write, "rolled back")
                    raise MineError
                write_before_commit(session, write, "last")
                assert written == []
            assert written == [["in the first savepoint", "outside", "in an inner savepoint", "last"]]
            with world.transaction(session):
                world.add(session, "a")
            assert len(written) == 1, "each is written once"

    @pytest.mark.parametrize("by_hand", [False, True])
    def test_they_are_written_after_the_flush_and_in_its_transaction(self, world: Any, by_hand: bool) -> None:
        found: list[int] = []

        def write(session: Session, _: Sequence[object]) -> None:
            with session.no_autoflush:
                found.append(session.scalar(select(func.count()).select_from(world.Account)) or 0)

        with world.session() as session, contextlib.nullcontext() if by_hand else world.transaction(session):
            write_before_commit(session, write, 1)
            session.add(world.Account(name="a"))
            if by_hand:
                world.do(session.commit())
        assert found == [1]
        assert world.names() == ["a"]

    @pytest.mark.parametrize("by_hand", [False, True])
    def test_a_failure_to_write_them_is_a_rollback(self, world: Any, by_hand: bool) -> None:
        called: list[str] = []

        def write(session: Session, _: Sequence[object]) -> None:
            session.execute(text("INSERT INTO tx_accounts (id, name) VALUES (9, 'a')"))

        with world.session() as session:
            with pytest.raises(DuplicateEntityError), contextlib.ExitStack() as block:
                if not by_hand:
                    block.enter_context(world.transaction(session))
                on_commit(session, lambda: called.append("committed"))
                on_rollback(session, lambda: called.append("rolled back"))
                world.add(session, "a")
                write_before_commit(session, write, 1)
                if by_hand:
                    world.do(session.commit())
            world.do(session.rollback())
        assert called == ["rolled back"]
        assert world.names() == []
