"""Statements of the ORM: confined before they run."""

from __future__ import annotations

from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Result, Select
from sqlalchemy.orm import Mapper, ORMExecuteState
from sqlalchemy.sql import visitors
from sqlalchemy.util import immutabledict

from ..dialects.explain import Explain
from ..errors import TenantIsolationError, UnscopedStatementError
from ..models.traits import tenant_key
from .context import TenantBinding, binding_of
from .criteria import Confinement
from .inserts import names_tenant, stamped_insert
from .statements import entities_beside, tables_beside
from .tables import TABLES, tenant_column
from .units import attached_are_own, rows_are_own, writing_by_itself
from .values import same, stored

CONFINED = "dotmac_confined"
"""The execution option of a repository's statement, which has the tenant's condition already: the tenant."""

PASSED = "dotmac_passed"
"""The execution option of what this module has confined: the session's binding and the kind of statement."""


_EAGER: WeakKeyDictionary[Mapper[Any], tuple[int, bool]] = WeakKeyDictionary()


def on_execute(state: ORMExecuteState) -> Result[Any] | None:
    """The session's `do_orm_execute`: confine a statement, or leave it to the connection's look at it."""
    binding = binding_of(state.session)
    assert binding is not None
    if isinstance(state.statement, Explain):
        if not binding.open and binding.tenant is not None and isinstance(state.statement.statement, Select):
            _explain(state, binding)
        return None
    if binding.open or not (state.is_orm_statement or _made_orm_statement(state)):
        return None
    confined = state.execution_options.get(CONFINED)
    if confined is not None and not same(confined, binding.tenant):
        raise TenantIsolationError("The session serves another tenant than the repository.")
    if confined is not None and _is_whole(state):
        kind = "confined"
    else:
        kind = "refresh" if state.is_column_load else "load" if state.is_relationship_load else "statement"
        _confine(state, binding)
    state.update_execution_options(**{PASSED: (binding, kind)})
    if isinstance(state.parameters, list) and (state.is_insert or state.is_update):
        # The ORM runs these as statements on the table, without the options of this one.
        with writing_by_itself(binding):
            return state.invoke_statement()
    return None


def _explain(state: ORMExecuteState, binding: TenantBinding) -> None:
    """Confine what is explained: a plan tells how many rows it expects, so they must be the tenant's own."""
    confined = state.execution_options.get(CONFINED)
    explained: Any = copy(state.statement)
    if confined is not None and not same(confined, binding.tenant):
        raise TenantIsolationError("The session serves another tenant than the repository.")
    kind = "confined"
    if confined is None or explained.statement._with_options:
        kind, explained.statement = "statement", explained.statement.options(confinement(binding))
    state.statement = explained
    state.update_execution_options(**{PASSED: (binding, kind)})


def _made_orm_statement(state: ORMExecuteState) -> bool:
    """Have the ORM compile a SELECT of which it knows only what is inside, such as ``select(exists(…))``."""
    statement: Any = state.statement
    if not isinstance(statement, Select):
        return False
    for element in visitors.iterate(statement):
        entity = element._annotations.get("parententity") if hasattr(element, "_annotations") else None
        if entity is not None:
            subject = {"compile_state_plugin": "orm", "plugin_subject": entity}
            state.statement = statement._clone()
            state.statement._propagate_attrs = immutabledict(subject)
            return True
    return False


def _is_whole(state: ORMExecuteState) -> bool:
    """Whether a repository's statement has nothing in it that the repository did not see."""
    if state.is_relationship_load or state.is_column_load:
        return False
    statement: Any = state.statement
    mapper = state.bind_mapper
    return not getattr(statement, "_with_options", ()) and (mapper is None or not _brings_more(mapper))


def _brings_more(mapper: Mapper[Any]) -> bool:
    """Whether the class, or one below it, brings more into its statements: joined loads, or expressions for columns."""
    kept = _EAGER.get(mapper)
    if kept is None or kept[0] != TABLES.current():
        eager = any(
            any(relationship.lazy in ("joined", False) for relationship in each.relationships)
            or any(not isinstance(attribute.columns[0], Column) for attribute in each.column_attrs)
            for each in mapper.self_and_descendants
        )
        kept = _EAGER[mapper] = TABLES.current(), eager
    return kept[1]


