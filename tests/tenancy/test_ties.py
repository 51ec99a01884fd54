"""Which joins replace a tenant's condition: only equalities of all key columns with a table that is confined itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    and_,
    create_engine,
    exists,
    insert,
    or_,
    select,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from dotmac_database import UnscopedStatementError, bind_tenant, guard_tenants
from dotmac_database.engines import Database
from dotmac_database.models import TenantMixin
from tests.conftest import counted
from tests.conftest import database as database  # this module's tables, not those of the tests beside it


class Base(DeclarativeBase):
    """The tables of this module."""


links = Table(
    "tie_links",
    Base.metadata,
    Column("author_id", ForeignKey("tie_authors.id"), primary_key=True),
    Column("shelf", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    ForeignKeyConstraint(["shelf", "place"], ["tie_books.shelf", "tie_books.place"]),
)


class Book(TenantMixin, Base):
    __tablename__ = "tie_books"
    shelf: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str]


class Author(TenantMixin, Base):
    __tablename__ = "tie_authors"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "author"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship(secondary=links)


class Poet(Author):
    __tablename__ = "tie_poets"
    __mapper_args__ = {"polymorphic_identity": "poet"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("tie_authors.id"), primary_key=True)
    verses: Mapped[int]


class Shared(Base):
    """Belongs to no tenant."""

    __tablename__ = "tie_shared"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String)


AUTHORS: Any = Author.__table__
BOOKS: Any = Book.__table__
POETS: Any = Poet.__table__
SHARED: Any = Shared.__table__
OTHER_AUTHORS = AUTHORS.alias("x")
SHARED_X = SHARED.alias("x")

ROWS: list[tuple[Any, list[tuple[str, dict[str, Any]]]]] = [
    (
        AUTHORS,
        [(t, {"id": k, "tenant_id": t, "kind": "poet", "name": "n"}) for t, k in zip("aabb", range(1, 5), strict=True)],
    ),
    (POETS, [(t, {"id": k, "verses": k}) for t, k in zip("aabb", range(1, 5), strict=True)]),
    (
        BOOKS,
        [
            (t, {"shelf": shelf, "place": place, "tenant_id": t, "title": "t"})
            for t, shelf, place in (("a", 1, 1), ("b", 1, 2), ("b", 2, 1), ("a", 2, 2))
        ],
    ),
    (
        links,
        [
            (t, {"author_id": author, "shelf": shelf, "place": place})
            for t, author, shelf, place in (
                ("a", 1, 1, 1),
                ("a", 2, 2, 2),
                ("b", 3, 1, 2),
                ("b", 4, 2, 1),
                ("both", 1, 1, 2),
                ("both", 3, 1, 1),
            )
        ],
    ),
    (SHARED, [("a", {"id": k, "name": "n"}) for k in range(1, 5)]),
]
"""The rows with their tenant; ``both`` are rows of the association between rows of two tenants."""

L, A, B, P = links.c, AUTHORS.c, BOOKS.c, POETS.c
BOOK = and_(L.shelf == B.shelf, L.place == B.place)


def _from(source: Any, *columns: Any) -> Any:
    return select(*(columns or links.c)).select_from(source)


def _subquery() -> Any:
    named = select(SHARED.c.id).subquery("tie_authors")
    return _from(links.join(named, L.author_id == named.c.id))


def _halves() -> Any:
    one, two = BOOKS.alias(), BOOKS.alias()
    return _from(links.join(one, L.shelf == one.c.shelf).join(two, L.place == two.c.place))


TIED: dict[str, Callable[[], Any]] = {
    "both ends by AND": lambda: _from(links.join(AUTHORS, L.author_id == A.id).join(BOOKS, BOOK)),
    "both ends in WHERE": lambda: select(links).where(A.id == L.author_id, BOOK),
    "a joined child": lambda: _from(POETS.join(AUTHORS, P.id == A.id), P.id),
    "a joined child of the ORM": lambda: select(Poet.id, Poet.verses),
    "many to many of the ORM": lambda: select(Author.id, Book.shelf).join(Author.books),
    "correlated": lambda: select(A.id).where(exists().where(L.author_id == A.id, BOOK)),
}
"""Real ties: no further condition with a subselect is needed."""

LOOSE: dict[str, Callable[[], Any]] = {
    "unequal": lambda: _from(links.join(AUTHORS, L.author_id != A.id)),
    "greater": lambda: _from(links.join(AUTHORS, L.author_id > A.id)),
    "OR": lambda: _from(links.join(AUTHORS, or_(L.author_id == A.id, A.id > 0))),
    "OR with the book": lambda: _from(links.join(AUTHORS, L.author_id == A.id).join(BOOKS, or_(BOOK, B.shelf > 0))),
    "not": lambda: _from(links.join(AUTHORS, ~and_(L.author_id == A.id, A.id > 0))),
    "wrong column": lambda: _from(links.join(AUTHORS, L.shelf == A.id)),
    "wrong column of the other": lambda: _from(links.join(BOOKS, L.author_id == B.shelf)),
    "one half": lambda: _from(links.join(AUTHORS, L.author_id == A.id).join(BOOKS, L.shelf == B.shelf)),
    "the other half": lambda: _from(links.join(AUTHORS, L.author_id == A.id).join(BOOKS, L.place == B.place)),
    "halves crossed": lambda: _from(links.join(BOOKS, and_(L.shelf == B.place, L.place == B.shelf))),
    "halves of two aliases": _halves,
    "one end": lambda: _from(links.join(AUTHORS, L.author_id == A.id)),
    "ON of an outer join": lambda: _from(links.outerjoin(AUTHORS, L.author_id == A.id).outerjoin(BOOKS, BOOK)),
    "optional side": lambda: _from(AUTHORS.outerjoin(links, L.author_id == A.id), A.id, L.shelf, L.place),
    "optional side, unequal": lambda: _from(AUTHORS.outerjoin(links, L.author_id != A.id), A.id, L.author_id),
    "child, unequal": lambda: _from(POETS.join(AUTHORS, P.id != A.id), P.id),
    "child, by another column": lambda: _from(POETS.join(AUTHORS, P.verses == A.id + 2), P.id),
    "child of the ORM, outer": lambda: select(Author.id, P.id).outerjoin(POETS, true()),
    "of a shared table": lambda: _from(links.join(SHARED, L.author_id == SHARED.c.id)),
    "of a subquery": _subquery,
    "of a table that another EXISTS reads": lambda: select(links).where(exists().where(A.id == 1), L.shelf > 0),
    "of a column of itself": lambda: select(links).where(L.author_id == L.author_id),
    "of an alias whose name means another table": lambda: _from(
        links.join(SHARED_X, L.author_id == OTHER_AUTHORS.c.id).join(BOOKS, BOOK)
    ),
}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def _fill(session: Session, *tenants: str) -> None:
    for table, rows in ROWS:
        session.execute(insert(table), [row for tenant, row in rows if tenant in tenants])


@pytest.fixture
def guarded(database: Database) -> Iterator[Session]:
    """A guarded session of tenant a, on the rows of both."""
    with Session(database.engine) as session, session.begin():
        _fill(session, "a", "b", "both")
    with guard_tenants(sessionmaker(database.engine))() as session:
        bind_tenant(session, "a")
        yield session


@pytest.fixture(scope="module")
def alone() -> Iterator[Session]:
    """A session without a guard, on a database in which tenant a is alone."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        _fill(session, "a")
        yield session
    engine.dispose()


