"""Back-fills: `in_batches` beside others who write."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dotmac_database import BatchProgress, QueryFilter, SortField, ValidationError, create_repository
from tests.conftest import Face, counted
from tests.models import Post, Seat, User


@pytest.fixture(autouse=True)
def filled(face: Face) -> None:
    with face.session() as session:
        for tenant, first in (("a", 1), ("b", 101)):
            rows = [{"id": n, "title": f"t{n}", "words": 0} for n in range(first, first + 25)]
            face(face.repository(session, Post, tenant).bulk_create, rows)


def words(face: Face, tenant: str = "a") -> list[int | None]:
    with face.session() as session:
        return [post.words for post in face(face.repository(session, Post, tenant).list)]


def add_one(batch: list[Post]) -> None:
    for post in batch:
        post.words = (post.words or 0) + 1


def test_every_row_is_given_once_and_its_changes_are_committed(face: Face) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        assert face(posts.in_batches, add_one, None, 10) == 25
        assert not session.in_transaction()
    assert words(face) == [1] * 25
    assert words(face, "b") == [0] * 25


def test_progress_tells_how_far_it_is_and_where_to_resume(face: Face) -> None:
    told: list[BatchProgress] = []
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        chosen = {"filters": [QueryFilter("id", "gt", 5)]}
        assert face(posts.in_batches, add_one, chosen, 8, progress=told.append) == 20
        assert [(each.done, each.total, each.position) for each in told] == [
            (8, 20, (13,)),
            (16, 20, (21,)),
            (20, 20, (25,)),
        ]
        assert face(posts.in_batches, add_one, chosen, 8, after=told[0].position) == 12
    assert words(face) == [0] * 5 + [1] * 8 + [2] * 12


def test_a_batch_that_fails_is_undone_and_those_before_stay(face: Face) -> None:
    told: list[BatchProgress] = []

    def work(batch: list[Post]) -> None:
        add_one(batch)
        if batch[0].id == 11:
            raise LookupError("of the user's own")

    with face.session() as session:
        posts = face.repository(session, Post, "a")
        with pytest.raises(LookupError, match="own"):
            face(posts.in_batches, work, None, 5, progress=told.append)
        assert not session.in_transaction()
        assert told[-1].position == (10,)
    assert words(face) == [1] * 10 + [0] * 15
    with face.session() as session:
        assert face(face.repository(session, Post, "a").in_batches, add_one, after=told[-1].position) == 15
    assert words(face) == [1] * 25


def test_coroutines_may_use_the_repository(face: Face) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        if face.is_async:

            async def work(batch: list[Post]) -> None:
                await posts.bulk_update([{"id": post.id, "words": post.id} for post in batch])

        else:

            def work(batch: list[Post]) -> None:  # type: ignore[misc]
                posts.bulk_update([{"id": post.id, "words": post.id} for post in batch])

        assert face(posts.in_batches, work, None, 10) == 25
    assert words(face) == list(range(1, 26))


def test_rows_that_come_go_and_change_meanwhile(face: Face) -> None:
    """Between two batches another session deletes, inserts and updates; what stays is given once."""
    seen: list[int] = []

    def meanwhile(progress: BatchProgress) -> None:
        with face.database.sessions() as other:
            posts = create_repository(other, Post, "a")
            if progress.done == 5:
                posts.delete(7, soft_delete=False)
                posts.delete(2, soft_delete=False)
                posts.update(9, {"words": 40})
                posts.create({"id": 30, "title": "new", "words": 0})

    def work(batch: list[Post]) -> None:
        seen.extend(post.id for post in batch)
        add_one(batch)

    with face.session() as session:
        face(face.repository(session, Post, "a").in_batches, work, None, 5, progress=meanwhile)
    assert seen == [*range(1, 7), *range(8, 26), 30]
    with face.session() as session:
        assert face(face.repository(session, Post, "a").get_by_id, 9).words == 41


def test_no_change_of_another_writer_is_lost(face: Face) -> None:
    stop = threading.Event()
    added = [0]

    def writer() -> None:
        while not stop.is_set():
            with face.database.sessions() as other, other.begin():
                rows = create_repository(other, Post, "a")
                post = rows.for_update().get_by_id_or_raise(added[0] % 25 + 1)
                post.words = (post.words or 0) + 1
            added[0] += 1

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        with face.session() as session:
            posts = face.repository(session, Post, "a")
            for _ in range(5):
                assert face(posts.in_batches, add_one, None, 3) == 25
    finally:
        stop.set()
        thread.join()
    assert sum(each or 0 for each in words(face)) == 125 + added[0]


def test_each_batch_is_a_locked_read_and_a_commit(face: Face, dialect: str) -> None:
    with face.session() as session, counted(face.engine) as sent:
        face(face.repository(session, Post, "a").in_batches, lambda _: None, None, 20)
    if dialect == "postgresql":
        assert [each.split()[0] for each in sent] == ["BEGIN", "SELECT", "COMMIT"] * 2
        assert all("FOR UPDATE" in each for each in sent if each.startswith("SELECT"))
    else:
        assert len([each for each in sent if each.startswith("SELECT")]) == 2


def test_composite_keys(face: Face) -> None:
    with face.session() as session:
        seats = face.repository(session, Seat, 1)
        face(seats.bulk_create, [{"number": n} for n in range(7)])
        told: list[BatchProgress] = []
        assert face(seats.in_batches, lambda _: None, None, 3, progress=told.append) == 7
        assert [each.position for each in told] == [(1, 2), (1, 5), (1, 6)]


@pytest.mark.parametrize(
    "options", [{"sorts": [{"field": "title"}]}, {"pagination": {"page": 1}}, {"cursor_pagination": {"limit": 2}}]
)
def test_orders_and_pages_are_refused(face: Face, options: dict[str, Any]) -> None:
    with face.session() as session, pytest.raises(ValidationError):
        face(face.repository(session, Post, "a").in_batches, add_one, options)


def test_nothing_to_do(face: Face) -> None:
    with face.session() as session:
        assert face(face.repository(session, User, "a").in_batches, lambda _: None) == 0


def test_the_version_of_a_changed_object_is_counted_once(face: Face) -> None:
    """Also where a flush comes in between, and not where nothing was changed, or the version was set by hand."""
    with face.session() as session:
        users = face.repository(session, User, "a")
        face(users.bulk_create, [{"name": f"u{n}", "email": f"{n}@x", "score": n} for n in range(4)])

        def work(batch: list[User]) -> None:
            for user in batch:
                match user.score:
                    case 0:
                        user.name = "changed"
                    case 1:
                        user.name = "changed"
                        user.version = 9
                    case 2:
                        user.name = "u2"  # as it is

        assert face(users.in_batches, work, None, 3) == 4
    with face.session() as session:
        found = face(face.repository(session, User, "a").list, {"sorts": [SortField("score")]})
        assert [(user.name, user.version) for user in found] == [("changed", 2), ("changed", 9), ("u2", 1), ("u3", 1)]
