"""`link`, `unlink` and `set_links`: of each kind of relationship, on each kind of session, and against each attack.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    select,
)
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker, validates

from dotmac_database import (
    ALL_TENANTS,
    AuditMixin,
    DatabaseTransaction,
    EntityNotFoundError,
    SoftDeleteMixin,
    TenantMixin,
    ValidationError,
    VersionMixin,
    create_async_repository,
    create_repository,
    guard_tenants,
    unscoped,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The models of this module."""


def secondary(name: str, target: str, **options: Any) -> Table:
    """A table of links from articles to other rows."""
    return Table(
        name,
        Base.metadata,
        Column("article_id", ForeignKey("articles.id"), primary_key=options.get("unique", True), nullable=False),
        Column("target_id", ForeignKey(f"{target}.id"), primary_key=options.get("unique", True), nullable=False),
        *options.get("columns", ()),
    )


keyed = secondary("keyed", "labels")
unkeyed = secondary("unkeyed", "labels", unique=False)
owned = secondary("owned", "labels", columns=[Column("tenant_id", String, nullable=False)])
related = secondary("related", "articles")
needy = secondary("needy", "labels", columns=[Column("reason", String, nullable=False)])
placed = Table(
    "placed",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("article_id", ForeignKey("articles.id"), nullable=False),
    Column("row", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    ForeignKeyConstraint(["row", "number"], ["places.row", "places.number"]),
    UniqueConstraint("article_id", "row", "number"),
)


class Article(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("articles.id"))

    lead: Mapped[Article | None] = relationship(remote_side=[id], back_populates="parts")
    parts: Mapped[list[Article]] = relationship(back_populates="lead")
    by_key: Mapped[list[Label]] = relationship(secondary=keyed, back_populates="articles")
    without_key: Mapped[list[Label]] = relationship(secondary=unkeyed)
    with_tenant: Mapped[list[Label]] = relationship(secondary=owned)
    places: Mapped[list[Place]] = relationship(secondary=placed)
    see_also: Mapped[list[Article]] = relationship(
        secondary=related, primaryjoin=id == related.c.article_id, secondaryjoin=id == related.c.target_id
    )
    with_reason: Mapped[list[Label]] = relationship(secondary=needy)
    only_read: Mapped[list[Label]] = relationship(secondary=keyed, viewonly=True)
    notes: Mapped[list[Note]] = relationship(back_populates="article")
    checked: Mapped[list[CheckedNote]] = relationship()
    required: Mapped[list[RequiredNote]] = relationship()
    scores: Mapped[list[Score]] = relationship()


class Label(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    articles: Mapped[list[Article]] = relationship(secondary=keyed, back_populates="by_key")


class Place(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "places"

    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Note(TenantMixin, SoftDeleteMixin, AuditMixin, VersionMixin, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int | None] = mapped_column(ForeignKey("articles.id"))
    article: Mapped[Article | None] = relationship(back_populates="notes")


class CheckedNote(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    """Its validators must be called, so the children are flushed."""

    __tablename__ = "checked_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int | None] = mapped_column(ForeignKey("articles.id"))

    @validates("article_id")
    def _same(self, _key: str, value: int | None) -> int | None:
        return value


class RequiredNote(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "required_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"))


class Score(TenantMixin, Base):
    """An association object."""

    __tablename__ = "scores"

    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"), primary_key=True)
    label_id: Mapped[int] = mapped_column(ForeignKey("labels.id"), primary_key=True)
    points: Mapped[int]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


RELATIONSHIPS: dict[str, Any] = {
    "by_key": Label,
    "without_key": Label,
    "with_tenant": Label,
    "places": Place,
    "see_also": Article,
    "parts": Article,
    "notes": Note,
    "checked": CheckedNote,
}
BY_KEY = ("parts", "notes", "checked")
"""The relationships that are the children's foreign keys, so that a child has one parent."""

KINDS = ["plain", "guarded", "all tenants", "all tenants, guarded"]


def key(model: Any, number: int) -> Any:
    return (number, number + 1) if model is Place else number


def seeded(face: Face) -> None:
    """Articles 1 and 2 and targets 11 to 16 of tenant a, of which 16 is deleted; article 21, targets 31 to 33 of b."""
    with face.session() as session:
        for model in (Article, Label, Place, Note, CheckedNote):
            for tenant, numbers in (("a", range(11, 17)), ("b", range(31, 34))):
                repository = face.repository(session, model, tenant)
                extra = ([1, 2, 3] if tenant == "a" else [21]) if model is Article else []
                keys = [key(model, number) for number in (*extra, *numbers)]
                rows = [{"row": each[0], "number": each[1]} if model is Place else {"id": each} for each in keys]
                face(repository.bulk_create, rows)
            face(face.repository(session, model, "a").delete, key(model, 16))
        face(face.repository(session, Article, "a").delete, 3)


@contextmanager
def opened(face: Face, kind: str, model: Any = Article) -> Iterator[tuple[Any, Any]]:
    tenant = ALL_TENANTS if kind.startswith("all") else "a"
    with face.guarded() if "guarded" in kind else face.session() as session:
        if kind == "all tenants, guarded":
            with unscoped(session, reason="test"):
                yield session, face.repository(session, model, tenant)
        else:
            yield session, face.repository(session, model, tenant)


def stored(face: Face, name: str) -> list[tuple[Any, ...]]:
    """The links in the database: the article's key, and the target's."""
    prop = Article.__mapper__.relationships[name]
    table: Any = prop.mapper.local_table if prop.secondary is None else prop.secondary
    article = table.c.lead_id if name == "parts" else table.c.article_id
    target = table.c.id if prop.secondary is None else table.c.row if name == "places" else table.c.target_id
    columns = [article, target]
    with face.database.engine.connect() as connection:
        rows = connection.execute(select(*columns)).all()
    return sorted(tuple(row) for row in rows if row[0] is not None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RELATIONSHIPS)
def test_links_are_added_and_removed(face: Face, kind: str, name: str) -> None:
    seeded(face)
    keys = {number: key(RELATIONSHIPS[name], number) for number in range(11, 16)}
    with opened(face, kind) as (_session, articles):
        assert face(articles.link, 1, name, [keys[11], keys[12], keys[11]]) == 2
        assert face(articles.link, 1, name, [keys[12], keys[13]]) == 1
        assert stored(face, name) == [(1, 11), (1, 12), (1, 13)]
        assert face(articles.unlink, 1, name, [keys[11], keys[14]]) == 1
        assert face(articles.unlink, 1, name, []) == 0
        assert face(articles.link, 1, name, []) == 0
        assert face(articles.set_links, 1, name, [keys[13], keys[14], keys[15]]) == (2, 1)
        assert stored(face, name) == [(1, 13), (1, 14), (1, 15)]
        assert face(articles.link, 2, name, [keys[13]]) == 1
        assert face(articles.set_links, 1, name, []) == (0, 2 if name in BY_KEY else 3)
        assert stored(face, name) == [(2, 13)]
        assert face(articles.unlink, 1, name, [keys[13]]) == 0
    assert stored(face, name) == [(2, 13)]


ATTACKS = [
    pytest.param(21, 11, id="a foreign parent"),
    pytest.param(21, 31, id="foreign rows on both sides"),
    pytest.param(1, 31, id="a foreign target"),
    pytest.param(1, 99, id="an unknown target"),
    pytest.param(99, 11, id="an unknown parent"),
    pytest.param(1, 16, id="a deleted target"),
    pytest.param(3, 11, id="a deleted parent"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RELATIONSHIPS)
def test_rows_out_of_reach(face: Face, kind: str, name: str) -> None:
    seeded(face)
    model = RELATIONSHIPS[name]
    with opened(face, kind) as (_session, articles):
        assert face(articles.link, 1, name, [key(model, 12)]) == 1
        for parent, target in (attack.values for attack in ATTACKS):
            if kind.startswith("all") and (parent, target) == (21, 31):
                continue
            for method in (articles.link, articles.unlink, articles.set_links):
                with pytest.raises(EntityNotFoundError) as raised:
                    face(method, parent, name, [key(model, 12), key(model, target)])
                assert raised.value.model in ("Article", model.__name__)
                assert stored(face, name) == [(1, 12)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tenant_of_a_link(face: Face, kind: str) -> None:
    seeded(face)
    with opened(face, kind) as (_session, articles):
        face(articles.link, 1, "with_tenant", [11])
        if kind.startswith("all"):
            face(articles.link, 21, "with_tenant", [31])
    with face.database.engine.connect() as connection:
        rows = sorted(tuple(row) for row in connection.execute(select(owned.c.article_id, owned.c.tenant_id)))
    assert rows == [(1, "a"), *([(21, "b")] if kind.startswith("all") else [])]


@pytest.mark.parametrize("method", ["link", "unlink", "set_links"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("by_kay", "did you mean 'by_key'"),
        ("lead", "leads to one row"),
        ("only_read", "viewonly"),
        ("with_reason", "reason"),
        ("scores", "association objects"),
    ],
)
def test_what_is_refused(face: Face, method: str, name: str, message: str) -> None:
    with face.session() as session:
        articles = face.repository(session, Article, "a")
        with pytest.raises(ValidationError, match=message):
            face(getattr(articles, method), 1, name, [11])


def test_a_foreign_key_that_can_not_be_null(face: Face) -> None:
    seeded(face)
    with face.session() as session:
        articles, notes = face.repository(session, Article, "a"), face.repository(session, RequiredNote, "a")
        note = face(notes.create, {"article_id": 1})
        assert face(articles.link, 2, "required", [note.id]) == 1
        for method in (articles.unlink, articles.set_links):
            with pytest.raises(ValidationError, match="can't be NULL"):
                face(method, 2, "required", [note.id])
    assert stored(face, "required") == [(2, note.id)]


@pytest.mark.parametrize("name", ["notes", "checked"])
def test_versions_of_children(face: Face, name: str) -> None:
    seeded(face)
    with face.session() as session:
        articles, notes = face.repository(session, Article, "a"), face.repository(session, RELATIONSHIPS[name], "a")
        face(articles.link, 1, name, [11, 12])
        face(articles.link, 1, name, [11, 12])
        assert [each.version for each in face(notes.get_many, [11, 12, 13])] == [2, 2, 1]


@pytest.mark.parametrize("name", RELATIONSHIPS)
def test_loaded_collections_are_not_stale(face: Face, name: str) -> None:
    seeded(face)
    model = RELATIONSHIPS[name]
    with face.session() as session:
        articles = face.repository(session, Article, "a")
        one, two = face(articles.get_many, [1, 2], relationships=[name])
        face(articles.link, 1, name, [key(model, 11)])
        assert name not in one.__dict__
        face(articles.get_many, [1, 2], relationships=[name])
        assert len(getattr(one, name)) == 1
        face(articles.link, 2, name, [key(model, 11)])
        face(articles.get_many, [1, 2], relationships=[name])
        assert (len(getattr(one, name)), len(getattr(two, name))) == (0 if name in BY_KEY else 1, 1)


@pytest.mark.parametrize("name", RELATIONSHIPS)
def test_the_number_of_statements(face: Face, name: str) -> None:
    seeded(face)
    model = RELATIONSHIPS[name]
    with face.session() as session:
        face(
            face.repository(session, model, "a").bulk_create,
            [
                {"row": number, "number": number + 1} if model is Place else {"id": number}
                for number in range(100, 1100)
            ],
        )
    lengths = []
    for many in (1, 1000):
        with face.session() as session, counted(face.engine) as sent:
            face(face.repository(session, Article, "a").link, 2, name, [key(model, n) for n in range(100, 100 + many)])
            lengths.append(len([each for each in sent if each not in ("BEGIN", "COMMIT")]))
    flushed = {"sqlite": 4, "postgresql": 3}[face.engine.dialect.name]
    assert lengths == [flushed, flushed] or name == "checked"


@pytest.mark.parametrize("is_guarded", [False, True], ids=["plain", "guarded"])
@pytest.mark.parametrize("name", RELATIONSHIPS)
def test_many_at_once(face: Face, is_guarded: bool, name: str) -> None:
    seeded(face)
    keys = [key(RELATIONSHIPS[name], number) for number in (11, 12, 13)]

    def link(_: int) -> int:
        maker: Any = sessionmaker(face.engine)
        with (guard_tenants(maker) if is_guarded else face.database.sessions)() as session:
            return create_repository(session, Article, "a").link(1, name, keys)

    async def link_async(_: int) -> int:
        maker: Any = async_sessionmaker(face.database.async_engine)
        async with (guard_tenants(maker) if is_guarded else face.database.async_sessions)() as session:
            return await create_async_repository(session, Article, "a").link(1, name, keys)

    async def link_all() -> list[int]:
        return await asyncio.gather(*map(link_async, range(8)))

    if face.is_async:
        answers = face.runner.run(link_all())
    else:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(link, range(8)))
    assert sorted(answers) == [0] * 7 + [3]
    assert stored(face, name) == [(1, 11), (1, 12), (1, 13)]


@pytest.mark.parametrize("name", RELATIONSHIPS)
def test_within_a_block(face: Face, name: str) -> None:
    seeded(face)
    model = RELATIONSHIPS[name]
    begin = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    with face.session() as session:
        articles = face.repository(session, Article, "a")
        with face.entered(begin(session)):
            face(articles.link, 1, name, [key(model, 11)])
            with pytest.raises(EntityNotFoundError):
                face(articles.set_links, 1, name, [key(model, 31)])

        def fail() -> None:
            with face.entered(begin(session)):
                face(articles.link, 1, name, [key(model, 12)])
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
    assert stored(face, name) == [(1, 11)]


def test_of_a_mock(face: Face) -> None:
    articles: Any = (AsyncMockRepository if face.is_async else MockRepository)(Article, tenant_id="t")
    articles.add_mock_data([{"id": 1}, {"id": 2}, {"id": 3}])
    assert face(articles.link, 1, "see_also", [2, 3]) == 2
    assert face(articles.set_links, 1, "see_also", [3]) == (0, 1)
