"""Utilities for testing applications: repositories and databases in memory, the leak test kit, and a pytest plugin."""

from .leaks import Leak, assert_no_leaks, async_find_leaks, find_leaks
from .memory import InMemoryDatabase
from .mock import AsyncMockRepository, MockRepository

__all__ = [
    "AsyncMockRepository",
    "InMemoryDatabase",
    "Leak",
    "MockRepository",
    "assert_no_leaks",
    "async_find_leaks",
    "find_leaks",
]
