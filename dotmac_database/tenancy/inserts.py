"""INSERT statements of tenant-scoped classes: stamped with the tenant, or refused."""

from __future__ import annotations

from copy import copy
from typing import Any

from sqlalchemy.orm import Mapper, ORMExecuteState
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.sql.elements import BindParameter

from ..errors import TenantIsolationError, UnscopedStatementError
from ..models.traits import tenant_key
from .tables import tenant_column
from .values import same


def stamped_insert(state: ORMExecuteState, mapper: Mapper[Any], tenant: Any) -> None:
    """Give every row of an INSERT the tenant. Raises `TenantIsolationError` for a row that names another."""
    given: Any = state.statement
    parameters: Any = state.parameters
    written = written_by(given)
    statement, stamped = _stamped(written, parameters, mapper, tenant)
    if given is not written:  # select(…).from_statement(insert(…).returning(…))
        clone = given._clone()
        clone.element = statement
        statement = clone
    state.statement, state.parameters = statement, stamped


def written_by(statement: Any) -> Any:
    """The INSERT, UPDATE or DELETE itself, also within ``select(…).from_statement(…)``."""
    return statement.element if isinstance(statement, FromStatement) else statement


def _stamped(statement: Any, parameters: Any, mapper: Mapper[Any], tenant: Any) -> tuple[Any, Any]:
    key = tenant_key(mapper)
    assert key is not None
    column = tenant_column(mapper)
    statement = _confined_conflict(statement, column, tenant)
    if statement.select is not None:
        _check_select(statement, column, tenant)
        return statement, parameters
    if statement._multi_values:
        for given in statement._multi_values:
            for row in given:
                _check(row, column, key, tenant, required=True)
        return statement, parameters
    inline = statement._values or {}
    _check(inline, column, key, tenant)
    rows: list[Any] = parameters if isinstance(parameters, list) else [parameters] if parameters else []
    for row in rows:
        _check(row, column, key, tenant)
    if _names(inline, column, key):
        return statement, parameters
    if not rows:
        return statement.values({key: tenant}), parameters
    stamped = [row if _names(row, column, key) else {**row, key: tenant} for row in rows]
    return statement, stamped if isinstance(parameters, list) else stamped[0]


def _name(given: Any) -> str:
    return str(getattr(given, "key", given))


def _names(row: Any, column: Any, key: str) -> bool:
    return any(_name(name) in (key, column.key) for name in row)


def names_tenant(row: Any, column: Any, key: str) -> list[Any]:
    """The tenants that a row's values name, by attribute or by column."""
    pairs = row.items() if hasattr(row, "items") else ()
    given = [value for name, value in pairs if _name(name) in (key, column.key, column.name)]
    return [value.value if isinstance(value, BindParameter) else value for value in given]


def _check(row: Any, column: Any, key: str, tenant: Any, *, required: bool = False) -> None:
    named = names_tenant(row, column, key)
    if required and not named:
        raise UnscopedStatementError(f"{column.table.name}: each of many VALUES must name {key!r}.")
    if any(not same(value, tenant) for value in named):
        raise TenantIsolationError(f"{column.table.name}: a row names another tenant.")


def _check_select(statement: Any, column: Any, tenant: Any) -> None:
    """INSERT … SELECT must take the tenant from a confined column, or as the bound value."""
    names = [_name(name) for name in statement._select_names or ()]
    if column.key in names:
        source = list(statement.select.selected_columns)[names.index(column.key)]
        if isinstance(source, BindParameter) and same(source.value, tenant):
            return
        base = next(iter(getattr(source, "base_columns", ())), None)
        if (
            base is not None
            and "parententity" in source._annotations
            and _is_tenant(source._annotations["parententity"], base)
        ):
            return
    raise UnscopedStatementError(f"{column.table.name}: the SELECT must give the tenant of the session.")


def _is_tenant(entity: Any, base: Any) -> bool:
    mapper: Mapper[Any] | None = getattr(entity, "mapper", None)
    key = None if mapper is None else tenant_key(mapper)
    if mapper is None or key is None:
        return False
    return tenant_column(mapper).shares_lineage(base)


def _confined_conflict(statement: Any, column: Any, tenant: Any) -> Any:
    """ON CONFLICT DO UPDATE may change only a row of this tenant. The given statement stays as it is."""
    clause = getattr(statement, "_post_values_clause", None)
    changes = getattr(clause, "update_values_to_set", None)
    if clause is None or changes is None:
        return statement
    for name, value in dict(changes).items():
        plain: Any = value.value if isinstance(value, BindParameter) else value
        excluded = getattr(getattr(plain, "table", None), "name", None) == "excluded" and plain.name == column.name
        if _name(name) in (column.key, column.name) and not excluded and not same(plain, tenant):
            raise TenantIsolationError(f"{column.table.name}: a row can't be given to another tenant.")
    own = column.table.c[column.key] == tenant
    clause, statement = copy(clause), statement._clone()
    clause.update_whereclause = own if clause.update_whereclause is None else clause.update_whereclause & own
    statement._post_values_clause = clause
    return statement
