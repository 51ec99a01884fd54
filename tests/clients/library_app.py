"""An app of three related tables behind a bearer token, with all that clients have to know of generated routes."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin, idempotency_metadata
from dotmac_database_fastapi import DatabasePlugin, crud_router, register_exception_handlers

Credentials = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


class Base(DeclarativeBase):
    """The base class of the tables of this app."""


class Form(enum.StrEnum):
    """What a book is made of."""

    PAPER = "paper"
    SOUND = "sound"


class Author(TenantMixin, AuditMixin, VersionMixin, SoftDeleteMixin, Base):
    """Somebody who has written books."""

    __tablename__ = "authors"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "name"), sa.UniqueConstraint("tenant_id", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    born_on: Mapped[date | None]

    books: Mapped[list[Book]] = relationship(back_populates="author", viewonly=True)


class Book(TenantMixin, VersionMixin, SoftDeleteMixin, Base):
    """A book of an author."""

    __tablename__ = "books"
    __table_args__ = (
        sa.ForeignKeyConstraint(["tenant_id", "author_id"], ["authors.tenant_id", "authors.id"]),
        sa.UniqueConstraint("tenant_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int]
    title: Mapped[str] = mapped_column(sa.String(120))
    form: Mapped[Form] = mapped_column(sa.Enum(Form, native_enum=False, length=8), default=Form.PAPER)
    price: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2))

    author: Mapped[Author] = relationship(back_populates="books", viewonly=True)


class Review(TenantMixin, Base):
    """What a reader says of a book."""

    __tablename__ = "reviews"
    __table_args__ = (sa.ForeignKeyConstraint(["tenant_id", "book_id"], ["books.tenant_id", "books.id"]),)

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int]
    stars: Mapped[int] = mapped_column(sa.SmallInteger)
    words: Mapped[str | None] = mapped_column(sa.Text)


async def tenant_of_token(token: Credentials) -> str:
    """The tenant of a token such as ``acme.ann``. A real app verifies its signature."""
    return token.credentials.partition(".")[0]


async def reader_of_token(token: Credentials) -> str:
    """The reader of a token such as ``acme.ann``."""
    return token.credentials.partition(".")[2]


def create_app(url: str) -> FastAPI:
    """The app, whose tables must be there: see `create_tables`."""
    plugin = DatabasePlugin(url, tenant=tenant_of_token, actor=reader_of_token, cursor_key="a key of the tests")
    app = FastAPI(title="Library", version="1.0", lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Author, prefix="/authors", idempotency=True))
    app.include_router(crud_router(Book, prefix="/books", idempotency=True, search=("title",)))
    app.include_router(crud_router(Review, prefix="/reviews"))
    return app


def create_tables(url: str) -> None:
    """Create the tables of the app."""
    engine = sa.create_engine(url)
    for metadata in (Base.metadata, idempotency_metadata):
        metadata.create_all(engine)
    engine.dispose()
