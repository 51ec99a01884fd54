"""A small app with what that of `docs/endpoints.md` does not have: a bearer token, an enum, decimals and dates."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import TenantMixin, VersionMixin
from dotmac_database_fastapi import DatabasePlugin, crud_router, register_exception_handlers

Credentials = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


class Base(DeclarativeBase):
    """The base class of the table of this app."""


class Genre(enum.StrEnum):
    """What somebody writes."""

    POEMS = "poems"
    PROSE = "prose"


class Author(TenantMixin, VersionMixin, Base):
    """Somebody who writes books."""

    __tablename__ = "authors"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    born_on: Mapped[date | None]
    genre: Mapped[Genre] = mapped_column(sa.Enum(Genre, native_enum=False, length=8), default=Genre.PROSE)
    fee: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2))


async def tenant_of_token(token: Credentials) -> str:
    """The tenant of a token such as ``acme.ann``. A real app verifies its signature."""
    return token.credentials.partition(".")[0]


def create_app(url: str) -> FastAPI:
    """The app, whose table must be there."""
    plugin = DatabasePlugin(url, tenant=tenant_of_token, cursor_key="a key of the tests")
    app = FastAPI(title="Authors", version="1.0", lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Author, prefix="/authors"))
    return app
