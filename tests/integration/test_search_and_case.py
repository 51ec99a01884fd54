"""Full-text search with an index, orders by relevance and in any case, uniqueness among the living."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    DuplicateEntityError,
    FullText,
    InvalidCursorError,
    LivingUnique,
    QueryFilter,
    SoftDeleteMixin,
    SortField,
    SortOrder,
    TenantMixin,
    ValidationError,
    any_of,
    none_of,
)
from dotmac_database.types import UTCDateTime
from tests.conftest import Face, counted
from tests.models import Post, User

S, DESC = SortField, SortOrder.DESC


class Base(DeclarativeBase):
    """Tables with indexes of these kinds."""


class Article(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "Articles of '24%"
    __table_args__ = (FullText("title", "the body"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str | None] = mapped_column("the body")


class Note(TenantMixin, Base):
    """Its key is no integer, so SQLite searches it without an index."""

    __tablename__ = "notes"
    __table_args__ = (FullText("body"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    body: Mapped[str]


class Member(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "members"
    __table_args__ = (LivingUnique("email"), LivingUnique("badge", tenant=None))

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    badge: Mapped[int | None]
    name: Mapped[str] = mapped_column(default="n")


class Ticket(Base):
    """Says with a moment alone that it is deleted, and has a tenant of another name."""

    __tablename__ = "tickets"
    __tenant_column__ = "org"
    __table_args__ = (LivingUnique("number", tenant="org"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[str]
    number: Mapped[int]
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


@pytest.fixture
def tables_there(face: Face) -> Iterator[None]:
    engine = face.database.engine
    Base.metadata.create_all(engine)
    yield
    Base.metadata.drop_all(engine)


@pytest.fixture
def articles(face: Face, tables_there: None) -> Iterator[Any]:
    rows = [
        {"id": 1, "title": "Tea and coffee", "body": "tea tea tea with milk"},
        {"id": 2, "title": "Coffee", "body": "no tea here, but coffee and more coffee"},
        {"id": 3, "title": "Émile's garden", "body": "a garden in the snow_white winter"},
        {"id": 4, "title": "Nothing", "body": None},
        {"id": 5, "title": "tea", "body": "TEA"},
    ]
    with face.session() as session:
        made = face.repository(session, Article, "a")
        face(made.bulk_create, rows)
        face(face.repository(session, Article, "b").create, {"id": 9, "title": "tea of another", "body": "tea"})
        yield made


def search(face: Face, rows: Any, field: str, words: str) -> list[int]:
    return [row.id for row in face(rows.list, {"filters": [QueryFilter(field, "search", words)]})]


SEARCHES = [
    ("title", "tea", [1, 5]),
    ("title", "COFFEE", [1, 2]),
    ("title", "tea coffee", [1]),
    ("title", "tea or nothing", [1, 4, 5]),
    ("title", "coffee -tea", [2]),
    ("title", '"tea and"', [1]),
    ("title", '"and tea"', []),
    ("title", "garden", [3]),
    ("title", "émile", [3]),
    ("title", "te", []),
    ("body", "snow_white", [3]),
    ("body", "tea", [1, 2, 5]),
]


@pytest.mark.parametrize(("field", "words", "expected"), SEARCHES)
def test_an_index_changes_no_answer(face: Face, articles: Any, field: str, words: str, expected: list[int]) -> None:
    if words == "snow_white" and face.engine.dialect.name == "postgresql":
        pytest.skip("PostgreSQL's parser takes _ for a blank")
    assert search(face, articles, field, words) == expected


HOSTILE = ["", " ", '"', '""', "*", "a*", "NEAR(a b)", "a AND", "-", "-tea", "(", "title:tea", "^tea", "'", "\\", "or"]


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_words_are_only_words(face: Face, articles: Any, words: str) -> None:
    found = search(face, articles, "title", words)
    assert set(found) <= {1, 2, 3, 4, 5}


def test_very_many_words(face: Face, articles: Any) -> None:
    assert search(face, articles, "title", " ".join(f"w{n}" for n in range(10_000))) == []
    with pytest.raises(ValidationError):
        search(face, articles, "title", "a\x00b")


def test_the_index_follows_every_write(face: Face, articles: Any) -> None:
    face(articles.update, 1, {"title": "Cocoa"})
    face(articles.update_where, [QueryFilter("id", value=2)], {"title": "tea after all"})
    face(articles.delete, 5)
    face(articles.create, {"id": 6, "title": "green tea"})
    face(articles.bulk_upsert, [{"id": 4, "title": "white tea"}], ["id"])
    assert search(face, articles, "title", "tea") == [2, 4, 6]
    face(articles.restore, 5)
    face(articles.delete, 6, soft_delete=False)
    assert search(face, articles, "title", "tea") == [2, 4, 5]
    assert search(face, articles, "title", "cocoa") == [1]


def test_the_index_is_used(face: Face, articles: Any, dialect: str) -> None:
    with counted(face.engine) as sent:
        search(face, articles, "title", "tea")
    statement = next(each for each in sent if each.startswith("SELECT"))
    if dialect == "sqlite":
        assert "MATCH" in statement
        with face.database.engine.connect() as connection:
            assert connection.execute(text("SELECT name FROM sqlite_master WHERE name LIKE '%_fts'")).all()
        return
    assert "MATCH" not in statement
    with face.database.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(
            text(
                "EXPLAIN SELECT * FROM \"Articles of '24%\" WHERE to_tsvector('simple'::regconfig, title) "
                "@@ websearch_to_tsquery('simple'::regconfig, 'tea')"
            )
        )
        assert any("Bitmap Index Scan" in row[0] for row in plan)


def test_a_table_without_an_integer_key_is_searched_too(face: Face, tables_there: None) -> None:
    with face.session() as session:
        notes = face.repository(session, Note, "a")
        face(notes.create, {"body": "green tea"})
        with counted(face.engine) as sent:
            found = face(notes.list, {"filters": [QueryFilter("body", "search", "tea")]})
        assert [note.body for note in found] == ["green tea"]
        assert not any("MATCH" in each for each in sent)


def test_a_guarded_session_searches_its_own_rows(face: Face, articles: Any) -> None:
    with face.guarded() as session:
        assert search(face, face.repository(session, Article, "b"), "title", "tea") == [9]


def test_a_table_that_is_there_already_gets_its_index(face: Face, dialect: str, articles: Any) -> None:
    if dialect != "sqlite":
        assert FullText.statements(Note.__table__) == []
        return
    assert FullText.statements(Note.__table__) == []
    with face.database.engine.begin() as connection:
        name = "\"Articles of ''24%_fts\"".replace("''", "'")
        connection.exec_driver_sql(f"DROP TABLE {name}")
        for when in ("insert", "update", "delete"):
            connection.exec_driver_sql(f'DROP TRIGGER {name[:-1]}_{when}"')
        for statement in FullText.statements(Article.__table__):
            connection.exec_driver_sql(statement)
    assert search(face, articles, "title", "tea") == [1, 5]


def test_rows_come_by_their_relevance(face: Face, articles: Any) -> None:
    asked = {"filters": [QueryFilter("body", "search", "tea")], "sorts": [S("body", DESC, by="relevance")]}
    assert [row.id for row in face(articles.list, asked)][-1] == 2  # one of eight words
    assert {row.id for row in face(articles.list, asked)} == {1, 2, 5}
    worst = {**asked, "sorts": [S("body", by="relevance")]}
    assert [row.id for row in face(articles.list, worst)] == [row.id for row in face(articles.list, asked)][::-1]


def walk(face: Face, rows: Any, limit: int, options: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The ids by forward pages, and by backward pages from the end."""
    forward: list[int] = []

    def turn(cursor: str | None) -> Any:
        return face(rows.cursor_paginate, {**options, "cursor_pagination": {"limit": limit, "cursor": cursor}})

    page = turn(None)
    forward += [row.id for row in page.items]
    while page.next_cursor:
        page = turn(page.next_cursor)
        forward += [row.id for row in page.items]
    backward = [row.id for row in page.items]
    while page.prev_cursor:
        page = turn(page.prev_cursor)
        backward = [row.id for row in page.items] + backward
    return forward, backward


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("order", [SortOrder.ASC, DESC])
def test_pages_by_relevance_are_whole(face: Face, articles: Any, limit: int, order: SortOrder) -> None:
    both = any_of(QueryFilter("body", "search", "tea or coffee"), QueryFilter("title", "search", "nothing"))
    options = {"filters": [both], "sorts": [S("body", order, by="relevance")]}
    whole = [row.id for row in face(articles.list, options)]
    assert sorted(whole) == [1, 2, 4, 5]
    assert walk(face, articles, limit, options) == (whole, whole)


