"""Writes of one statement: sent without a transaction around them, where nothing needs one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import (
    DatabaseTransaction,
    DuplicateEntityError,
    EntityNotFoundError,
    StaleEntityError,
    TransactionError,
    on_commit,
)
from tests.conftest import Face, counted
from tests.models import Country, Post, User


@pytest.fixture(scope="module")
def dialect() -> str:
    """SQLite's BEGIN costs no message."""
    return "postgresql"


@pytest.fixture
def user(face: Face) -> Any:
    with face.session() as session:
        return face(face.repository(session, User, "a").create, {"name": "n", "email": "n@x", "score": 1})


def words(sent: list[str]) -> list[str]:
    return [each.split()[0] for each in sent]


def rows(face: Face) -> int:
    with face.session() as session:
        return int(face(face.repository(session, User, "a").count))


def sync_of(face: Face, session: Any) -> Any:
    return session.sync_session if face.is_async else session


def test_what_fails_leaves_nothing_and_the_session_usable(face: Face, user: Any) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        with pytest.raises(DuplicateEntityError):
            face(users.create, {"name": "m", "email": "n@x"})
        assert not session.in_transaction()
        with pytest.raises(EntityNotFoundError):
            face(users.update, "00000000-0000-0000-0000-000000000000", {"name": "m"})
        with pytest.raises(StaleEntityError):
            face(users.update, user.id, {"name": "m"}, expected_version=7)
        assert not session.in_transaction()
        assert face(users.create, {"name": "m", "email": "m@x"}).name == "m"
        assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert rows(face) == 2


def test_the_next_user_of_the_connection_has_transactions(face: Face, user: Any) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        face(users.update, user.id, {"score": 2})
        with pytest.raises(LookupError):
            fail(face, session, users, user)
        assert face(users.get_by_id, user.id).score == 2


def fail(face: Face, session: Any, users: Any, user: Any) -> None:
    block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    with face.entered(block(session)):
        face(users.update, user.id, {"score": 3})
        raise LookupError


AROUND = ["before_commit", "before_flush", "after_flush", "after_flush_postexec", "after_begin"]


@pytest.mark.parametrize("name", AROUND)
def test_what_listeners_send_is_in_the_same_transaction(face: Face, user: Any, name: str) -> None:
    """As an outbox does: if the write fails, what was sent with it must be gone."""
    with face.session() as session:
        heard: list[Any] = []
        event.listen(sync_of(face, session), name, lambda *given: heard.append(given))
        with counted(face.engine) as sent:
            face(face.repository(session, User, "a").create, {"name": "m"})
    assert heard
    assert words(sent)[0] == "BEGIN"
    assert words(sent)[-1] == "COMMIT"


@pytest.mark.parametrize("name", ["before_insert", "after_insert", "before_update", "after_update"])
def test_what_listeners_to_rows_send_is_in_the_same_transaction(face: Face, user: Any, name: str) -> None:
    def audit(_mapper: Any, connection: Any, target: Any) -> None:
        connection.execute(text("INSERT INTO countries VALUES ('xx', 'audit')"))

    event.listen(User, name, audit)
    try:
        with face.session() as session:
            users = face.repository(session, User, "a")
            other = face(users.bulk_create, [{"name": "o", "email": "o@x"}])[0]
            write = [users.create] if name.endswith("insert") else [users.update, other.id]
            with counted(face.engine) as sent, pytest.raises(DuplicateEntityError):
                face(*write, {"name": "m", "email": "n@x"})
        assert words(sent)[0] == "BEGIN"
        with face.session() as session:
            assert face(face.repository(session, Country).count) == 0
    finally:
        event.remove(User, name, audit)


class Family(DeclarativeBase):
    """Rows that bring others with them."""


class Child(Family):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None]


