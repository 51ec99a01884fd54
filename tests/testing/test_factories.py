"""Factories fill what a row needs, in models of every kind."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy import ForeignKey, ForeignKeyConstraint, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import Field, SQLModel

from dotmac_database import (
    DuplicateEntityError,
    SoftDeleteMixin,
    TenantMixin,
    UTCDateTime,
    ValidationError,
    VersionMixin,
    bind_tenant,
    tenant_scope,
)
from dotmac_database.testing import AsyncModelFactories, ModelFactories
from tests.conftest import Face


class Base(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Company(Base):
    """The table of tenants."""

    __tablename__ = "f_companies"
    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Author(TenantMixin, VersionMixin, SoftDeleteMixin, Base):
    __tablename__ = "f_authors"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("tenant_id", "email"),
        ForeignKeyConstraint(["tenant_id"], ["f_companies.id"]),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    code: Mapped[str] = mapped_column(String(3), unique=True)
    nickname: Mapped[str | None]


class Book(TenantMixin, Base):
    __tablename__ = "f_books"
    __table_args__ = (ForeignKeyConstraint(["tenant_id", "author_id"], ["f_authors.tenant_id", "f_authors.id"]),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    author_id: Mapped[int]
    sequel_of: Mapped[UUID | None] = mapped_column(ForeignKey("f_books.id"))
    title: Mapped[str] = mapped_column(String(30))
    colour: Mapped[Colour]
    kind: Mapped[str] = mapped_column(sa.Enum("novel", "essay", name="f_kind", native_enum=False))
    price: Mapped[Decimal] = mapped_column(sa.Numeric(6, 2))
    pages: Mapped[int]
    weight: Mapped[float]
    printed: Mapped[bool]
    published: Mapped[date]
    at: Mapped[datetime] = mapped_column(UTCDateTime)
    naive: Mapped[datetime]
    extra: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    blob: Mapped[bytes]
    size: Mapped[int] = mapped_column(default=3)
    author: Mapped[Author] = relationship()


class Cover(TenantMixin, Base):
    """One for each book."""

    __tablename__ = "f_covers"
    book_id: Mapped[UUID] = mapped_column(ForeignKey("f_books.id"), primary_key=True)


class Node(Base):
    """Each node needs another one first."""

    __tablename__ = "f_nodes"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("f_nodes.id"))


class Animal(TenantMixin, Base):
    __tablename__ = "f_animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - SQLAlchemy's


class Dog(Animal):
    __tablename__ = "f_dogs"
    id: Mapped[int] = mapped_column(ForeignKey("f_animals.id"), primary_key=True)
    bark: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - SQLAlchemy's


class Odd(sa.types.UserDefinedType[object]):
    cache_ok = True

    def get_col_spec(self) -> str:
        return "TEXT"


class Strange(Base):
    __tablename__ = "f_strange"
    id: Mapped[int] = mapped_column(primary_key=True)
    odd: Mapped[object] = mapped_column(Odd)


class Tag(SQLModel, table=True):
    __tablename__ = "f_tags"
    metadata = Base.metadata
    id: int | None = Field(default=None, primary_key=True)
    tenant_id: str
    label: str = Field(max_length=12)
    stars: int = 5


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


TENANTS = ("acme", "globex")


class Makes:
    """The factories of both faces, called alike."""

    def __init__(self, face: Face, session: Any) -> None:
        self.face = face
        self.session = session
        self.factories: Any = AsyncModelFactories(session) if face.is_async else ModelFactories(session, TENANTS)

    def __call__(self, model: type[Any], method: str = "create", *args: object, **values: object) -> Any:
        return self.face(getattr(self.factories(model), method), *args, **values)


@pytest.fixture
def session(face: Face) -> Iterator[Any]:
    with face.session() as opened:
        yield opened


@pytest.fixture
def makes(face: Face, session: Any) -> Makes:
    return Makes(face, session)


def test_every_column_is_filled(makes: Makes) -> None:
    book = makes(Book)
    assert (book.tenant_id, book.size, book.sequel_of) == ("acme", 3, None)
    assert book.title == f"title {book.title.split()[1]}"
    assert book.colour in Colour
    assert book.kind in ("novel", "essay")
    assert book.at.tzinfo is not None
    assert isinstance(book.price, Decimal)
    author = makes.face(makes.session.get, Author, book.author_id)
    assert (author.tenant_id, author.version, author.is_deleted, author.nickname) == ("acme", 1, False, None)
    assert author.email.endswith("@example.com")
    assert len(author.code) <= 3
    assert makes.face(makes.session.get, Company, "acme") is not None


def test_rows_of_one_call_share_parents_and_of_two_do_not(makes: Makes) -> None:
    books = [*makes(Book, "create_batch", 3), makes(Book)]
    assert len({book.author_id for book in books}) == 2
    assert len({book.author_id for book in books[:3]}) == 1
    assert len({book.id for book in books}) == 4


def test_parents_that_are_passed_are_taken(makes: Makes) -> None:
    author = makes(Author)
    count = sa.select(sa.func.count()).select_from(Author)
    assert makes(Book, author=author).author_id == author.id
    assert makes(Book, author_id=author.id).author_id == author.id
    assert makes.face(makes.session.scalar, count) == 1


def test_a_unique_foreign_key_gets_a_parent_for_each_row(makes: Makes) -> None:
    covers = makes(Cover, "create_batch", 2)
    assert len({cover.book_id for cover in covers}) == 2


def test_a_tenant_is_chosen(makes: Makes) -> None:
    assert makes(Book, "create", "initech").tenant_id == "initech"
    assert {each.tenant_id for each in makes(Book, "create_batch", 2, "initech")} == {"initech"}


def test_rows_that_look_alike(makes: Makes) -> None:
    """They are the same but for the keys, and `code`, which is unique among all tenants."""
    for values in ({}, {"email": "ada@example.com", "nickname": "Ada"}):
        mine, theirs = makes(Author, "create_alike", **values)
        assert (mine.tenant_id, theirs.tenant_id) == TENANTS
        assert (mine.email, mine.nickname) == (theirs.email, theirs.nickname)
        assert (mine.id, mine.code) != (theirs.id, theirs.code)
    mine, theirs = makes(Book, "create_alike")
    alike = ("title", "price", "pages", "weight", "published", "at", "naive", "extra", "blob", "colour", "kind")
    assert [getattr(mine, name) for name in alike] == [getattr(theirs, name) for name in alike]
    assert mine.author_id != theirs.author_id


def test_values_are_the_same_in_each_run(makes: Makes) -> None:
    names = ("title", "price", "pages", "weight", "blob", "at", "printed", "id")
    runs = []
    for _ in range(2):
        again = Makes(makes.face, makes.session)
        runs.append([[getattr(book, name) for name in names] for book in again(Book, "create_batch", 2)])
        makes.face(makes.session.rollback)
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


def test_subclasses_and_sqlmodel(makes: Makes) -> None:
    dog = makes(Dog)
    assert (dog.kind, dog.tenant_id) == ("dog", "acme")
    assert dog.bark.startswith("bark ")
    tag = makes(Tag)
    assert (tag.stars, tag.tenant_id) == (5, "acme")
    assert len(tag.label) <= 12


REFUSED = {
    "unknown attribute": (Book, {"titel": "x"}, ValidationError, "Book has no attribute 'titel'"),
    "circle": (Node, {}, ValidationError, "Node: pass parent_id, which references its own table"),
    "unknown type": (Strange, {}, ValidationError, "No value is known for Strange.odd"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(makes: Makes, case: str) -> None:
    model, values, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        makes(cast("type[Any]", model), **values)


def test_what_the_database_refuses_is_the_repositorys_error(makes: Makes) -> None:
    makes(Author, code="abc")
    with pytest.raises(DuplicateEntityError):
        makes(Author, code="abc")


def test_guarded_sessions(face: Face) -> None:
    with face.guarded() as session:
        makes = Makes(face, session)
        mine, theirs = makes(Book, "create_alike")
        for tenant, own in zip(TENANTS, (mine, theirs), strict=True):
            with tenant_scope(session, tenant, release=True):
                seen = face(face.repository(session, Book, tenant).list)
                assert [each.id for each in seen] == [own.id]
        bind_tenant(session, "globex")
        assert makes(Book).tenant_id == "globex"
        assert makes(Book, id=uuid4()).tenant_id == "globex"
