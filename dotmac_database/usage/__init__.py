"""Which tenants have rows in a database, and how many: see `Usage`."""

from .measuring import TableUsage, TenantUsage, Usage, measure
from .presence import Presence, find_tenants
from .tables import TableKind

__all__ = ["Presence", "TableKind", "TableUsage", "TenantUsage", "Usage", "find_tenants", "measure"]
