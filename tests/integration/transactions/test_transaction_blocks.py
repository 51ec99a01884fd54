"""Transaction blocks: what is committed, what is not, and which exception says so."""

# ruff: noqa: PT012  # the block that an exception leaves is what is tested
from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from sqlalchemy import event, exc, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from dotmac_database.errors import ConstraintViolationError, DuplicateEntityError, TransactionError, ValidationError
from dotmac_database.execution.state import state_of, sync_session
from dotmac_database.repositories import BaseRepository
from dotmac_database.transactions import DatabaseTransaction


class MineError(Exception):
    """The user's own."""


def test_commits_at_the_end_and_gives_the_session(world: Any) -> None:
    with world.session() as session:
        with world.transaction(session) as tx:
            assert tx is session
            world.add(tx, "a")
            assert world.names() == []
        assert not session.in_transaction()
        assert world.checked_out() == 0
    assert world.names() == ["a"]


@pytest.mark.parametrize(
    "error", [MineError("own"), StopIteration(3), KeyError("k"), OSError("the user's"), KeyboardInterrupt()]
)
def test_the_users_exception_leaves_unchanged(world: Any, error: BaseException) -> None:
    with world.session() as session:
        with pytest.raises(type(error)) as raised, world.transaction(session):
            world.add(session, "a")
            with world.transaction(session):
                raise error
        assert raised.value is error
        assert error.__cause__ is None
        assert not hasattr(error, "__notes__")
        assert not session.in_transaction()
        with world.transaction(session):
            world.add(session, "b")
    assert world.names() == ["b"]


def test_a_database_error_of_the_users_own_statement_leaves_as_the_toolkits(world: Any) -> None:
    with world.session() as session:
        with pytest.raises(DuplicateEntityError) as raised, world.transaction(session):
            world.add(session, "secret")
            world.add(session, "secret")
        assert "secret" not in str(raised.value)
        assert type(raised.value.__cause__).__module__.split(".")[0] in ("sqlite3", "psycopg", "asyncpg")
        with world.transaction(session):
            world.add(session, "b")
    assert world.names() == ["b"]


def test_a_cancellation_during_the_rollback_is_not_lost(world: Any) -> None:
    if world.runner is None:
        pytest.skip("asyncio's")

    async def work(session: Any) -> None:
        async with DatabaseTransaction.async_transaction(session):
            session.add(world.Account(name="a"))
            await session.flush()
            raise MineError

    async def main() -> None:
        async with world.maker() as session:
            task = asyncio.ensure_future(work(session))
            event.listen(world.engine.sync_engine, "rollback", lambda _: task.cancel(), once=True)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not session.in_transaction()

    world.do(main())
    assert world.names() == []


def test_exceptions_of_sqlalchemy_that_are_no_database_errors_are_left_alone(world: Any) -> None:
    with world.session() as session, pytest.raises(exc.NoResultFound), world.transaction(session):
        world.do(session.execute(select(world.Account))).one()


def test_a_constraint_that_fails_at_commit(world: Any) -> None:
    with world.session() as session:
        with pytest.raises(ConstraintViolationError) as raised, world.transaction(session):
            world.add(session, "orphan", parent_id=99)
            reached = True
        assert reached, "it is COMMIT that fails"
        assert raised.value.__cause__ is not None
        assert not session.in_transaction()
        assert world.checked_out() == 0
        with world.transaction(session):
            world.add(session, "b")
    assert world.names() == ["b"]


def test_a_swallowed_error_never_commits_half(world: Any) -> None:
    with world.session() as session, pytest.raises(TransactionError), world.transaction(session):
        world.add(session, "a")
        with pytest.raises(exc.IntegrityError):
            world.add(session, "a")
    assert world.names() == []


def test_a_failed_statement_by_hand_that_was_swallowed_commits_nothing_on_postgresql(world: Any) -> None:
    """PostgreSQL answers COMMIT with a silent ROLLBACK then; SQLite undoes the statement alone."""
    insert = text("INSERT INTO tx_accounts (id, name) VALUES (1, 'a')")

    def body(session: Any) -> None:
        world.do(session.execute(insert))
        with pytest.raises(exc.IntegrityError):
            world.do(session.execute(insert))

    with world.session() as session:
        if world.dialect == "sqlite":
            with world.transaction(session):
                body(session)
        else:
            with pytest.raises(TransactionError), world.transaction(session):
                body(session)
    assert world.names() == (["a"] if world.dialect == "sqlite" else [])