class Parent(Family):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    children: Mapped[list[Child]] = relationship(
        primaryjoin="Parent.id == foreign(Child.parent_id)", cascade="all, delete-orphan"
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.children.append(Child(id=self.id))


@pytest.fixture
def family(face: Face) -> Iterator[None]:
    Family.metadata.create_all(face.database.engine)
    yield
    Family.metadata.drop_all(face.database.engine)


@pytest.mark.usefixtures("family")
def test_a_row_that_brings_others_is_written_with_them_or_not_at_all(face: Face) -> None:
    with face.session() as session:
        parents, children = face.repository(session, Parent), face.repository(session, Child)
        face(children.create, {"id": 5})
        with counted(face.engine) as sent:
            face(parents.create, {"id": 1})
        assert words(sent) == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
        with pytest.raises(DuplicateEntityError):
            face(parents.create, {"id": 5})
        assert face(parents.count) == 1


def test_a_callback_after_the_commit_comes_after_it(face: Face, user: Any) -> None:
    told: list[str] = []
    with face.session() as session:
        users = face.repository(session, User, "a")
        block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
        with face.entered(block(session)):
            on_commit(session, lambda: told.append("first"))
            face(users.update, user.id, {"score": 2})
        face(users.update, user.id, {"score": 3})
        assert told == ["first"]
        assert face(users.get_by_id, user.id).score == 3


def last(face: Face, session: Any, write: Any, *arguments: Any) -> list[bool]:
    """Call a write as the last one of its block: whether a transaction is open afterwards, and after the block."""
    block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    with face.entered(block(session, lazy=True)):
        with DatabaseTransaction.last_write(session):
            face(write, *arguments)
        begun = [session.in_transaction()]
    return [*begun, session.in_transaction()]


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
def test_the_last_write_of_a_lazy_block_is_committed_at_once(face: Face, user: Any) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        assert last(face, session, users.create, {"name": "m"}) == [False, False]
        assert last(face, session, users.update, user.id, {"score": 2}) == [False, False]
        assert last(face, session, users.delete, user.id) == [False, False]
        with pytest.raises(DuplicateEntityError):
            last(face, session, users.create, {"name": "m", "id": user.id})
        assert not session.in_transaction()
    assert rows(face) == 1


@pytest.mark.parametrize("why", ["callback", "listener", "not lazy", "inner", "written", "auto_commit"])
def test_the_last_write_is_part_of_the_transaction_if_that_has_more_than_one_statement(
    face: Face, user: Any, why: str
) -> None:
    block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    with face.session() as session:
        users = face.repository(session, User, "a")
        if why == "callback":
            on_commit(session, list)
        elif why == "listener":
            event.listen(sync_of(face, session), "before_commit", lambda *_: None)
        elif why == "auto_commit":
            users.auto_commit = False
        with suppress(LookupError), face.entered(block(session, lazy=why != "not lazy")):
            if why == "written":
                face(users.create, {"name": "l"})
            with face.entered(block(session, lazy=True)) if why == "inner" else nullcontext():
                with DatabaseTransaction.last_write(session):
                    face(users.create, {"name": "m"})
                assert session.in_transaction()
            raise LookupError
        assert not session.in_transaction()
    assert rows(face) == 1


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
def test_a_guarded_session_writes_its_own_tenants_row_alone(face: Face, user: Any) -> None:
    with face.guarded() as session, counted(face.engine) as sent:
        others = face.repository(session, User, "b")
        with pytest.raises(EntityNotFoundError):
            face(others.update, user.id, {"name": "stolen"})
        face(others.create, {"name": "own"})
        assert not face(others.delete, user.id)
    assert words(sent) == ["UPDATE", "INSERT", "UPDATE"]
    assert rows(face) == 1


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
def test_a_connection_lost_in_the_statement_leaves_the_outcome_open(face: Face, user: Any) -> None:
    """The server ends the connection while the UPDATE waits for a lock: nobody can tell whether it was committed."""
    engine = face.database.engine
    with face.session() as session, engine.connect() as holder:
        holder.execute(text("SELECT 1 FROM users FOR UPDATE"))

        def end() -> None:
            with engine.connect() as killer:
                while not stopped.is_set():
                    waiting = killer.scalar(
                        text(
                            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
                        )
                    )
                    killer.rollback()
                    if waiting:
                        return
                    stopped.wait(0.02)

        stopped = threading.Event()
        thread = threading.Thread(target=end)
        thread.start()
        try:
            with pytest.raises(TransactionError) as caught:
                face(face.repository(session, User, "a").update, user.id, {"score": 9})
        finally:
            stopped.set()
            thread.join()
        assert caught.value.outcome == "unknown"
        assert caught.value.__cause__ is not None
        holder.rollback()
        assert face(face.repository(session, User, "a").update, user.id, {"score": 5}).score == 5


def test_a_class_with_children_is_deleted_in_a_transaction(face: Face, user: Any) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        face(posts.create, {"id": 1, "title": "t", "author_id": user.id})
        with counted(face.engine) as sent:
            face(posts.delete, 1, soft_delete=False)
    assert words(sent)[0] == "BEGIN"
