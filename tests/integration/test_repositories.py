"""Every method of a repository, on both databases and both faces."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from sqlalchemy import literal_column
from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import scoped_session

from dotmac_database import (
    ALL_TENANTS,
    ConstraintViolationError,
    DatabaseError,
    DuplicateEntityError,
    EntityNotFoundError,
    FilterOperator,
    PaginationParams,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    StaleEntityError,
    TenantIsolationError,
    TenantRequiredError,
    ValidationError,
    acting_as,
    any_of,
)
from tests.conftest import Face
from tests.models import Country, Post, Seat, Status, Tag, User

F, Op = QueryFilter, FilterOperator


class NewUser(BaseModel):
    name: str
    email: str | None = None
    score: int | None = 7
    nickname: str | None = None


def made(face: Face, session: Any, tenant: str = "a", **values: Any) -> User:
    return face(face.repository(session, User, tenant).create, {"name": "Ann", **values})


def test_a_scoped_session_is_as_good(face: Face) -> None:
    make: Any = async_scoped_session if face.is_async else scoped_session
    sessions = face.database.async_sessions if face.is_async else face.database.sessions
    session = make(sessions, scopefunc=lambda: 1)
    tags = face.repository(session, Tag, "a")
    assert tags.db is session
    assert face(tags.create, {"name": "one"}).name == "one"
    assert face(tags.get_tenant_stats)["total_entities"] == 1
    face(session.remove)


@pytest.mark.parametrize("by", ["dict", "object"])
def test_an_update_with_new_children_makes_no_second_row(face: Face, by: str) -> None:
    """A given object must not come into the session with its children, whose other end it is."""
    with face.session() as session:
        users = face.repository(session, User, "a")
        key = made(face, session).id
        posts = [Post(title="one", tenant_id="a")]
        changed = {"name": "Ben", "posts": posts}
        face(users.update, key, changed if by == "dict" else User(**changed))
        found = face(users.list, QueryOptions(relationships=["posts"]))
        assert [(user.id, user.name, [post.title for post in user.posts]) for user in found] == [(key, "Ben", ["one"])]
        assert face(face.repository(session, Post, "a").count) == 1


# -- create ------------------------------------------------------------------------------------------------------


def test_a_created_row_has_all_its_values(face: Face) -> None:
    values: dict[str, Any] = {
        "name": "Ann Éire",
        "email": "ann@example.org",
        "status": "active",
        "score": 5,
        "ratio": 0.25,
        "balance": Decimal("12.50"),
        "settings": {"theme": "dark", "n": [1, None, True]},
        "seen_at": datetime(2024, 5, 1, 12, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2))),
        "born": "1990-02-03",
        "wakes": "07:30:00",
        "patience": timedelta(hours=1, microseconds=5),
        "avatar": b"\x00\x01\xff",
        "active": False,
    }
    with face.session() as session:
        users = face.repository(session, User, "a")
        created = face(users.create, values, user_id="me")
        for user in (created, face(users.get_by_id, created.id)):
            assert isinstance(user.id, UUID)
            assert (user.name, user.email, user.status, user.score) == ("Ann Éire", "ann@example.org", Status.ACTIVE, 5)
            assert (user.ratio, user.active, user.avatar) == (0.25, False, b"\x00\x01\xff")
            assert user.balance == Decimal("12.50")
            assert isinstance(user.balance, Decimal)
            assert user.settings == {"theme": "dark", "n": [1, None, True]}
            assert user.seen_at == datetime(2024, 5, 1, 10, 30, 0, 123456, tzinfo=UTC)
            assert user.seen_at.tzinfo is not None
            assert (user.born, user.wakes) == (date(1990, 2, 3), time(7, 30))
            assert user.patience == timedelta(hours=1, microseconds=5)
            assert (user.tenant_id, user.version, user.is_deleted, user.deleted_at) == ("a", 1, False, None)
            assert (user.created_by, user.updated_by) == ("me", "me")
            assert user.created_at == user.updated_at
            assert user.created_at.utcoffset() == timedelta(0)


def test_defaults_are_written_and_data_is_not_changed(face: Face) -> None:
    data = {"name": "Ann", "tenant_id": "a"}
    with face.session() as session:
        users = face.repository(session, User, "a")
        assert face(users.create, data).status is Status.NEW
        assert data == {"name": "Ann", "tenant_id": "a"}
        with pytest.raises(ValidationError, match="nickname"):
            face(users.create, NewUser(name="Ben", nickname="b"))
        ben = face(users.create, NewUser(name="Ben"))
        assert (ben.name, ben.score) == ("Ben", 7)


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        ({"name": "x", "nmae": "y"}, ValidationError, "did you mean 'name'"),
        ({"name": "x", "score": "many"}, ValidationError, "score"),
        ({"name": "x" * 51}, ValidationError, "name takes text of at most 50"),
        ({"name": "x\x00"}, ValidationError, "name"),
        ({"name": "x", "balance": "99999999999"}, ValidationError, "balance"),
        ({"name": "x", "score": 2**31}, ValidationError, "score"),
        ({"name": "x", "tenant_id": "b"}, TenantIsolationError, "tenant"),
        ({"email": "x@y"}, ConstraintViolationError, "name"),
        ([1, 2], ValidationError, "dict"),
    ],
)
def test_bad_data_is_refused_by_name(face: Face, data: Any, error: type[Exception], told: str) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        with pytest.raises(error, match=told) as caught:
            face(users.create, data)
        assert "x" * 51 not in str(caught.value)
        assert face(users.count) == 0
        face(users.create, {"name": "fine"})


def test_a_duplicate_names_its_fields_and_leaves_the_session_usable(face: Face) -> None:
    with face.session() as session:
        made(face, session, email="a@x")
        with pytest.raises(DuplicateEntityError) as caught:
            made(face, session, email="a@x")
        assert caught.value.fields == ("email",)
        assert "a@x" not in str(caught.value)
        assert caught.value.__cause__ is not None
        assert face(face.repository(session, User, "a").count) == 1
        made(face, session, tenant="b", email="a@x")


def test_a_foreign_key_to_nothing_is_refused(face: Face) -> None:
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        with pytest.raises(ConstraintViolationError):
            face(posts.create, {"title": "t", "author_id": uuid4()})
        assert face(posts.count) == 0


def test_a_row_may_be_created_with_its_neighbours(face: Face) -> None:
    with face.session() as session:
        tag = face(face.repository(session, Tag, "a").create, {"name": "x"})
        other = face(face.repository(session, Tag, "b").create, {"name": "y"})
        posts = face.repository(session, Post, "a")
        post = face(posts.create, {"title": "t", "tags": [tag]})
        assert face(posts.count, [F("tags.name", value="x")]) == 1
        assert post.id is not None
        with pytest.raises(TenantIsolationError):
            face(posts.create, {"title": "t", "tags": [other]})


def test_many_rows_are_created_at_once_in_their_order(face: Face) -> None:
    rows = [{"name": f"u{n}", **({"score": n} if n % 2 else {"email": f"{n}@x"})} for n in range(20)]
    with face.session() as session:
        users = face.repository(session, User, "a")
        created = face(users.bulk_create, rows, user_id="me")
        assert [user.name for user in created] == [row["name"] for row in rows]
        assert {user.created_by for user in created} == {"me"}
        assert face(users.bulk_create, rows[1::2], returning=False) == 10
        assert face(users.bulk_create, []) == []
        assert face(users.bulk_create, [], returning=False) == 0
        assert face(users.count) == 30


@pytest.mark.parametrize("returning", [True, False])
def test_many_rows_are_created_all_or_none(face: Face, returning: bool) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        with pytest.raises(DuplicateEntityError):
            face(users.bulk_create, [{"name": "u", "email": f"{n % 9}@x"} for n in range(10)], returning=returning)
        assert face(users.count) == 0


def test_upsert_inserts_or_changes(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        first = face(users.upsert, {"name": "Ann", "email": "a@x"}, ["email"])
        again = face(users.upsert, {"name": "Anna", "email": "a@x", "score": 3}, ["tenant_id", "email"])
        assert (again.id, again.name, again.score, again.version) == (first.id, "Anna", 3, 2)
        assert again.created_at == first.created_at
        rows = [{"name": "B", "email": "b@x"}, {"name": "A", "email": "a@x"}]
        assert [user.name for user in face(users.bulk_upsert, rows, ["email"])] == ["B", "A"]
        other = face.repository(session, User, "b")
        assert face(other.upsert, {"name": "Other", "email": "a@x"}, ["email"]).tenant_id == "b"
        assert face(users.count) == 2
        with pytest.raises(ValidationError, match="no unique constraint"):
            face(users.upsert, {"name": "x"}, ["name"])
        with pytest.raises(ValidationError, match="same email"):
            face(users.bulk_upsert, [rows[0], rows[0]], ["email"])


def test_upsert_never_touches_another_tenants_row(face: Face) -> None:
    with face.session() as session:
        theirs = made(face, session, tenant="b", name="Theirs")
        mine = face.repository(session, User, "a")
        with pytest.raises(DuplicateEntityError):
            face(mine.upsert, {"id": theirs.id, "name": "Mine"}, ["id"])
        assert face(face.repository(session, User, "b").get_by_id, theirs.id).name == "Theirs"
        assert face(mine.count) == 0


def test_upsert_restores_a_deleted_row(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = face(users.create, {"name": "Ann", "email": "a@x"})
        face(users.delete, user.id)
        assert face(users.upsert, {"name": "Ann", "email": "a@x"}, ["email"]).is_deleted is False
        assert face(users.count) == 1


# -- read --------------------------------------------------------------------------------------------------------


def test_rows_are_found_by_key_field_and_filter(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        ann, ben, cid = (
            made(face, session, name=name, score=score) for name, score in (("Ann", 1), ("Ben", 1), ("Cid", 2))
        )
        made(face, session, tenant="b", name="Ann")
        assert face(users.get_by_id, str(ann.id)) is ann
        assert face(users.get_by_id, uuid4()) is None
        with pytest.raises(EntityNotFoundError):
            face(users.get_by_id_or_raise, uuid4())
        assert face(users.get_many, [cid.id, uuid4(), ann.id, cid.id]) == [cid, ann, cid]
        assert face(users.get_many, []) == []
        assert face(users.get_by_field, "name", "Ben") is ben
        assert face(users.get_by_field, "name", "Zoe") is None
        assert set(face(users.list_by_field, "score", 1)) == {ann, ben}
        assert len(face(users.list_by_field, "email", None)) == 3
        assert face(users.first, {"sorts": [SortField("name", SortOrder.DESC)]}) is cid
        assert face(users.exists, cid.id)
        assert not face(users.exists, uuid4())
        assert face(users.count) == 3
        assert face(users.count, [F("score", value=1)]) == 2
        assert len(face(users.list, {})) == len(face(users.list)) == len(face(users.list, None)) == 3
        with pytest.raises(ValidationError, match="UUID"):
            face(users.get_by_id, 5)
        with pytest.raises(ValidationError, match="1 parts"):
            face(users.get_by_id, (1, 2))


def test_pages_have_totals_also_past_the_end(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        empty = face(users.list_paginated, {})
        assert (empty.items, empty.total, empty.pages, empty.has_next, empty.has_prev) == ([], 0, 0, False, False)
        face(users.bulk_create, [{"name": f"u{n:02}"} for n in range(25)], returning=False)
        options = {"sorts": [{"field": "name"}], "pagination": {"page": 2, "per_page": 10}}
        page = face(users.list_paginated, options)
        assert [user.name for user in page.items] == [f"u{n:02}" for n in range(10, 20)]
        assert (page.total, page.pages, page.has_next, page.has_prev) == (25, 3, True, True)
        assert [user.name for user in face(users.list, options)] == [user.name for user in page.items]
        past = face(users.list_paginated, QueryOptions(pagination=PaginationParams(page=9, per_page=10)))
        assert (past.items, past.total, past.pages, past.has_next) == ([], 25, 3, False)
        with pytest.raises(ValidationError, match="per_page"):
            face(users.list_paginated, {"pagination": {"per_page": 1001}})
        with pytest.raises(ValidationError, match="is_active"):
            face(users.list, {"is_active": True})


def test_cursors_walk_forth_and_back(face: Face) -> None:
    sorts = [SortField("score", SortOrder.DESC), SortField("name")]
    with face.session() as session:
        users = face.repository(session, User, "a")
        face(users.bulk_create, [{"name": f"u{n:02}", "score": n % 4 or None} for n in range(23)], returning=False)
        whole = [user.id for user in face(users.list, {"sorts": sorts})]
        pages, cursor = [], None
        while True:
            page = face(users.cursor_paginate, {"sorts": sorts, "cursor_pagination": {"limit": 5, "cursor": cursor}})
            pages.append([user.id for user in page.items])
            assert page.has_prev == (cursor is not None)
            if not page.has_next:
                break
            cursor = page.next_cursor
        assert list(chain.from_iterable(pages)) == whole
        back = []
        while page.has_prev:
            options = {"sorts": sorts, "cursor_pagination": {"limit": 5, "cursor": page.prev_cursor}}
            page = face(users.cursor_paginate, options)
            assert page.has_next
            back.append([user.id for user in page.items])
        assert back == pages[-2::-1]


def test_a_stream_gives_every_row_once_in_order(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        face(users.bulk_create, [{"name": f"u{n % 5}"} for n in range(23)], returning=False)
        options = {"sorts": [{"field": "name", "order": "desc"}]}
        for size in (1, 7, 23, 1000):
            assert face(users.stream, options, size) == face(users.list, options)
        with pytest.raises(ValidationError):
            face(users.stream, {"pagination": {"page": 1}})
        with pytest.raises(ValidationError):
            face(users.stream, {}, 0)


def test_relationships_are_loaded_on_demand_and_within_the_tenant(face: Face) -> None:
    with face.session() as session:
        ann = made(face, session)
        posts = face.repository(session, Post, "a")
        kept, gone = (face(posts.create, {"title": t, "author_id": ann.id}) for t in ("kept", "gone"))
        face(face.repository(session, Post, "b").create, {"title": "foreign", "author_id": ann.id})
        face(posts.delete, gone.id)
        session.expunge_all()
        users = face.repository(session, User, "a")
        loaded = face(users.get_by_id, ann.id, relationships=["posts.author", "posts"])
        assert [post.title for post in loaded.posts] == ["kept"]
        assert loaded.posts[0].author is loaded
        session.expunge_all()
        post = face(posts.get_by_id, kept.id, relationships=["author"])
        assert post.author.name == "Ann"
        with pytest.raises(ValidationError, match="no relationship 'post'; did you mean 'posts'"):
            face(users.list, {"relationships": ["post"]})


# -- change ------------------------------------------------------------------------------------------------------


def test_an_update_changes_what_was_set_and_counts(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = made(face, session, score=1)
        before = user.updated_at
        changed = face(users.update, user.id, {"name": "Anna", "id": str(user.id)}, user_id="editor")
        assert changed is user
        assert (user.name, user.score, user.version, user.updated_by) == ("Anna", 1, 2, "editor")
        assert user.updated_at > before
        assert face(users.update, user.id, NewUser(name="Zoe")).score == 1
        assert face(users.update, user.id, {}).version == 3
        assert face(users.update, user.id, {"score": None}).score is None


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"nmae": "x"}, ValidationError),
        ({"tenant_id": "b"}, TenantIsolationError),
        ({"id": str(uuid4())}, ValidationError),
        ({"version": 9}, ValidationError),
        ({"name": None}, ValidationError),
    ],
)
def test_a_bad_update_is_refused_and_changes_nothing(face: Face, data: Any, error: type[Exception]) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = made(face, session)
        with pytest.raises(error):
            face(users.update, user.id, data)
        fresh = face(users.get_by_id, user.id)
        assert (fresh.name, fresh.version, fresh.tenant_id) == ("Ann", 1, "a")


def test_a_stale_or_missing_row_is_not_updated(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = made(face, session)
        assert face(users.update, user.id, {"name": "B"}, expected_version=1).version == 2
        with pytest.raises(StaleEntityError):
            face(users.update, user.id, {"name": "C"}, expected_version=1)
        with pytest.raises(StaleEntityError):
            face(users.update, user.id, {}, expected_version=1)
        with pytest.raises(StaleEntityError):
            face(users.update, user.id, {"name": User.name + "C"}, expected_version=1)
        assert face(users.update, user.id, {"name": User.name + "C"}, expected_version=2).name == "BC"
        with pytest.raises(EntityNotFoundError):
            face(users.update, uuid4(), {"name": "C"})
        with pytest.raises(EntityNotFoundError):
            face(face.repository(session, User, "b").update, user.id, {"name": "C"})
        with pytest.raises(ValidationError):
            face(face.repository(session, Tag, "a").update, 1, {"name": "C"}, expected_version=1)


def test_a_soft_delete_hides_and_a_restore_shows(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = made(face, session)
        assert face(users.delete, user.id, user_id="deleter")
        assert (user.is_deleted, user.updated_by) == (True, "deleter")
        assert user.deleted_at is not None
        assert not face(users.delete, user.id)
        assert not face(users.exists, user.id)
        assert face(users.get_by_id, user.id) is None
        assert face(users.get_by_id, user.id, include_deleted=True) is user
        assert (face(users.count), face(users.count, include_deleted=True)) == (0, 1)
        assert face(users.list, {"include_deleted": True}) == [user]
        with pytest.raises(EntityNotFoundError):
            face(users.update, user.id, {"name": "x"})
        restored = face(users.restore, user.id)
        assert (restored.is_deleted, restored.deleted_at) == (False, None)
        assert face(users.exists, user.id)
        with pytest.raises(EntityNotFoundError):
            face(face.repository(session, User, "b").restore, user.id)


def test_a_delete_for_good(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = made(face, session)
        other = face.repository(session, User, "b")
        assert not face(other.delete, user.id, soft_delete=False)
        face(users.delete, user.id)
        assert face(users.delete, user.id, soft_delete=False)
        assert not face(users.delete, user.id, soft_delete=False)
        assert face(users.count, include_deleted=True) == 0
        tags = face.repository(session, Tag, "a")
        tag = face(tags.create, {"name": "t"})
        assert face(tags.delete, tag.id)
        assert face(tags.get_by_id, tag.id) is None
        with pytest.raises(ValidationError):
            face(tags.restore, tag.id)


def test_many_rows_are_changed_by_key_and_by_filter(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        some = face(users.bulk_create, [{"name": f"u{n}", "score": n} for n in range(6)])
        theirs = made(face, session, tenant="b", name="u0", score=0)
        rows = [
            {"id": some[0].id, "name": "first", "settings": {"a": 1}},
            {"id": str(some[1].id), "score": 100},
            {"id": theirs.id, "score": 100},
        ]
        assert face(users.bulk_update, rows, user_id="me") == 2
        assert (some[0].name, some[0].version, some[1].score) == ("first", 2, 100)
        session.expunge_all()
        again = face(users.get_by_id, some[0].id)
        assert (again.name, again.settings, again.updated_by, again.version) == ("first", {"a": 1}, "me", 2)
        assert face(users.update_where, [F("score", Op.GTE, 4)], {"email": None, "status": "closed"}) == 3
        assert face(users.count, [F("status", value=Status.CLOSED)]) == 3
        assert face(users.delete_where, any_of(F("score", Op.LT, 3), F("name", value="zz"))) == 2
        assert face(users.delete_where, [F("name", Op.LIKE, "u%")], soft_delete=False) == 5
        assert face(face.repository(session, User, "b").get_by_id, theirs.id).score == 0
        with pytest.raises(ValidationError):
            face(users.bulk_update, [{"name": "x"}])
        with pytest.raises(ValidationError):
            face(users.bulk_update, [{"id": some[0].id, "name": "x"}, {"id": some[0].id, "score": 1}])


@pytest.mark.parametrize("filters", [None, [], any_of(), [any_of(any_of())], [F("score", Op.NOT_IN, [])]])
def test_what_matches_every_row_must_be_meant(face: Face, filters: Any) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        made(face, session)
        for call in (
            lambda: face(users.update_where, filters, {"score": 1}),
            lambda: face(users.delete_where, filters),
        ):
            with pytest.raises(ValidationError, match="allow_all"):
                call()
        assert face(users.count) == 1
        if filters != any_of() and filters != [any_of(any_of())]:
            assert face(users.update_where, filters, {"score": 1}, allow_all=True) == 1
        assert face(users.delete_where, [F("score", Op.IN, [])]) == 0


# -- whose rows -----------------------------------------------------------------------------------------------------


def test_a_tenant_is_required_and_kept(face: Face) -> None:
    with face.session() as session:
        for tenant in (None, "", "  "):
            with pytest.raises(TenantRequiredError):
                face.repository(session, User, tenant)
        users = face.repository(session, User, "a")
        made(face, session)
        other = users.with_tenant("b")
        assert (face(other.count), face(users.count), users.tenant_id, other.tenant_id) == (0, 1, "a", "b")
        assert face(users.switch_tenant("b").count) == 0
        everyone = face.repository(session, User, ALL_TENANTS)
        made(face, session, tenant="b")
        assert face(everyone.count) == 2
        with pytest.raises(TenantRequiredError):
            face(everyone.create, {"name": "x"})
        assert face(everyone.create, {"name": "x", "tenant_id": "c"}).tenant_id == "c"


def test_the_numbers_of_a_tenant(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        first, *_ = face(users.bulk_create, [{"name": "u"}] * 3)
        old = datetime.now(UTC) - timedelta(days=400)
        face(users.create, {"name": "old", "created_at": old})
        face(users.delete, first.id)
        made(face, session, tenant="b")
        assert face(users.get_tenant_stats) == {
            "tenant_id": "a",
            "entity_type": "User",
            "total_entities": 3,
            "deleted_entities": 1,
            "created_today": 2,
            "created_this_month": 2,
        }
        tags = face.repository(session, Tag, "a")
        assert face(tags.get_tenant_stats) == {"tenant_id": "a", "entity_type": "Tag", "total_entities": 0}


def test_a_composite_key_and_columns_of_the_models_own(face: Face) -> None:
    with face.session() as session:
        seats = face.repository(session, Seat, "7")
        seat = face(seats.create, {"number": 1, "holder": "Ann"})
        assert (seat.org, seat.version) == (7, 1)
        assert face(seats.get_by_id, (7, 1)) is seat
        assert face(seats.get_by_id, (8, 1)) is None
        assert face(seats.update, (7, 1), {"holder": "Ben"}, expected_version=1).version == 2
        face(face.repository(session, Seat, 8).create, {"number": 1})
        face(seats.bulk_create, [{"number": n} for n in range(2, 5)], returning=False)
        assert [s.number for s in face(seats.get_many, [(7, 3), (8, 1), (7, 2)])] == [3, 2]
        assert [s.number for s in face(seats.stream, {}, 2)] == [1, 2, 3, 4]
        assert face(seats.upsert, {"number": 1, "holder": "Cid"}, ["number"]).holder == "Cid"
        assert face(seats.bulk_update, [{"org": 7, "number": 2, "holder": "Dan"}]) == 1
        assert face(seats.delete, (7, 1))
        assert not face(seats.delete, (8, 1))
        with pytest.raises(ValidationError, match="2 parts"):
            face(seats.get_by_id, 1)


def test_a_model_without_a_tenant_needs_none(face: Face) -> None:
    with face.session() as session:
        countries = face.repository(session, Country)
        face(countries.create, {"code": "IS", "name": "Iceland"})
        assert face(countries.get_by_id, "IS").name == "Iceland"
        with pytest.raises(DuplicateEntityError) as caught:
            face(countries.create, {"code": "IS", "name": "again"})
        assert caught.value.fields == ("code",)
        assert face(face.repository(session, Country, "anyone").count) == 1


def test_the_ambient_actor_is_recorded_unless_another_is_named(face: Face) -> None:
    with face.session() as session, acting_as("alice"):
        user = made(face, session)
        assert (user.created_by, user.updated_by) == ("alice", "alice")
        users = face.repository(session, User, "a")
        assert face(users.update, user.id, {"name": "x"}, user_id="bob").updated_by == "bob"
        with acting_as("carol"):
            assert face(users.update, user.id, {"name": "y"}).updated_by == "carol"
        face(users.delete, user.id)
        assert user.updated_by == "alice"


def test_a_read_that_fails_leaves_the_session_usable(face: Face) -> None:
    for options in ({}, {"expire_on_commit": True}):
        with face.session(**options) as session:
            users = face.repository(session, User, "a")
            user = made(face, session)
            assert face(users.count) >= 1
            broken = type(users)(session, User, "a")
            broken.conditions = lambda: [literal_column("no_such_column") == 1]
            with pytest.raises(DatabaseError):
                face(broken.count)
            assert face(users.get_by_id, user.id).name == "Ann"


def test_a_default_of_another_type_comes_back_as_the_columns(face: Face) -> None:
    with face.session() as session:
        user = made(face, session)
        assert (user.balance, type(user.balance)) == (Decimal("0.00"), Decimal)
        assert str(user.balance) == "0.00"
