"""Models, schemas and rows for the tests of exports and facets: two tenants whose rows look alike, some deleted."""

from __future__ import annotations

import asyncio
import csv
import enum
import io
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_serializer
from sqlalchemy import JSON, ForeignKey, Numeric, TypeDecorator
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import Field as Column
from sqlmodel import SQLModel

from dotmac_database import (
    AsyncTenantRepository,
    QueryFilter,
    QueryOptions,
    RowLevelSecurity,
    SoftDeleteMixin,
    TenantMixin,
    create_database,
    guard_tenants,
)
from dotmac_database.sqlmodel import SoftDeleteMixin as SQLModelSoftDelete
from dotmac_database.sqlmodel import TenantMixin as SQLModelTenant
from dotmac_database_fastapi import DatabasePlugin, get_session, register_exception_handlers, tenant_from_header
from tests.confined import confined_database
from tests.fastapi.conftest import Api, checked_out


class Base(DeclarativeBase):
    """The tables of the declarative models."""


class Grade(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Cents(TypeDecorator[Decimal]):
    """An amount in an integer."""

    impl, cache_ok = sa.BigInteger, True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else int(value * 100)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Decimal(value) / 100


class Account(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "exported_accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    grade: Mapped[Grade | None]
    active: Mapped[bool] = mapped_column(default=True)
    code: Mapped[UUID | None]
    opened: Mapped[date | None]
    seen_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    balance: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=0)
    price: Mapped[Decimal | None] = mapped_column(Cents)
    ratio: Mapped[float | None]
    notes: Mapped[Any | None] = mapped_column(JSON)
    long: Mapped[str | None] = mapped_column(deferred=True)
    secret: Mapped[str | None] = mapped_column(info={"private": True})

    lines: Mapped[list[Line]] = relationship(order_by="Line.id")


class Line(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "exported_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("exported_accounts.id"))
    text: Mapped[str]


class Member(SQLModelTenant, SQLModelSoftDelete, SQLModel, table=True):
    __tablename__ = "exported_members"
    metadata = Base.metadata

    id: int | None = Column(default=None, primary_key=True)
    name: str = Column(max_length=40)
    balance: Decimal = Column(default=Decimal(0), max_digits=10, decimal_places=2)
    grade: Grade | None = None


class LineRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    text: str


class AccountRead(BaseModel):
    """A schema of the user's: an alias, a serializer, a computed value, a relationship, a deferred column."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str = Field(serialization_alias="fullName")
    grade: Grade | None
    balance: Decimal
    long: str | None
    lines: list[LineRead]

    @field_serializer("grade")
    def shouted(self, grade: Grade | None) -> str | None:
        return None if grade is None else grade.value.upper()

    @computed_field  # type: ignore[prop-decorator]  # as Pydantic documents it
    @property
    def doubled(self) -> Decimal:
        return self.balance * 2


class Accounts(AsyncTenantRepository[Account]):
    """A repository class of the user's, which shows a part of the rows."""

    def conditions(self) -> Sequence[sa.ColumnElement[bool]]:
        return (Account.name != "Bob",)


class Streaming(AsyncTenantRepository[Account]):
    """A repository class of the user's, which hides rows of pages and of streams by a filter."""

    async def stream(self, options: Any = None, batch_size: int = 1000) -> AsyncIterator[Account]:
        async for row in super().stream(_without_bob(options), batch_size):
            yield row

    async def list_paginated(self, options: Any = None) -> Any:
        return await super().list_paginated(_without_bob(options))


def _without_bob(options: QueryOptions) -> QueryOptions:
    return replace(options, filters=[*options.filters, QueryFilter("name", "ne", "Bob")])


NAMES = ("Ann", "Bob", "=Cid", 'd,"d"\r\n', "Éve")
"""The names of a tenant's rows, in the order of their keys. (The row "gone" is deleted.)"""


def rows_of(tenant: str, first: int) -> Iterator[dict[str, Any]]:
    for index, name in enumerate((*NAMES, "gone")):
        yield {
            "id": first + index,
            "tenant_id": tenant,
            "is_deleted": name == "gone",
            "name": name,
            "grade": (Grade.HIGH, Grade.LOW, Grade.HIGH, None, Grade.LOW, Grade.LOW)[index],
            "active": index != 1,
            "code": UUID(int=1) if index < 2 else None,
            "opened": date(2024, 1, 1 + index // 2),
            "seen_at": datetime(2024, 1, 1, 12, index, 0, 5, tzinfo=UTC) if index else None,
            "balance": Decimal("-1.50") if index < 3 else Decimal(index),
            "price": Decimal("2.5") if index % 2 else None,
            "ratio": 0.5 if index else None,
            "notes": [{"of": tenant}, [1, "=x"], None, "text", 7, 7][index],
            "long": "=long" if index == 2 else None,
            "secret": tenant,
        }


def fill(connection: sa.Connection) -> None:
    """The rows of the tenants a and b, which differ in their keys only."""
    for tenant, first in (("a", 1), ("b", 101)):
        rows = list(rows_of(tenant, first))
        connection.execute(sa.insert(Account), rows)
        of_member = ("id", "tenant_id", "is_deleted", "name", "balance", "grade")
        connection.execute(sa.insert(Member), [{key: row[key] for key in of_member} for row in rows])
        lines = [
            {"id": first + number, "tenant_id": tenant, "is_deleted": number == 2, "account_id": first, "text": "x"}
            for number in range(3)
        ]
        connection.execute(sa.insert(Line), lines)


def parsed(text: str, media_type: str) -> list[dict[str, Any]]:
    """The rows of an export."""
    if media_type.startswith("text/csv"):
        assert text.endswith("\r\n")
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def cell_of(value: Any, number: bool) -> str:
    """The cell that is expected for a value of the list's JSON."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str():
            return f"'{value}" if value.startswith("=") or (value.startswith("-") and not number) else value
        case list() | dict():
            return json.dumps(value, separators=(",", ":"))
        case _:
            return str(value)


@dataclass
class Place:
    """A database with the rows, the options of a plugin for it, and whether its app supplies the session."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    lends: bool = False


PLACES = ("sqlite", "asyncpg", "rls", "guarded")
"""The kinds of places. ``guarded``: the session is the app's own, which is guarded and used by all requests."""

RLS = RowLevelSecurity(Base.metadata)


@contextmanager
def place_named(request: pytest.FixtureRequest, folder: Path) -> Iterator[Place]:
    """The place of this kind, which is the parameter of a fixture, with the rows."""
    if request.param == "rls":
        server = request.getfixturevalue("postgres_server")
        name = f"exports_{os.getpid()}"
        with confined_database(server, name, RLS) as url:
            _fill_at(sa.make_url(server).set(database=name))
            yield Place(url, {"rls": RLS})
        return
    url = f"sqlite:///{folder}/{request.param}.db"
    if request.param == "asyncpg":
        url = request.getfixturevalue("postgres_url")
    _fill_at(url)
    yield Place(url, lends=request.param == "guarded")


def _fill_at(url: str | sa.URL) -> None:
    database = create_database(url)
    with database.engine.begin() as connection:
        Base.metadata.create_all(connection)
        fill(connection)
    database.dispose()


class PlaceApi(Api):
    """A client of an app on a place, which knows the app's plugin."""

    plugin: DatabasePlugin


@contextmanager
def served_on(place: Place, runner: asyncio.Runner, **options: Any) -> Iterator[PlaceApi]:
    """A client of an app on the place, whose connections must all be back in the pool at the end."""
    options = {"tenant": tenant_from_header("X-Tenant-ID"), **place.options, **options}
    plugin = DatabasePlugin(place.url, **options)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    lent: Any = None
    if place.lends:
        lent = guard_tenants(async_sessionmaker(plugin.database.async_engine, expire_on_commit=False))()
        app.dependency_overrides[get_session] = lambda: lent
    api = PlaceApi(app, runner)
    api.plugin = plugin
    yield api
    if lent is not None:
        runner.run(lent.close())
    assert checked_out(plugin) == 0
    runner.run(plugin.database.dispose_async())
