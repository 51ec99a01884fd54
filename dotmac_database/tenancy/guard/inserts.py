"""INSERT statements on tenant-scoped classes: their rows get the tenant, or the statement is refused."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, TypeAlias

from sqlalchemy import Column, ColumnElement, Executable, Insert
from sqlalchemy.orm import Mapper, ORMExecuteState
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.sql.elements import BindParameter

from ...errors import TenantIsolationError, UnscopedStatementError
from ...models.traits import tenant_key
from ...sqlalchemy_internals import (
    annotations_of,
    clone,
    conflict_clause,
    selected_names,
    set_conflict_clause,
    values_of,
    values_of_rows,
)
from ..tables import tenant_column
from ..values import same

Values: TypeAlias = Mapping[Any, Any]
"""The values of a row, each by a string, a column or an attribute."""

Parameters: TypeAlias = list[Values] | Values | None


def stamp_insert(state: ORMExecuteState, mapper: Mapper[object], tenant: object) -> None:
    """Set the tenant in every row of an INSERT. Raises `TenantIsolationError` for a row of another tenant."""
    original = state.statement
    insert = change_of(original)
    parameters: Any = state.parameters
    statement, state.parameters = _stamp(insert, parameters, mapper, tenant)
    if original is insert:
        state.statement = statement
    else:  # select(…).from_statement(insert(…).returning(…))
        outer = clone(original)
        outer.element = statement
        state.statement = outer


def change_of(statement: Executable) -> Any:
    """The INSERT, UPDATE or DELETE of a statement, which can be within ``select(…).from_statement(…)``."""
    return statement.element if isinstance(statement, FromStatement) else statement


def _stamp(
    statement: Insert, parameters: Parameters, mapper: Mapper[object], tenant: object
) -> tuple[Insert, Parameters]:
    """The INSERT and its parameters, with the tenant in every row."""
    key = tenant_key(mapper)
    assert key is not None
    column = tenant_column(mapper)
    statement = _confined_conflict(statement, column, tenant)
    if statement.select is not None:
        _check_select(statement, column, tenant)
        return statement, parameters
    several = values_of_rows(statement)
    if several:
        for values in several:
            for row in values:
                _check_row(row, column, key, tenant, required=True)
        return statement, parameters
    inline = values_of(statement)
    _check_row(inline, column, key, tenant)
    rows: list[Values] = parameters if isinstance(parameters, list) else [parameters] if parameters else []
    for row in rows:
        _check_row(row, column, key, tenant)
    if _has_tenant(inline, column, key):
        return statement, parameters
    if not rows:
        return statement.values({key: tenant}), parameters
    tenant_rows = [row if _has_tenant(row, column, key) else {**row, key: tenant} for row in rows]
    return statement, tenant_rows if isinstance(parameters, list) else tenant_rows[0]


def _name(name: object) -> str:
    """The name of a value in a row, which can be a string, a column or an attribute."""
    return str(getattr(name, "key", name))


def _has_tenant(row: Values, column: Column[object], key: str) -> bool:
    return any(_name(name) in (key, column.key) for name in row)


def tenants_in_row(row: Any, column: Column[object], key: str) -> list[object]:
    """The values of the tenant column in a row. A row can name the column by the attribute's and by its own name."""
    pairs = row.items() if hasattr(row, "items") else ()
    values = [value for name, value in pairs if _name(name) in (key, column.key, column.name)]
    return [value.value if isinstance(value, BindParameter) else value for value in values]


def _check_row(row: Any, column: Column[object], key: str, tenant: object, *, required: bool = False) -> None:
    tenants = tenants_in_row(row, column, key)
    if required and not tenants:
        raise UnscopedStatementError(f"{column.table.name}: if VALUES has several rows, each row must set {key!r}.")
    if any(not same(value, tenant) for value in tenants):
        raise TenantIsolationError(f"{column.table.name}: a row names another tenant.")


def _check_select(statement: Insert, column: Column[object], tenant: object) -> None:
    """Require an INSERT … SELECT to take the tenant from a mapped tenant column, or as a parameter with the tenant.

    The SELECT itself is confined by the compiler, so that such a column contains the session's tenant.
    """
    assert statement.select is not None
    names = [_name(name) for name in selected_names(statement)]
    if column.key in names:
        source = list(statement.select.selected_columns)[names.index(column.key)]
        if isinstance(source, BindParameter) and same(source.value, tenant):
            return
        base = next(iter(getattr(source, "base_columns", ())), None)
        marks = annotations_of(source)
        if base is not None and "parententity" in marks and _is_tenant_column(marks["parententity"], base):
            return
    raise UnscopedStatementError(f"{column.table.name}: the SELECT must select the session's tenant.")


def _is_tenant_column(entity: object, base: ColumnElement[object]) -> bool:
    """Whether a column is the tenant column of the class."""
    mapper: Mapper[object] | None = getattr(entity, "mapper", None)
    key = None if mapper is None else tenant_key(mapper)
    if mapper is None or key is None:
        return False
    return tenant_column(mapper).shares_lineage(base)


def _confined_conflict(statement: Insert, column: Column[object], tenant: object) -> Insert:
    """A copy of the statement, in which ON CONFLICT DO UPDATE changes only rows of this tenant.

    Raises `TenantIsolationError` if it would set another tenant.
    """
    clause = conflict_clause(statement)
    changes = getattr(clause, "update_values_to_set", None)
    if clause is None or changes is None:
        return statement
    for name, value in dict(changes).items():
        plain: Any = value.value if isinstance(value, BindParameter) else value
        excluded = getattr(getattr(plain, "table", None), "name", None) == "excluded" and plain.name == column.name
        if _name(name) in (column.key, column.name) and not excluded and not same(plain, tenant):
            raise TenantIsolationError(f"{column.table.name}: a row can't be given to another tenant.")
    own = column.table.c[column.key] == tenant
    clause, statement = copy(clause), clone(statement)
    clause.update_whereclause = own if clause.update_whereclause is None else clause.update_whereclause & own
    set_conflict_clause(statement, clause)
    return statement
