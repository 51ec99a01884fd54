"""The repository that fits a class."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..cursors import CursorKey
from ..models.traits import traits_of
from .asynchronous import AsyncRepository, AsyncTenantRepository
from .sync import BaseRepository, BaseTenantRepository

M = TypeVar("M")


def create_repository(
    db: Session,
    model_class: type[M],
    tenant_id: Any = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> BaseRepository[M]:
    """A `BaseTenantRepository` for a tenant-scoped class, else a `BaseRepository`.

    Raises `TenantRequiredError` for a tenant-scoped class without a tenant; `ALL_TENANTS` is the explicit way across.
    """
    kind = BaseRepository if traits_of(model_class).tenant is None else BaseTenantRepository
    return kind(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)


def create_async_repository(
    db: AsyncSession,
    model_class: type[M],
    tenant_id: Any = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> AsyncRepository[M]:
    """As `create_repository`, on an `AsyncSession`."""
    kind = AsyncRepository if traits_of(model_class).tenant is None else AsyncTenantRepository
    return kind(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)