def test_repositories_with_auto_commit_only_flush_inside(world: Any) -> None:
    with world.session() as session:
        one, two = world.repository(session), world.repository(session)
        with pytest.raises(MineError), world.transaction(session):
            world.do(one.create({"name": "a"}))
            world.do(two.create({"name": "b"}))
            assert world.names() == []
            raise MineError
        assert world.names() == []
        with world.transaction(session):
            made = world.do(one.create({"name": "a"}))
            with pytest.raises(DuplicateEntityError):
                world.do(two.create({"name": "a"}))
            world.do(two.create({"name": "b"}))
        assert (made.name, made.id) == ("a", made.id)
        assert world.names() == ["a", "b"]
        world.do(one.create({"name": "c"}))
    assert world.names() == ["a", "b", "c"]


def test_a_block_leaves_the_savepoints_of_writes_as_they_were(world: Any) -> None:
    with world.session() as session:
        one = world.repository(session)
        with world.transaction(session):
            with world.transaction(session, savepoints=False):
                world.do(one.create({"name": "a"}))
            with pytest.raises(DuplicateEntityError):
                world.do(one.create({"name": "a"}))
            world.do(one.create({"name": "b"}))
        with world.entered(session.begin()):
            with pytest.raises(DuplicateEntityError):
                world.do(one.create({"name": "a"}))
            world.do(one.create({"name": "c"}))
    assert world.names() == ["a", "b", "c"]


def test_objects_after_a_rollback(world: Any) -> None:
    """An `AsyncSession` can't load expired values implicitly, so it keeps them; a `Session` loads them again."""
    with world.session() as session:
        world.add(session, "a")
        world.do(session.commit())
        account = world.do(session.scalars(select(world.Account))).one()
        world.do(session.rollback()) if world.runner is None else None
        with pytest.raises(MineError), world.transaction(session):
            account.name = "changed"
            world.do(session.flush())
            raise MineError
        with world.session() as other:
            world.do(other.execute(text("UPDATE tx_accounts SET name = 'another'")))
            world.do(other.commit())
        assert account.name == ("another" if world.runner is None else "a")


def test_atomic_over_both_faces_of_one_session(world: Any) -> None:
    if world.runner is None:
        pytest.skip("an AsyncSession has both")

    def sync_work(session: Session) -> None:
        BaseRepository(session, world.Account).create({"name": "by the sync face"})
        with DatabaseTransaction.sync_transaction(session):
            session.add(world.Account(name="in a sync block"))

    with world.session() as session:
        for fails in (True, False):
            with contextlib.suppress(MineError), world.transaction(session):
                world.do(world.repository(session).create({"name": "by the async face"}))
                world.do(session.run_sync(sync_work))
                if fails:
                    raise MineError
            assert len(world.names()) == (0 if fails else 3)


# Nesting


def test_a_block_inside_is_a_savepoint(world: Any) -> None:
    with world.session() as session, world.transaction(session):
        world.add(session, "a")
        with pytest.raises(MineError), world.transaction(session) as inner:
            assert inner is session
            world.add(session, "b")
            with world.transaction(session):
                world.add(session, "c")
            raise MineError
        with world.transaction(session):
            world.add(session, "d")
        with pytest.raises(DuplicateEntityError), world.transaction(session):
            world.add(session, "d")
        world.add(session, "e")
    assert world.names() == ["a", "d", "e"]


def test_a_swallowed_error_dooms_the_savepoint_and_not_the_outer_block(world: Any) -> None:
    with world.session() as session, world.transaction(session):
        world.add(session, "a")
        with pytest.raises(TransactionError, match="earlier error has ended the savepoint"), world.transaction(session):
            world.add(session, "b")
            with pytest.raises(exc.IntegrityError):
                world.add(session, "b")
        world.add(session, "c")
    assert world.names() == ["a", "c"]


def begin_savepoint_by_hand(world: Any, session: Any) -> None:
    savepoint = session.begin_nested()
    if world.runner is not None:
        world.do(savepoint.start())


@pytest.mark.parametrize("fails", [False, True])
def test_a_savepoint_by_hand_that_is_left_open_ends_with_the_block_around_it(world: Any, fails: bool) -> None:
    with world.session() as session, world.transaction(session):
        world.add(session, "a")
        with pytest.raises(MineError) if fails else contextlib.nullcontext(), world.transaction(session):
            world.add(session, "b")
            begin_savepoint_by_hand(world, session)
            begin_savepoint_by_hand(world, session)
            world.add(session, "c")
            if fails:
                raise MineError
        world.add(session, "d")
    assert world.names() == (["a", "d"] if fails else ["a", "b", "c", "d"])


