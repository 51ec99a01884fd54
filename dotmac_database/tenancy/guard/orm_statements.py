"""The checks of ORM statements before they run. New rows also get the tenant here; the compiler confines the rest."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Result, Table
from sqlalchemy.orm import Mapper, ORMExecuteState
from sqlalchemy.sql import visitors

from ...dialects.explain import Explain
from ...errors import TenantIsolationError, UnscopedStatementError
from ...models.traits import tenant_key
from ...sqlalchemy_internals import annotations_of, values_of
from ..context import TenantBinding, binding_of
from ..tables import TABLES, tenant_column
from ..values import column_value, same
from .inserts import change_of, stamp_insert, tenants_in_row
from .unit_of_work import check_attached, check_rows, core_writes_allowed

CONFINED = "dotmac_confined"
"""The execution option of a repository's statement: the tenant of the repository."""

PASSED = "dotmac_passed"
"""The execution option that marks a statement as checked by this module. Its value is the session's binding."""

_ORM_ANNOTATIONS = frozenset(("parententity", "parentmapper", "remote", "local", "foreign"))
"""Annotations that SQLAlchemy sets on the elements of mapped classes and relationships."""


def on_execute(state: ORMExecuteState) -> Result[Any] | None:
    """Check an ORM statement (the session's `do_orm_execute` event). `connection` checks all other statements."""
    binding = binding_of(state.session)
    assert binding is not None
    if binding.open:
        return None
    confined = state.execution_options.get(CONFINED)
    if confined is not None and not same(confined, binding.tenant):
        raise TenantIsolationError("The session serves another tenant than the repository.")
    if isinstance(state.statement, Explain):
        if confined is not None or _uses_mapped_classes(state.statement.statement):
            state.update_execution_options(**{PASSED: binding})
        return None
    if not (state.is_orm_statement or (state.is_select and _uses_mapped_classes(state.statement))):
        return None
    if confined is None or state.is_column_load:
        _check(state, binding)  # a repository has set the tenant in its rows already
    state.update_execution_options(**{PASSED: binding})
    if isinstance(state.parameters, list) and (state.is_insert or state.is_update):
        # The ORM executes these as Core statements, which do not get this statement's options.
        with core_writes_allowed(binding):
            return state.invoke_statement()
    return None


def _uses_mapped_classes(statement: Any) -> bool:
    """Whether a Core statement, such as ``select(exists(…))``, contains mapped classes."""
    return any(not _ORM_ANNOTATIONS.isdisjoint(annotations_of(each)) for each in visitors.iterate(statement))


def _check(state: ORMExecuteState, binding: TenantBinding) -> None:
    """Set the tenant in new rows, and refuse changes of a row's tenant and writes through another class."""
    mapper = state.bind_mapper
    if binding.tenant is None or mapper is None:
        return  # if the statement uses tenants' tables, the check in `connection` refuses it
    key = tenant_key(mapper)
    if key is None:
        if (state.is_update or state.is_insert) and _has_scoped_table(mapper):
            raise UnscopedStatementError("A table of a tenant-scoped class can't be changed through another class.")
    elif state.is_insert:
        stamp_insert(state, mapper, column_value(binding.tenant, tenant_column(mapper)))
    elif state.is_update or state.is_delete:
        _check_change(state, mapper, key, binding)
    elif state.is_column_load:
        check_attached(state.session, binding)


def _has_scoped_table(mapper: Mapper[object]) -> bool:
    """Whether a class without a tenant column is mapped to a table in which another class's rows have a tenant."""
    owners = (TABLES.owner(table) for table in mapper.tables if isinstance(table, Table))
    return any(owner is not None and not owner.extensions for owner in owners)


def _check_change(state: ORMExecuteState, mapper: Mapper[object], key: str, binding: TenantBinding) -> None:
    """Refuse an UPDATE that sets another tenant, and a bulk UPDATE by primary key that includes other tenants' rows."""
    column = tenant_column(mapper)
    tenant = column_value(binding.tenant, column)
    rows: list[Any] = state.parameters if isinstance(state.parameters, list) else [state.parameters or {}]
    for row in (*rows, values_of(change_of(state.statement))):
        if any(not same(value, tenant) for value in tenants_in_row(row, column, key)):
            raise TenantIsolationError(f"{mapper.class_.__name__}: a row can't be given to another tenant.")
    if isinstance(state.parameters, list) and state.is_update:
        names = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
        check_rows(state.session, mapper, binding, [tuple(row.get(name) for name in names) for row in rows])
