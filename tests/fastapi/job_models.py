"""Models of tenants, users and orders, on SQLite, on PostgreSQL, and with row-level security."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import AuditMixin, RowLevelSecurity, SoftDeleteMixin, TenantMixin, create_database
from tests.confined import confined_database


class Base(DeclarativeBase):
    pass


class Tenant(SoftDeleteMixin, AuditMixin, Base):
    """A tenant of the app."""

    __tablename__ = "job_tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    is_active: Mapped[bool] = mapped_column(default=True)


class User(TenantMixin, Base):
    """A user, whose rows belong to tenants: two tenants may have the same name."""

    __tablename__ = "job_users"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(default="member")


class Order(TenantMixin, SoftDeleteMixin, AuditMixin, Base):
    __tablename__ = "job_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="new")


RLS = RowLevelSecurity(Base.metadata)
KINDS = ("sqlite", "postgresql", "rls")
_NUMBERS = itertools.count()


@contextmanager
def database_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of a new database with the rows of `fill`."""
    if kind == "rls":
        server = request.getfixturevalue("postgres_server")
        name = f"jobs_{os.getpid()}_{next(_NUMBERS)}"
        with confined_database(server, name, RLS) as url:
            fill(sa.make_url(server).set(database=name))
            yield url
        return
    url = f"sqlite:///{folder}/jobs.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    fill(url)
    yield url


def fill(url: str | sa.URL) -> None:
    """Two tenants whose rows look alike, a suspended one and a deleted one; an order of each is soft-deleted."""
    database = create_database(url)
    with database.engine.begin() as connection:
        Base.metadata.create_all(connection)
        reset(connection)
    database.dispose()


def reset(connection: sa.Connection) -> None:
    """Only the rows of `fill`."""
    for table in reversed(Base.metadata.sorted_tables):
        connection.execute(table.delete())
    tenants = [("acme", True, False), ("globex", True, False), ("asleep", False, False), ("gone", True, True)]
    connection.execute(
        sa.insert(Tenant), [{"id": name, "is_active": active, "is_deleted": gone} for name, active, gone in tenants]
    )
    for first, tenant in enumerate(("acme", "globex", "asleep")):
        connection.execute(sa.insert(User), [{"id": "ada", "tenant_id": tenant, "role": f"owner of {tenant}"}])
        rows = [
            {"id": 10 * first + number, "tenant_id": tenant, "status": "new", "is_deleted": number == 3}
            for number in (1, 2, 3)
        ]
        connection.execute(sa.insert(Order), rows)