def test_the_outer_block_undoes_released_savepoints(world: Any) -> None:
    with world.session() as session, pytest.raises(MineError), world.transaction(session):
        with world.transaction(session):
            world.add(session, "a")
        raise MineError
    assert world.names() == []


def test_a_savepoint_whose_flush_fails_at_its_end(world: Any) -> None:
    with world.session() as session, world.transaction(session):
        world.add(session, "a")
        with pytest.raises(DuplicateEntityError), world.transaction(session):
            session.add(world.Account(name="a"))
        world.add(session, "b")
    assert world.names() == ["a", "b"]


def test_inside_a_transaction_begun_by_hand_it_is_a_savepoint_and_the_commit_stays_the_users(world: Any) -> None:
    with world.session() as session:
        with world.entered(session.begin()) as hand:
            with world.transaction(session):
                world.add(session, "a")
                world.do(world.repository(session).create({"name": "b"}))
            with pytest.raises(MineError), world.transaction(session):
                world.add(session, "c")
                raise MineError
            assert world.names() == []
            world.do(hand.rollback())
        assert world.names() == []
        with world.entered(session.begin()), world.transaction(session):
            world.add(session, "d")
    assert world.names() == ["d"]


def test_inside_a_savepoint_by_hand_it_is_a_savepoint_too(world: Any) -> None:
    with world.session() as session:
        world.add(session, "a")
        with world.entered(session.begin_nested()), world.transaction(session):
            world.add(session, "b")
        assert session.in_transaction()
        assert world.names() == []
        world.do(session.commit())
    assert world.names() == ["a", "b"]


def test_a_transaction_that_reads_have_opened_is_joined_and_committed(world: Any) -> None:
    with world.session() as session:
        world.do(session.scalar(select(func.count()).select_from(world.Account)))
        assert session.in_transaction()
        with world.transaction(session):
            world.add(session, "a")
        assert not session.in_transaction()
    assert world.names() == ["a"]


def test_pending_objects_of_before_are_part_of_it(world: Any) -> None:
    with world.session() as session:
        session.add(world.Account(name="a"))
        with world.transaction(session):
            world.add(session, "b")
    assert world.names() == ["a", "b"]


def test_a_savepoint_that_was_ended_by_hand_is_told(world: Any) -> None:
    with world.session() as session:
        with (
            pytest.raises(TransactionError, match="ended inside it"),
            world.transaction(session),
            world.transaction(session),
        ):
            world.add(session, "a")
            world.do(session.rollback())
        assert state_of(sync_session(session)).open_blocks == 0
    assert world.names() == []


@pytest.mark.parametrize("by_hand", ["commit", "rollback"])
def test_work_after_an_end_by_hand_is_told_and_not_committed(world: Any, by_hand: str) -> None:
    kept = ["a"] if by_hand == "commit" else []
    with world.session() as session:
        with world.transaction(session):
            world.add(session, "a")
            world.do(getattr(session, by_hand)())
        assert world.names() == kept, "nothing came after it"
        with pytest.raises(TransactionError, match="ended inside it"), world.transaction(session):
            world.do(getattr(session, by_hand)())
            world.add(session, "b")
        assert not session.in_transaction()
    assert world.names() == kept


def test_in_a_lazy_block_a_commit_by_hand_is_the_handlers_own(world: Any) -> None:
    with world.session() as session:
        with world.transaction(session, lazy=True):
            world.add(session, "a")
            world.do(session.commit())
            assert world.names() == ["a"]
            world.add(session, "b")
        assert world.names() == ["a", "b"]


def test_a_block_that_cannot_even_begin_leaves_the_outer_one_alone(world: Any) -> None:
    """A savepoint flushes what is pending; when that fails, what follows must not be committed without it."""
    with world.session() as session, pytest.raises(TransactionError), world.transaction(session):
        world.add(session, "a")
        session.add(world.Account(name="a"))
        with pytest.raises(DuplicateEntityError), world.transaction(session):
            pass
        assert state_of(sync_session(session)).open_blocks == 1
    assert world.names() == []


def test_units_are_counted_whatever_happens(world: Any) -> None:
    with world.session() as session:
        state = state_of(sync_session(session))
        with pytest.raises(MineError), world.transaction(session, lazy=True):
            assert (state.open_blocks, state.lazy) == (1, True)
            with world.transaction(session):
                assert state.open_blocks == 2
            assert (state.open_blocks, state.lazy) == (1, True)
            raise MineError
        assert (state.open_blocks, state.lazy) == (0, False)
        with pytest.raises(ConstraintViolationError), world.transaction(session):
            world.add(session, "orphan", parent_id=99)
        assert state.open_blocks == 0


