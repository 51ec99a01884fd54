"""Mixins for declarative models; ``dotmac_database.sqlmodel`` has the same four for SQLModel.

A model that has these columns of its own, without a mixin, is treated alike: see `traits`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Integer, String, false, text
from sqlalchemy.orm import Mapped, mapped_column

from ..types import UTCDateTime, utc_now


class TenantMixin:
    """Rows belong to one tenant, named by ``tenant_id``; redeclare the column for another type."""

    tenant_id: Mapped[Any] = mapped_column(String(128), nullable=False, index=True)


class AuditMixin:
    """Who made and last changed a row, and when (UTC)."""

    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now, nullable=False)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now, onupdate=utc_now, nullable=False)
    created_by: Mapped[str | None] = mapped_column(String(255))
    updated_by: Mapped[str | None] = mapped_column(String(255))


class SoftDeleteMixin:
    """A deleted row stays, marked and hidden."""

    is_deleted: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false(), nullable=False)
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


class VersionMixin:
    """A row counts its changes, so that a stale one is refused."""

    version: Mapped[int] = mapped_column(Integer, default=1, server_default=text("1"), nullable=False)
