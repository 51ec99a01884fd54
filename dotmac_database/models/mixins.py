"""Mixins for declarative models. ``dotmac_database.sqlmodel`` has the same ones for SQLModel.

A model that defines these columns without a mixin is treated the same: see `traits`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Integer, String, false, text
from sqlalchemy.orm import Mapped, mapped_column

from ..errors import MisuseError
from ..types import UTCDateTime, utc_now


class _Mixin:
    """Refuses to be a base of an SQLModel class, where Pydantic would take none of the columns for a field."""

    def __init_subclass__(cls, **options: object) -> None:
        """Raise `MisuseError` if the class derives from SQLModel, too."""
        super().__init_subclass__(**options)
        if any(each.__name__ == "SQLModel" and each.__module__ == "sqlmodel.main" for each in cls.__mro__):
            names = ", ".join(each.__name__ for each in cls.__mro__ if _Mixin in each.__bases__)
            raise MisuseError(
                f"{cls.__name__} is an SQLModel class, and the mixins of dotmac_database are for declarative models. "
                f"Use `from dotmac_database.sqlmodel import {names}`."
            )


class TenantMixin(_Mixin):
    """Rows belong to the tenant in ``tenant_id``. A model can redeclare the column with another type."""

    tenant_id: Mapped[Any] = mapped_column(String(128), nullable=False, index=True)


class AuditMixin(_Mixin):
    """The user who created a row, the user who last updated it, and the times (UTC)."""

    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now, nullable=False)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now, onupdate=utc_now, nullable=False)
    created_by: Mapped[str | None] = mapped_column(String(255))
    updated_by: Mapped[str | None] = mapped_column(String(255))


class SoftDeleteMixin(_Mixin):
    """Deleted rows stay in the table, but are marked as deleted, and reads omit them."""

    is_deleted: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false(), nullable=False)
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


class VersionMixin(_Mixin):
    """Each update by a repository increments ``version``, so that an update of a stale row can be refused."""

    version: Mapped[int] = mapped_column(Integer, default=1, server_default=text("1"), nullable=False)


class HistoryMixin(_Mixin):
    """Each change of a row is recorded in the table ``<table>_history``, by triggers, in the same transaction.

    The history table is in the metadata of the class, so that ``metadata.create_all`` and migrations create it. See
    ``repository.history``. Columns with ``info={"private": True}`` are not recorded. Mapping raises `MisuseError` for a
    class whose history can't be kept, such as one of joined inheritance.
    """

    __dotmac_history__ = True
