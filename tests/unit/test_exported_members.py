"""What the packages export is sorted, is there, and is all that the contract names."""

from __future__ import annotations

import importlib
import re

import pytest

import dotmac_database

CONTRACT = frozenset(
    re.findall(
        r"\w+",
        """
        FilterOperator QueryFilter any_of all_of none_of SortField SortOrder QueryOptions PaginationParams
        CursorPaginationParams PaginationResult CursorPaginationResult BaseRepository AsyncRepository
        BaseTenantRepository AsyncTenantRepository create_repository create_async_repository ALL_TENANTS TenantMixin
        AuditMixin SoftDeleteMixin VersionMixin acting_as guard_tenants bind_tenant tenant_scope unscoped
        RowLevelSecurity Finding DatabaseTransaction TransactionManager RetryPolicy RetryStrategy with_retry
        CircuitBreaker on_commit PaginationHelper DatabasePaginator PerformancePaginator DatabaseHealthChecker
        HealthCheckResult HealthStatus DatabaseError EntityNotFoundError DuplicateEntityError ConstraintViolationError
        ValidationError InvalidCursorError TenantRequiredError TenantIsolationError UnscopedStatementError
        StaleEntityError TransactionError CircuitOpenError DatabaseUnavailableError DatabaseTimeoutError
        create_database instrument StatementBudget StatementBudgetExceeded
        """,
    )
)


@pytest.mark.parametrize(
    "name",
    [
        "dotmac_database",
        "dotmac_database.testing",
        "dotmac_database.tenancy",
        "dotmac_database.transfers",
        "dotmac_database_fastapi",
    ],
)
def test_exports_are_sorted_and_there(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__ == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for exported in module.__all__:
        assert hasattr(module, exported), exported


def test_every_name_of_the_contract_is_exported() -> None:
    assert sorted(CONTRACT - set(dotmac_database.__all__)) == []