# Lazy


def test_a_lazy_block_has_no_transaction_before_the_first_write(world: Any) -> None:
    with world.session(expire_on_commit=False) as session:
        repository = world.repository(session)
        with world.transaction(session, lazy=True):
            assert world.do(repository.count()) == 0
            assert not session.in_transaction()
            assert world.checked_out() == 0
            world.do(repository.create({"name": "a"}))
            assert session.in_transaction()
            assert world.names() == []
        assert world.names() == ["a"]
        with pytest.raises(MineError), world.transaction(session, lazy=True):
            world.do(repository.create({"name": "b"}))
            raise MineError
        with world.transaction(session, lazy=True):
            pass
    assert world.names() == ["a"]


def test_a_block_inside_a_lazy_one_is_undone_alone(world: Any) -> None:
    with world.session(expire_on_commit=False) as session, world.transaction(session, lazy=True):
        with pytest.raises(MineError), world.transaction(session):
            world.add(session, "a")
            raise MineError
        with world.transaction(session):
            world.add(session, "b")
        assert world.names() == []
    assert world.names() == ["b"]


def test_a_block_for_the_last_write_ends_before_the_next_one(world: Any) -> None:
    with world.session(expire_on_commit=False) as session:
        repository = world.repository(session)
        with pytest.raises(MineError), world.transaction(session, lazy=True):
            with DatabaseTransaction.last_write(session):
                assert world.do(repository.count()) == 0
            world.do(repository.create({"name": "a"}))
            raise MineError
    assert world.names() == []


# Sessions


def test_scoped_sessions(world: Any) -> None:
    kind = scoped_session if world.runner is None else async_scoped_session
    scope: dict[str, Any] = {} if world.runner is None else {"scopefunc": lambda: 1}
    scoped = kind(world.maker, **scope)
    with world.transaction(scoped) as tx:
        assert tx is scoped
        world.add(scoped, "a")
    assert world.names() == ["a"]
    world.do(scoped.remove())


def test_the_wrong_face_is_told(world: Any) -> None:
    wrong = AsyncSession() if world.runner is None else Session()
    with pytest.raises(TransactionError, match=r"takes a?sync_transaction"):
        world.transaction(wrong).__enter__()
    with pytest.raises(ValidationError):
        DatabaseTransaction.sync_transaction("no session")  # type: ignore[type-var]  # the point


class TestNested:
    """A block on a session that is lent: what is open around it is the lender's."""

    @staticmethod
    def block(world: Any, session: Any) -> Any:
        return world.transaction(session, lazy=True, nested=True)

    @pytest.mark.parametrize("before", ["nothing", "a read", "a write"])
    def test_it_commits_only_what_it_has_begun_itself(self, world: Any, before: str) -> None:
        with world.session() as session:
            if before == "a read":
                world.do(session.execute(text("SELECT 1")))
            elif before == "a write":
                world.add(session, "lender's")
            with self.block(world, session):
                world.add(session, "a")
            assert world.names() == (["a"] if before == "nothing" else [])
            assert session.in_transaction() is (before != "nothing")
            world.do(session.commit())
        assert world.names() == (["lender's", "a"] if before == "a write" else ["a"])

    def test_an_exception_undoes_the_block_alone(self, world: Any) -> None:
        with world.session() as session:
            world.add(session, "lender's")
            with pytest.raises(MineError), self.block(world, session):
                world.add(session, "a")
                raise MineError
            world.do(session.commit())
        assert world.names() == ["lender's"]

    @pytest.mark.parametrize("fails", [False, True])
    def test_what_follows_a_commit_by_hand_is_the_blocks_own(self, world: Any, fails: bool) -> None:
        with world.session() as session:
            world.add(session, "lender's")
            with pytest.raises(MineError) if fails else contextlib.nullcontext(), self.block(world, session):
                world.add(session, "a")
                world.do(session.commit())
                world.add(session, "b")
                if fails:
                    raise MineError
            assert not session.in_transaction()
        assert world.names() == (["lender's", "a"] if fails else ["lender's", "a", "b"])

    def test_a_commit_by_hand_in_the_lenders_block_is_an_error_as_in_any_block(self, world: Any) -> None:
        with (
            world.session() as session,
            pytest.raises(TransactionError),
            world.transaction(session),
            self.block(world, session),
        ):
            world.add(session, "a")
            world.do(session.commit())
        assert world.names() == ["a"]
