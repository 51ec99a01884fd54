"""Utilities for testing applications: repositories and databases in memory, the leak test kit, factories and counts.

The package `dotmac_database_pytest` has them as fixtures of pytest.
"""

from .factories import AsyncModelFactories, AsyncModelFactory, ModelFactories, ModelFactory
from .leaks import Leak, assert_no_leaks, async_find_leaks, find_leaks
from .memory import InMemoryDatabase
from .mock import AsyncMockRepository, MockRepository
from .statement_counts import SentStatements, assert_statements

__all__ = [
    "AsyncMockRepository",
    "AsyncModelFactories",
    "AsyncModelFactory",
    "InMemoryDatabase",
    "Leak",
    "MockRepository",
    "ModelFactories",
    "ModelFactory",
    "SentStatements",
    "assert_no_leaks",
    "assert_statements",
    "async_find_leaks",
    "find_leaks",
]