def _confine(state: ORMExecuteState, binding: TenantBinding) -> None:
    if binding.tenant is None:
        return  # the connection's look refuses it, if it touches tenants' tables
    statement: Any = state.statement
    mapper = state.bind_mapper
    key = None if mapper is None else tenant_key(mapper)
    if mapper is not None and key is not None:
        if state.is_insert:
            stamped_insert(state, mapper, stored(binding.tenant, tenant_column(mapper)))
        elif state.is_update or state.is_delete:
            _check_change(state, mapper, key, binding)
        elif state.is_column_load:
            attached_are_own(state.session, binding)
            if state.is_select and not state.is_from_statement:
                # Loader criteria do not reach a refresh, so the condition goes into the statement itself.
                owner = getattr(mapper.class_, key)
                state.statement = statement.where(owner == stored(binding.tenant, tenant_column(mapper)))
    elif state.is_update and _is_mapped_child(mapper):
        raise UnscopedStatementError("A table of a tenant-scoped class can't be changed through another class.")
    changing = state.is_update or state.is_delete
    if changing and mapper is not None:
        _confine_others(state, mapper, binding)
    statement = state.statement
    if hasattr(statement, "options"):
        state.statement = statement.options(confinement(binding, changing=changing))


def _is_mapped_child(mapper: Mapper[Any] | None) -> bool:
    return mapper is not None and any(TABLES.table(table) is not None for table in mapper.tables)


def confinement(binding: TenantBinding, *, changing: bool = False) -> Confinement:
    """The tenant's condition on every class, made once for the time that the session serves the tenant."""
    key = (changing, TABLES.current())
    kept: Confinement | None = binding.kept.get(key)
    if kept is None:
        kept = binding.kept[key] = Confinement(binding.tenant, changing=changing)
    return kept


def _check_change(state: ORMExecuteState, mapper: Mapper[Any], key: str, binding: TenantBinding) -> None:
    """Refuse an UPDATE that gives rows to another tenant, and look up the rows of one by primary keys."""
    column = tenant_column(mapper)
    tenant = stored(binding.tenant, column)
    rows: list[Any] = state.parameters if isinstance(state.parameters, list) else [state.parameters or {}]
    values = getattr(state.statement, "_values", None) or {}
    ordered = dict(getattr(state.statement, "_ordered_values", None) or ())
    for given in (*rows, values, ordered):
        if any(not same(value, tenant) for value in names_tenant(given, column, key)):
            raise TenantIsolationError(f"{mapper.class_.__name__}: a row can't be given to another tenant.")
    if isinstance(state.parameters, list) and state.is_update:
        names = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
        rows_are_own(state.session, mapper, binding, [tuple(row.get(name) for name in names) for row in rows])


def _confine_others(state: ORMExecuteState, target: Mapper[Any], binding: TenantBinding) -> None:
    """The tenant's condition on the other classes of an UPDATE … FROM or DELETE … USING, which criteria don't reach."""
    statement: Any = state.statement
    conditions: list[Any] = []
    for entity in entities_beside(statement):
        mapper: Mapper[Any] = entity.mapper
        key = tenant_key(mapper)
        if key is not None and entity is not target:
            owner = getattr(entity.entity, key)
            conditions.append(owner == stored(binding.tenant, tenant_column(mapper)))
    parents = set(target.tables) - {target.local_table}
    if parents and any(table in parents for table in tables_beside(statement)):
        # Columns of the parent's table would be taken from every row of it.
        conditions += [each.inherit_condition for each in target.iterate_to_root() if each.inherits is not None]
        column = tenant_column(target) if tenant_key(target) else None
        if column is not None and column.table is not target.local_table:
            conditions.append(column == stored(binding.tenant, column))
    if conditions:
        state.statement = statement.where(*conditions)