def test_relevance_needs_words(face: Face, articles: Any) -> None:
    sorts = [S("body", by="relevance")]
    for filters in ([], [QueryFilter("title", "search", "x")], [none_of(QueryFilter("body", "search", "x"))]):
        with pytest.raises(ValidationError, match="search filter"):
            face(articles.list, {"filters": filters, "sorts": sorts})


NAMES = ["b", "A", "a", "B", "Émile", "émile", "Zoe", "c", None, "C"]


@pytest.fixture
def users(face: Face) -> Iterator[Any]:
    with face.session() as session:
        users = face.repository(session, User, "a")
        rows = [
            {"id": UUID(int=n), "name": f"{n}", "email": name, "settings": {"nick": name}}
            for n, name in enumerate(NAMES)
        ]
        face(users.bulk_create, rows)
        posts = [{"id": n, "title": "t", "author_id": UUID(int=n)} for n in range(len(NAMES))]
        face(face.repository(session, Post, "a").bulk_create, posts)
        yield users


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("field", ["email", "settings.nick"])
def test_upper_and_lower_case_are_the_same(face: Face, users: Any, field: str, descending: bool) -> None:
    sort = S(field, DESC if descending else SortOrder.ASC, by="folded")
    found = [user.email for user in face(users.list, {"sorts": [sort]})]
    folded = [None if name is None else name.lower() for name in found]
    known = [name for name in folded if name is not None and name.isascii()]
    assert known == sorted(known, reverse=descending)
    assert found.index(None) == (0 if descending else len(found) - 1)
    # Ties are broken by the key, in the sort's direction.
    assert [name for name in found if name in ("a", "A")] == (["a", "A"] if descending else ["A", "a"])