def _rows(session: Session, statement: Any) -> list[tuple[Any, ...]]:
    """The rows, with a value of a mapped class at the end: the guard takes statements of the ORM only."""
    first = select(Shared.id).where(Shared.id == 1).correlate(None).scalar_subquery()
    return sorted(map(tuple, session.execute(statement.add_columns(first))), key=repr)


@pytest.mark.filterwarnings("ignore:.*cartesian product")
def test_a_join_shows_what_a_tenant_alone_would_see(guarded: Session, alone: Session) -> None:
    wrong = {}
    for name, make in (TIED | LOOSE).items():
        found, expected = _rows(guarded, make()), _rows(alone, make())
        if found != expected:
            wrong[name] = (found, expected)
    assert wrong == {}


def test_a_real_tie_needs_no_second_condition(guarded: Session) -> None:
    wrong = {}
    for name, make in TIED.items():
        with counted(guarded.get_bind()) as sent:  # type: ignore[arg-type]  # it is an engine
            assert _rows(guarded, make())
        if " IN (SELECT" in sent[-1]:
            wrong[name] = sent[-1]
    assert wrong == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: select(Table("tie_forged", MetaData(), Column("id", Integer))),
        lambda: select(AUTHORS.c.id).where(exists(select(Table("tie_forged", MetaData(), Column("id", Integer)).c.id))),
    ],
)
def test_an_unknown_table_is_named_in_the_refusal(guarded: Session, make: Callable[[], Any]) -> None:
    with pytest.raises(UnscopedStatementError, match=r"The table 'tie_forged', which is in no mapped class's metadata"):
        guarded.execute(make())
