"""Tenant isolation: guarded sessions, and PostgreSQL's row-level security as a second line of defence.

``alembic`` has the operations for migrations. It is not imported here, since it requires Alembic.
"""

from .context import ALL_TENANTS, bind_tenant, bound_tenant, is_guarded, restrict_to_reads, tenant_scope, unscoped
from .guard.sessions import guard_tenants
from .keys import LooseKey, check_tenant_keys, loose_keys, tenant_foreign_key, tenant_primary_key, tenant_unique
from .rls.row_level_security import RowLevelSecurity
from .rls.verification import Finding

__all__ = [
    "ALL_TENANTS",
    "Finding",
    "LooseKey",
    "RowLevelSecurity",
    "bind_tenant",
    "bound_tenant",
    "check_tenant_keys",
    "guard_tenants",
    "is_guarded",
    "loose_keys",
    "restrict_to_reads",
    "tenant_foreign_key",
    "tenant_primary_key",
    "tenant_scope",
    "tenant_unique",
    "unscoped",
]