@pytest.mark.parametrize("limit", [1, 3, 4])
@pytest.mark.parametrize(
    "sorts", [[S("author.email", by="folded")], [S("author.email", DESC, "last", "folded"), S("id")]]
)
def test_pages_in_any_case_are_whole(face: Face, users: Any, limit: int, sorts: list[SortField]) -> None:
    posts = face.repository(users.db, Post, "a")
    whole = [post.id for post in face(posts.list, {"sorts": sorts})]
    assert sorted(whole) == list(range(len(NAMES)))
    assert walk(face, posts, limit, {"sorts": sorts}) == (whole, whole)


def test_a_cursor_of_another_kind_of_order_is_refused(face: Face, users: Any) -> None:
    page = face(users.cursor_paginate, {"sorts": [S("email", by="folded")], "cursor_pagination": {"limit": 2}})
    for sorts in ([S("email")], [S("name", by="folded")]):
        with pytest.raises(InvalidCursorError):
            face(users.cursor_paginate, {"sorts": sorts, "cursor_pagination": {"cursor": page.next_cursor}})


@pytest.mark.parametrize("by", ["folded", "relevance"])
@pytest.mark.parametrize("field", ["score", "status", "seen_at", "id", "active"])
def test_only_texts_have_these_orders(face: Face, users: Any, field: str, by: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        face(users.list, {"sorts": [S(field, by=by)]})


# -- uniqueness among the living -----------------------------------------------------------------------------------


@pytest.fixture
def members(face: Face, tables_there: None) -> Iterator[Any]:
    with face.session() as session:
        yield face.repository(session, Member, "a")


def test_a_deleted_ones_email_can_be_used_again(face: Face, members: Any) -> None:
    face(members.create, {"id": 1, "email": "x"})
    with pytest.raises(DuplicateEntityError) as caught:
        face(members.create, {"id": 2, "email": "x"})
    assert caught.value.fields == ("email",)
    face(face.repository(members.db, Member, "b").create, {"id": 3, "email": "x"})
    face(members.delete, 1)
    face(members.create, {"id": 4, "email": "x"})
    with pytest.raises(DuplicateEntityError) as caught:
        face(members.restore, 1)
    assert caught.value.fields == ("email",)
    assert [member.id for member in face(members.list)] == [4]
    assert face(members.count, include_deleted=True) == 2


def test_across_tenants_where_it_is_asked_for(face: Face, members: Any) -> None:
    face(members.create, {"id": 1, "email": "x", "badge": 7})
    with pytest.raises(DuplicateEntityError) as caught:
        face(face.repository(members.db, Member, "b").create, {"id": 2, "email": "y", "badge": 7})
    assert caught.value.fields == ("badge",)


def test_an_upsert_finds_the_living_one_alone(face: Face, members: Any) -> None:
    face(members.create, {"id": 1, "email": "x"})
    assert face(members.upsert, {"email": "x", "name": "changed"}, ["email"]).id == 1
    face(members.delete, 1)
    new = face(members.upsert, {"id": 5, "email": "x", "name": "new"}, ["email"])
    assert (new.id, new.name) == (5, "new")
    assert face(members.get_by_id, 1, include_deleted=True).name == "changed"
    rows = [{"id": 10 + n, "email": f"{n}" if n else "x", "name": "many"} for n in range(30)]
    found = face(members.bulk_upsert, rows, ["email"])
    assert [member.id for member in found] == [5, *range(11, 40)]
    other = face.repository(members.db, Member, "b")
    assert face(other.upsert, {"id": 50, "email": "x"}, ["email"]).tenant_id == "b"


def test_a_moment_says_that_a_row_is_deleted(face: Face, tables_there: None) -> None:
    with face.session() as session:
        tickets = face.repository(session, Ticket, "o")
        face(tickets.create, {"id": 1, "number": 1})
        with pytest.raises(DuplicateEntityError):
            face(tickets.create, {"id": 2, "number": 1})
        face(tickets.delete, 1)
        assert face(tickets.upsert, {"id": 3, "number": 1}, ["number"]).id == 3


def test_the_repositories_condition_is_the_indexes(face: Face, members: Any, dialect: str) -> None:
    if dialect != "postgresql":
        return
    with face.database.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(
            text("EXPLAIN SELECT * FROM members WHERE tenant_id = 'a' AND is_deleted = false AND email = 'x'")
        )
        assert any("uq_members_email_living" in row[0] for row in plan)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: LivingUnique("mail"), "mail"),
        (lambda: FullText("mail"), "mail"),
        (lambda: LivingUnique("email", deleted="gone"), "deleted"),
    ],
)
def test_columns_that_are_not_there_are_named(make: Any, named: str) -> None:
    class Fresh(DeclarativeBase):
        """A registry of its own."""

    with pytest.raises(ValidationError, match=named):
        type(
            "Wrong",
            (Fresh,),
            {
                "__tablename__": "wrong",
                "__table_args__": (make(),),
                "__annotations__": {"id": Mapped[int], "email": Mapped[str]},
                "id": mapped_column(primary_key=True),
            },
        )
