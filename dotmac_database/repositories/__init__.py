"""Typed data access, sync and async."""

from .asynchronous import AsyncRepository, AsyncTenantRepository
from .factories import create_async_repository, create_repository
from .sync import BaseRepository, BaseTenantRepository

__all__ = [
    "AsyncRepository",
    "AsyncTenantRepository",
    "BaseRepository",
    "BaseTenantRepository",
    "create_async_repository",
    "create_repository",
]
