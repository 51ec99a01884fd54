"""Typed, tenant-confined data access for SQLAlchemy and SQLModel, the same in sync and async."""

from .actors import acting_as, current_actor
from .breaker import CircuitBreaker
from .engines import ConnectionOptions, Database, create_database
from .errors import (
    CircuitOpenError,
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    EntityNotFoundError,
    InvalidCursorError,
    StaleEntityError,
    TenantIsolationError,
    TenantRequiredError,
    TransactionError,
    UnscopedStatementError,
    ValidationError,
)
from .health import DatabaseHealthChecker, HealthCheckResult, HealthStatus
from .models import AuditMixin, SoftDeleteMixin, TenantMixin, Traits, VersionMixin, traits_of
from .pagination import DatabasePaginator, PaginationHelper, PerformancePaginator
from .query import (
    CursorPaginationParams,
    CursorPaginationResult,
    FilterGroup,
    FilterOperator,
    PaginationParams,
    PaginationResult,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    all_of,
    any_of,
    none_of,
)
from .repositories import (
    AsyncRepository,
    AsyncTenantRepository,
    BaseRepository,
    BaseTenantRepository,
    create_async_repository,
    create_repository,
)
from .retry import RetryPolicy, RetryStrategy, with_retry
from .tenancy import ALL_TENANTS, Finding, RowLevelSecurity, bind_tenant, guard_tenants, tenant_scope, unscoped
from .transactions import DatabaseTransaction, TransactionManager, TransactionOptions, on_commit, on_rollback
from .types import UTCDateTime
