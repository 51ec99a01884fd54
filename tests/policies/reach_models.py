"""Folders with papers of all kinds of relationships, for the matrix of what the rules reach."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    mapped_column,
    relationship,
)

from dotmac_database import Policy, QueryFilter, TenantMixin


class Base(AsyncAttrs, DeclarativeBase):
    """The tables of the matrix."""


class Folder(TenantMixin, Base):
    __tablename__ = "reached_folders"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    secret: Mapped[str | None]
    code: Mapped[str | None] = mapped_column(deferred=True)
    pages: Mapped[list[Page]] = relationship(back_populates="folder", order_by="Page.id", viewonly=True)
    dynamic: DynamicMapped[Page] = relationship(order_by="Page.id", viewonly=True)
    written: WriteOnlyMapped[Page] = relationship(order_by="Page.id", passive_deletes=True)


class Page(TenantMixin, Base):
    __tablename__ = "reached_pages"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    secret: Mapped[str | None]
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("reached_folders.id", ondelete="CASCADE"))
    folder: Mapped[Folder | None] = relationship(back_populates="pages", viewonly=True)
    lines: Mapped[list[Line]] = relationship(
        lazy="selectin", order_by="Line.id", back_populates="page", cascade="all, delete-orphan"
    )
    notes: Mapped[list[Note]] = relationship(lazy="joined", order_by="Note.id", passive_deletes=True)


class Line(TenantMixin, Base):
    __tablename__ = "reached_lines"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    secret: Mapped[str | None]
    page_id: Mapped[int] = mapped_column(ForeignKey("reached_pages.id", ondelete="CASCADE"))
    page: Mapped[Page] = relationship(back_populates="lines")


class Note(TenantMixin, Base):
    __tablename__ = "reached_notes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    page_id: Mapped[int] = mapped_column(ForeignKey("reached_pages.id", ondelete="CASCADE"))


class Actor(NamedTuple):
    id: str


ANN, BOB, CHIEF = Actor("ann"), Actor("bob"), Actor("chief")


def own(actor: Actor) -> Any:
    return True if actor == CHIEF else [QueryFilter("owner", "eq", actor.id)]


def unseen(actor: Actor) -> Any:
    return () if actor == CHIEF else ("secret",)


FOLDERS = Policy(
    Folder, read=True, update=lambda actor: actor == CHIEF, delete=True, hidden=lambda actor: ["code", *unseen(actor)]
)
PAGES = Policy(Page, read=own, create=own, update=own, delete=own, hidden=unseen)
LINES = Policy(Line, read=own, create=own, update=own, delete=own, hidden=unseen)
NOTES = Policy(Note, read=own, create=own, update=own, delete=own)
POLICIES = (FOLDERS, PAGES, LINES, NOTES)


def rows_of(tenant: str, base: int) -> list[Any]:
    """The objects to insert for a tenant: in each folder, ann has pages 1 and 3, and bob page 2."""
    rows: list[Any] = [Folder(id=base + 1, name="first", secret="s", code="c")]
    for page, owner in enumerate(("ann", "bob", "ann"), 1):
        rows.append(Page(id=base + page, owner=owner, secret="s", folder_id=base + 1))
        for line, other in enumerate(("ann", "bob"), 1):
            rows.append(Line(id=base + 10 * page + line, owner=other, secret="s", page_id=base + page))
            rows.append(Note(id=base + 10 * page + line, owner=other, page_id=base + page))
    for row in rows:
        row.tenant_id = tenant
    return rows
