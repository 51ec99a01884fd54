"""Statements of the ORM: checked and stamped before they run. The compiler confines them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Result, Table
from sqlalchemy.orm import Mapper, ORMExecuteState
from sqlalchemy.sql import visitors

from ..dialects.explain import Explain
from ..errors import TenantIsolationError, UnscopedStatementError
from ..models.traits import tenant_key
from .context import TenantBinding, binding_of
from .inserts import names_tenant, stamped_insert, written_by
from .tables import TABLES, tenant_column
from .unit_of_work import attached_are_own, rows_are_own, writing_by_itself
from .values import same, stored

CONFINED = "dotmac_confined"
"""The execution option of a repository's statement: the tenant whose rows it is about."""

PASSED = "dotmac_passed"
"""The execution option of a statement that this module has let pass: the session's binding."""

_OF_THE_ORM = frozenset(("parententity", "parentmapper", "remote", "local", "foreign"))
"""What the ORM notes on the elements of mapped classes and relationships."""


def on_execute(state: ORMExecuteState) -> Result[Any] | None:
    """The session's `do_orm_execute`: check a statement of the ORM, and leave all others to the connection's look."""
    binding = binding_of(state.session)
    assert binding is not None
    if binding.open:
        return None
    confined = state.execution_options.get(CONFINED)
    if confined is not None and not same(confined, binding.tenant):
        raise TenantIsolationError("The session serves another tenant than the repository.")
    if isinstance(state.statement, Explain):
        if confined is not None or _names_classes(state.statement.statement):
            state.update_execution_options(**{PASSED: binding})
        return None
    if not (state.is_orm_statement or (state.is_select and _names_classes(state.statement))):
        return None
    if confined is None or state.is_column_load:
        _check(state, binding)  # a repository has stamped its rows itself
    state.update_execution_options(**{PASSED: binding})
    if isinstance(state.parameters, list) and (state.is_insert or state.is_update):
        # The ORM runs these as statements on the table, without the options of this one.
        with writing_by_itself(binding):
            return state.invoke_statement()
    return None


def _names_classes(statement: Any) -> bool:
    """Whether a statement of Core names mapped classes inside, such as ``select(exists(…))``."""
    return any(not _OF_THE_ORM.isdisjoint(getattr(each, "_annotations", ())) for each in visitors.iterate(statement))


def _check(state: ORMExecuteState, binding: TenantBinding) -> None:
    """Stamp new rows; refuse what would give a row to another tenant, or write it through another class."""
    mapper = state.bind_mapper
    if binding.tenant is None or mapper is None:
        return  # the connection's look refuses it, if it touches tenants' tables
    key = tenant_key(mapper)
    if key is None:
        if (state.is_update or state.is_insert) and _names_owner(mapper):
            raise UnscopedStatementError("A table of a tenant-scoped class can't be changed through another class.")
    elif state.is_insert:
        stamped_insert(state, mapper, stored(binding.tenant, tenant_column(mapper)))
    elif state.is_update or state.is_delete:
        _check_change(state, mapper, key, binding)
    elif state.is_column_load:
        attached_are_own(state.session, binding)


def _names_owner(mapper: Mapper[Any]) -> bool:
    """Whether a table of a class that no tenant owns has the column by which another class's rows are a tenant's."""
    owners = (TABLES.owner(table) for table in mapper.tables if isinstance(table, Table))
    return any(owner is not None and not owner.extensions for owner in owners)


def _check_change(state: ORMExecuteState, mapper: Mapper[Any], key: str, binding: TenantBinding) -> None:
    """Refuse an UPDATE that gives rows to another tenant, and look up the rows of one by primary keys."""
    column = tenant_column(mapper)
    tenant = stored(binding.tenant, column)
    rows: list[Any] = state.parameters if isinstance(state.parameters, list) else [state.parameters or {}]
    written = written_by(state.statement)
    values = getattr(written, "_values", None) or {}
    ordered = dict(getattr(written, "_ordered_values", None) or ())
    for given in (*rows, values, ordered):
        if any(not same(value, tenant) for value in names_tenant(given, column, key)):
            raise TenantIsolationError(f"{mapper.class_.__name__}: a row can't be given to another tenant.")
    if isinstance(state.parameters, list) and state.is_update:
        names = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
        rows_are_own(state.session, mapper, binding, [tuple(row.get(name) for name in names) for row in rows])
