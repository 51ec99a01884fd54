"""For tests of applications: repositories and databases in memory; ``plugin`` is the one for pytest."""

from .memory import InMemoryDatabase
from .mock import AsyncMockRepository, MockRepository

__all__ = ["AsyncMockRepository", "InMemoryDatabase", "MockRepository"]
