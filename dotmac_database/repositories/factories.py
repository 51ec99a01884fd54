"""Functions that create the repository for a mapped class."""

from __future__ import annotations

from typing import TypeVar, overload

from ..models.scoped import TenantScoped
from ..models.traits import traits_of
from ..paging.cursors import CursorKey
from .asynchronous import AsyncRepository, AsyncTenantRepository
from .core import AnyAsyncSession, AnySyncSession
from .sync import BaseRepository, BaseTenantRepository

M = TypeVar("M")
T = TypeVar("T", bound=TenantScoped)
S = TypeVar("S", bound=AnySyncSession)
A = TypeVar("A", bound=AnyAsyncSession)


@overload
def create_repository(
    db: S,
    model_class: type[T],
    tenant_id: object = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> BaseTenantRepository[T, S]: ...
@overload
def create_repository(
    db: S,
    model_class: type[M],
    tenant_id: object = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> BaseRepository[M, S]: ...
def create_repository(
    db: S,
    model_class: type[M],
    tenant_id: object = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> BaseRepository[M, S]:
    """A `BaseTenantRepository` for a tenant-scoped class, else a `BaseRepository`.

    Raises `TenantRequiredError` for a tenant-scoped class without a tenant. `ALL_TENANTS` works across all tenants.
    """
    if traits_of(model_class).tenant is None:
        return BaseRepository(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)
    return BaseTenantRepository(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)


@overload
def create_async_repository(
    db: A,
    model_class: type[T],
    tenant_id: object = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> AsyncTenantRepository[T, A]: ...
@overload
def create_async_repository(
    db: A,
    model_class: type[M],
    tenant_id: object = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> AsyncRepository[M, A]: ...
def create_async_repository(
    db: A,
    model_class: type[M],
    tenant_id: object = None,
    auto_commit: bool = True,
    *,
    cursor_key: CursorKey = None,
) -> AsyncRepository[M, A]:
    """As `create_repository`, on an `AsyncSession`."""
    if traits_of(model_class).tenant is None:
        return AsyncRepository(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)
    return AsyncTenantRepository(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)
