"""The table of the benchmarks, and the statement that fills it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import SoftDeleteMixin, TenantMixin, outbox_table
from dotmac_database.types import UTCDateTime, utc_now


class Base(DeclarativeBase):
    """The base class of the benchmark's table."""


class UserColumns(TenantMixin, SoftDeleteMixin):
    """The ten columns of a user, as many services have them."""

    tenant_id: Mapped[str] = mapped_column(String(32))
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120))
    status: Mapped[str] = mapped_column(String(16), default="active")
    score: Mapped[int] = mapped_column(default=0)
    bio: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)


def user_indexes(prefix: str) -> tuple[UniqueConstraint, Index, Index]:
    """One index for each query. The names begin with ``prefix``."""
    return (
        UniqueConstraint("tenant_id", "email"),
        Index(f"{prefix}_by_status", "tenant_id", "status", "created_at", "id"),
        Index(f"{prefix}_by_created", "tenant_id", "created_at", "id"),
    )


class User(UserColumns, Base):
    """The class of the main table."""

    __tablename__ = "bench_users"
    __table_args__ = user_indexes("bench")


outbox_table(Base.metadata)
COLUMNS = tuple(column.key for column in User.__table__.columns)

FILL = """
INSERT INTO bench_users (tenant_id, id, name, email, status, score, bio, created_at, is_deleted)
SELECT 'tenant-' || (n % 50), md5('user' || n)::uuid, 'User ' || n, 'user' || n || '@example.org',
       CASE WHEN n % 3 = 0 THEN 'active' ELSE 'idle' END, n % 1000, 'Some words about user ' || n,
       timestamptz '2024-01-01' + n * interval '31 seconds', false
FROM generate_series(1, {rows}) n
"""
