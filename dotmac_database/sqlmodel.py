"""The mixins for SQLModel: the same columns as `dotmac_database.models.mixins`.

Derive from them beside ``SQLModel``, before or after it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy import String, false, text
from sqlmodel import Field

from .types import UTCDateTime, utc_now

# SQLModel reads annotations at run time. From sa_type and sa_column_kwargs it makes a new Column for each class. A
# ready-made sa_column could not be used here, because it could belong to one table only.


class TenantMixin(BaseModel):
    """Each row belongs to the tenant in ``tenant_id``. If the column needs another type, declare the field again."""

    tenant_id: Any = Field(default=None, sa_type=String(128), nullable=False, index=True)


class AuditMixin(BaseModel):
    """Who made and last changed a row, and when (UTC)."""

    created_at: datetime | None = Field(default_factory=utc_now, sa_type=UTCDateTime, nullable=False)
    updated_at: datetime | None = Field(
        default_factory=utc_now, sa_type=UTCDateTime, nullable=False, sa_column_kwargs={"onupdate": utc_now}
    )
    created_by: str | None = Field(default=None, sa_type=String(255))
    updated_by: str | None = Field(default=None, sa_type=String(255))


class SoftDeleteMixin(BaseModel):
    """A deleted row stays in the table. It is marked as deleted, and reads omit it."""

    is_deleted: bool = Field(default=False, nullable=False, sa_column_kwargs={"server_default": false()})
    deleted_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class VersionMixin(BaseModel):
    """The version of a row, which each update increments, so that an update of a stale row is refused."""

    version: int = Field(default=1, nullable=False, sa_column_kwargs={"server_default": text("1")})
