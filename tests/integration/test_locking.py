"""Pessimistic locks: `for_update` against a second session that wants the same rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from dotmac_database import (
    DatabaseTimeoutError,
    DatabaseTransaction,
    QueryOptions,
    TransactionError,
    ValidationError,
    create_repository,
)
from tests.conftest import Face, counted
from tests.models import Post, User


@pytest.fixture
def users(face: Face) -> list[Any]:
    with face.session() as session:
        rows = [{"name": f"u{n}", "email": f"{n}@x", "score": n} for n in range(4)]
        made: list[Any] = face(face.repository(session, User, "a").bulk_create, rows)
    return made


def transaction(face: Face, session: Any) -> Any:
    block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    return face.entered(block(session))


@contextmanager
def locked_elsewhere(face: Face, key: Any) -> Iterator[None]:
    """Another session holds the row of this key."""
    with face.database.sessions() as other, DatabaseTransaction.sync_transaction(other):
        assert create_repository(other, User, "a").for_update().get_by_id(key) is not None
        yield


def only_postgresql(dialect: str) -> None:
    if dialect != "postgresql":
        pytest.skip("SQLite locks the whole database")


READS = {
    "get_by_id": lambda face, rows, keys: [face(rows.get_by_id, keys[0])],
    "get_many": lambda face, rows, keys: face(rows.get_many, keys),
    "get_by_field": lambda face, rows, keys: [face(rows.get_by_field, "name", "u0")],
    "list_by_field": lambda face, rows, keys: face(rows.list_by_field, "name", "u0"),
    "first": lambda face, rows, keys: [face(rows.first, {"sorts": [{"field": "score"}]})],
    "list": lambda face, rows, keys: face(rows.list, {"relationships": ["posts"]}),
    "list_paginated": lambda face, rows, keys: face(rows.list_paginated, {"pagination": {"per_page": 2}}).items,
    "cursor_paginate": lambda face, rows, keys: face(rows.cursor_paginate, {}).items,
    "stream": lambda face, rows, keys: face(rows.stream, None, 2),
}


@pytest.mark.parametrize("read", READS)
def test_every_read_of_rows_locks_them(face: Face, dialect: str, users: list[Any], read: str) -> None:
    only_postgresql(dialect)
    keys = [user.id for user in users]
    with face.session() as session, transaction(face, session):
        repository = face.repository(session, User, "a").for_update()
        with counted(face.engine) as sent:
            found = READS[read](face, repository, keys)
        assert found
        assert "FOR UPDATE OF users" in next(each for each in sent if each != "BEGIN")
        with face.database.engine.connect() as second:
            free = second.scalars(text("SELECT id FROM users FOR UPDATE SKIP LOCKED")).all()
        assert {row.id for row in found}.isdisjoint(free)


def test_a_lock_is_waited_for(face: Face, users: list[Any]) -> None:
    key = users[0].id
    held, released = threading.Event(), []

    def hold() -> None:
        with locked_elsewhere(face, key):
            held.set()
            time.sleep(0.5)
            released.append(time.monotonic())

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    with face.session() as session, transaction(face, session):
        face(face.repository(session, User, "a").for_update().get_by_id, key)
        got = time.monotonic()
    thread.join()
    assert got > released[0]


def test_no_update_is_lost_between_reading_and_writing(face: Face, users: list[Any]) -> None:
    key = users[0].id

    def add() -> None:
        for _ in range(10):
            with face.database.sessions() as session, DatabaseTransaction.sync_transaction(session):
                rows = create_repository(session, User, "a")
                user = rows.for_update().get_by_id_or_raise(key)
                rows.update(key, {"score": (user.score or 0) + 1})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with face.session() as session:
        assert face(face.repository(session, User, "a").get_by_id, key).score == 40


def test_nowait_says_so_at_once(face: Face, dialect: str, users: list[Any]) -> None:
    only_postgresql(dialect)
    with locked_elsewhere(face, users[0].id), face.session() as session, transaction(face, session):
        rows = face.repository(session, User, "a")
        with (
            pytest.raises(DatabaseTimeoutError),
            transaction(face, session),  # a savepoint, so that the rest can go on
        ):
            face(rows.for_update(nowait=True).get_by_id, users[0].id)  # it would wait for this thread otherwise
        assert face(rows.for_update(nowait=True).get_by_id, users[1].id).id == users[1].id


def test_skip_locked_leaves_out_what_another_has(face: Face, dialect: str, users: list[Any]) -> None:
    only_postgresql(dialect)
    jobs = QueryOptions(sorts=[{"field": "score"}])  # type: ignore[list-item]
    with locked_elsewhere(face, users[0].id), face.session() as session, transaction(face, session):
        rows = face.repository(session, User, "a").for_update(skip_locked=True)
        assert face(rows.first, jobs).id == users[1].id
        assert [user.score for user in face(rows.list, jobs)] == [1, 2, 3]


def test_a_lock_without_a_transaction_is_refused(face: Face, users: list[Any]) -> None:
    with face.session() as session:
        rows = face.repository(session, User, "a")
        with pytest.raises(TransactionError, match="transaction"):
            face(rows.for_update().first)
        assert not session.in_transaction()
        by_hand = face.repository(session, User, "a", auto_commit=False)
        assert face(by_hand.for_update().first) is not None
        assert session.in_transaction()
        face(session.rollback)


def test_the_repository_itself_goes_on_without_locks(face: Face, users: list[Any]) -> None:
    with face.session() as session, transaction(face, session):
        rows = face.repository(session, User, "a")
        with counted(face.engine) as sent:
            face(rows.for_update().with_tenant("b").first)
            face(rows.first)
        locks = [each for each in sent if "FOR UPDATE" in each or each.startswith("DELETE")]
        assert len(locks) == 1


def test_a_locked_row_is_read_anew(face: Face, users: list[Any]) -> None:
    with face.session() as session:
        rows = face.repository(session, User, "a", auto_commit=False)
        seen = face(rows.get_by_id, users[0].id)
        face(session.commit)
        with face.database.sessions() as other:
            create_repository(other, User, "a").update(users[0].id, {"score": 99})
        with transaction(face, session):
            assert face(rows.for_update().get_by_id, users[0].id) is seen
            assert seen.score == 99


def test_tenants_rows_alone_are_locked(face: Face, dialect: str, users: list[Any]) -> None:
    only_postgresql(dialect)
    with face.session() as session:
        foreign = face(face.repository(session, User, "b").create, {"name": "b", "email": "b@x"})
    with face.guarded() as session, transaction(face, session):
        rows = face.repository(session, User, "a").for_update()
        assert face(rows.get_by_id, foreign.id) is None
        assert len(face(rows.list)) == 4
        with face.database.engine.connect() as second:
            free = second.scalars(text("SELECT name FROM users FOR UPDATE SKIP LOCKED")).all()
        assert list(free) == ["b"]


def test_a_relationships_rows_are_not_locked(face: Face, dialect: str, users: list[Any]) -> None:
    only_postgresql(dialect)
    with face.session() as session:
        face(face.repository(session, Post, "a").create, {"id": 1, "title": "t", "author_id": users[0].id})
    with face.session() as session, transaction(face, session):
        face(face.repository(session, User, "a").for_update().get_by_id, users[0].id, relationships=["posts"])
        with face.database.engine.connect() as second:
            assert second.scalars(text("SELECT id FROM posts FOR UPDATE SKIP LOCKED")).all() == [1]


def test_sqlite_takes_its_one_lock_before_it_reads(face: Face, dialect: str, users: list[Any]) -> None:
    if dialect != "sqlite":
        pytest.skip("SQLite's")
    with face.session() as session, transaction(face, session):
        face(face.repository(session, User, "a").for_update().first)
        with face.database.engine.connect() as second:
            second.exec_driver_sql("PRAGMA busy_timeout = 50")
            with pytest.raises(Exception, match="locked"):
                second.exec_driver_sql("UPDATE users SET score = 7")


def test_contradictions_are_refused(face: Face) -> None:
    with face.session() as session, pytest.raises(ValidationError, match="exclude"):
        face.repository(session, User, "a").for_update(nowait=True, skip_locked=True)


def test_sqlites_lock_passes_the_guard(face: Face, users: list[Any]) -> None:
    with face.guarded() as session, transaction(face, session):
        assert len(face(face.repository(session, User, "a").for_update().list)) == 4
