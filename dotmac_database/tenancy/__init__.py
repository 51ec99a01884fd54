"""One session, one tenant: the guard, and PostgreSQL's row-level security behind it."""

from .context import ALL_TENANTS, bind_tenant, tenant_scope, unscoped
from .guard import guard_tenants
from .rls import Finding, RowLevelSecurity

__all__ = ["ALL_TENANTS", "Finding", "RowLevelSecurity", "bind_tenant", "guard_tenants", "tenant_scope", "unscoped"]
