"""Models of orders with lines, and the databases on which their generated endpoints are tested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy import CheckConstraint, Column, ForeignKey, Table, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import Database, RowLevelSecurity, SoftDeleteMixin, TenantMixin, VersionMixin, create_database
from dotmac_database_fastapi import DatabasePlugin, register_exception_handlers, tenant_from_header
from tests.confined import confined_database
from tests.conftest import empty
from tests.fastapi.conftest import Api


class Base(DeclarativeBase):
    """The tables of orders."""


class Customer(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "item_customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Label(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "item_labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


order_labels = Table(
    "item_order_labels",
    Base.metadata,
    Column("order_id", ForeignKey("item_orders.id"), primary_key=True),
    Column("label_id", ForeignKey("item_labels.id"), primary_key=True),
)


class Order(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "item_orders"
    __table_args__ = (UniqueConstraint("tenant_id", "number"), CheckConstraint("total >= 0", "item_total"))

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str]
    note: Mapped[str | None]
    total: Mapped[int] = mapped_column(default=0)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("item_customers.id"))

    lines: Mapped[list[Line]] = relationship(order_by="Line.id")
    notes: Mapped[list[Note]] = relationship()
    labels: Mapped[list[Label]] = relationship(secondary=order_labels)
    customer: Mapped[Customer | None] = relationship()


class Line(TenantMixin, Base):
    __tablename__ = "item_lines"
    __table_args__ = (UniqueConstraint("order_id", "sku"), CheckConstraint("quantity > 0", "item_quantity"))

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("item_orders.id"))
    sku: Mapped[str]
    quantity: Mapped[int] = mapped_column(default=1)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("item_customers.id"))


class Note(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "item_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    order_id: Mapped[int | None] = mapped_column(ForeignKey("item_orders.id"))


class Slot(Base):
    """A composite key with the tenant in it."""

    __tablename__ = "item_slots"
    __tenant_column__ = "org"

    org: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str | None]


class Word(TenantMixin, Base):
    """The client makes the key."""

    __tablename__ = "item_words"

    word: Mapped[str] = mapped_column(primary_key=True)


TENANTS = ("a", "b")
OWN, DELETED, OTHER = 1, 2, 3
"""The rows of tenant a; those of tenant b have keys that are 10 higher."""
UNKNOWN = 99


def key_of(tenant: str, kind: str) -> int:
    """The key of a row as a tenant sees it: ``own``, ``other``, ``deleted``, ``foreign`` or ``unknown``."""
    if kind == "unknown":
        return UNKNOWN
    base = 10 * TENANTS.index(tenant)
    if kind == "foreign":
        return 10 - base + OWN
    return base + {"own": OWN, "other": OTHER, "deleted": DELETED}[kind]


def fill(database: Database) -> None:
    """The same rows for each tenant: two that exist, and one that is deleted, of each class."""
    tables: dict[str, Any] = Base.metadata.tables  # type: ignore[assignment]
    with database.engine.begin() as connection:
        for tenant in TENANTS:
            for kind in ("own", "deleted", "other"):
                key = key_of(tenant, kind)
                row = {"id": key, "tenant_id": tenant, "is_deleted": kind == "deleted"}
                connection.execute(tables["item_customers"].insert(), {**row, "name": kind})
                connection.execute(tables["item_labels"].insert(), {**row, "name": kind})
                order = {**row, "number": kind, "total": 1, "version": 1}
                connection.execute(tables["item_orders"].insert(), order)
                connection.execute(tables["item_notes"].insert(), {**row, "text": kind})
            own = key_of(tenant, "own")
            connection.execute(order_labels.insert(), {"order_id": own, "label_id": own})
            for hour in (1, 2):
                connection.execute(tables["item_slots"].insert(), {"org": tenant, "day": 1, "hour": hour})
        if connection.dialect.name == "postgresql":
            for table in ("customers", "labels", "orders", "notes", "lines"):
                connection.exec_driver_sql(f"SELECT setval('item_{table}_id_seq', 1000)")


class Stored(NamedTuple):
    """What the tables contain."""

    tables: dict[str, list[tuple[Any, ...]]]

    def of(self, tenant: str) -> dict[str, list[tuple[Any, ...]]]:
        """The rows of a tenant, and its links."""
        own = {int(row[0]) for row in self.tables["item_orders"] if tenant in row}
        return {
            name: [row for row in rows if (row[0] in own if name == "item_order_labels" else tenant in row)]
            for name, rows in self.tables.items()
        }


def stored(database: Database) -> Stored:
    with database.engine.connect() as connection:
        return Stored(
            {
                name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
                for name, table in Base.metadata.tables.items()
            }
        )


class Tables(NamedTuple):
    """Tables, and what fills them."""

    metadata: sa.MetaData
    fill: Callable[[Database], None]


class World:
    """A database with its owner's access, and apps of the role that uses it."""

    def __init__(self, url: str, owner: Database, rls: RowLevelSecurity | None, tables: Tables) -> None:
        self.url = url
        self.owner = owner
        self.rls = rls
        self.tables = tables

    def refill(self) -> None:
        empty(self.owner, self.tables.metadata)
        self.tables.fill(self.owner)

    @contextmanager
    def api(self, **options: Any) -> Iterator[tuple[FastAPI, Api]]:
        options.setdefault("tenant", tenant_from_header("X-Tenant-ID"))
        plugin = DatabasePlugin(self.url, rls=self.rls, **options)
        app = FastAPI(lifespan=plugin.lifespan)
        app.state.plugin = plugin
        register_exception_handlers(app)
        with asyncio.Runner() as runner:
            try:
                yield app, Api(app, runner)
            finally:
                runner.run(plugin.database.dispose_async())


RINGS = ("sqlite", "postgresql", "rls")


@contextmanager
def world_of(
    request: pytest.FixtureRequest, directory: Path, tables: Tables = Tables(Base.metadata, fill)
) -> Iterator[World]:
    """A new database of the ring ``request.param``, with these tables.

    It is SQLite, PostgreSQL, or PostgreSQL with row-level security and a role that it confines.
    """
    ring, name = request.param, request.module.__name__.rpartition(".")[2].replace("test_", "")
    if ring == "sqlite":
        owner = create_database(f"sqlite:///{directory}/{name}.db")
        tables.metadata.create_all(owner.engine)
        yield World(f"sqlite:///{directory}/{name}.db", owner, None, tables)
        owner.dispose()
        return
    rls, postgres_server = RowLevelSecurity(tables.metadata), request.getfixturevalue("postgres_server")
    with confined_database(postgres_server, name, rls) as url:
        whole = sa.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
        owner = create_database(whole)
        yield World(url if ring == "rls" else whole, owner, rls if ring == "rls" else None, tables)
        owner.dispose()
