"""The rules inside a tenant as PostgreSQL's policies: `RowLevelSecurity` with ``policies``.

``ruled`` makes the policies of one table, and ``compiling`` their conditions; ``related`` refuses those that PostgreSQL
would apply otherwise. ``announcing`` sets the actor in each transaction.
"""

from .announcing import exercising
from .security import RowLevelSecurity

__all__ = ["RowLevelSecurity", "exercising"]
