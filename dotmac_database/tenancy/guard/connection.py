"""The connection of a guarded session: the last check of every statement that is sent on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from weakref import WeakSet, ref

from sqlalchemy import (
    Column,
    Connection,
    Delete,
    Engine,
    Executable,
    Insert,
    SelectBase,
    Table,
    Update,
    UpdateBase,
    event,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Session
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.elements import BindParameter

from ...dialects.features import has_policies
from ...dialects.own_statements import OWN
from ...errors import TenantIsolationError
from ...execution.settings import before_statement
from ...execution.state import SettingsProvider, refuse_write
from ...history.past import READING, past_dialect
from ...sqlalchemy_internals import values_of
from ..context import TenantBinding, binding_of
from ..parameters import SERVED_TENANT
from ..rls.cleaning import CLEANING, mark_raw
from ..rls.row_level_security import RowLevelSecurity, settings_of
from ..tables import TABLES
from ..values import column_value, same
from .compiler import ConfiningCompiler, confining
from .orm_statements import CONFINED, PASSED
from .verdicts import KnownTenant, StatementFacts, judge

_SESSION = "dotmac_session"
_CONTROL = re.compile(r"(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)[\w\s]*\Z")
Row: TypeAlias = Mapping[str, object]
"""The parameters of one row."""

Rows: TypeAlias = Sequence[Row]

_WATCHED: WeakSet[Engine] = WeakSet()


def watch(session: Session, connection: Connection) -> None:
    """Record which session a connection serves, and listen to the statements of its engine."""
    connection.execution_options(**{_SESSION: ref(session)})
    if connection.engine not in _WATCHED:
        _WATCHED.add(connection.engine)
        event.listen(connection.engine, "before_execute", _on_statement, retval=True)
        event.listen(connection.engine, "before_cursor_execute", _on_cursor, retval=True)


def _guarding(connection: Connection) -> tuple[Session, TenantBinding] | None:
    """The guarded session that the connection serves, with its binding; None if there is none."""
    reference = connection.get_execution_options().get(_SESSION)
    session = None if reference is None else reference()
    if session is None or not session.in_transaction():
        return None
    binding = binding_of(session)
    return None if binding is None else (session, binding)


def _on_statement(
    connection: Connection, statement: Executable, rows: Rows, row: Row, options: Mapping[str, object]
) -> tuple[Executable, Rows, Row]:
    """Make SQLAlchemy compile a guarded session's statement by the confining compiler; check the rows of an INSERT."""
    guarding = _guarding(connection)
    dialect = connection.engine.dialect
    if guarding is None or guarding[1].open or OWN in options:
        connection.dialect = past_dialect(dialect) if connection in READING and OWN not in options else dialect
        return statement, rows, row
    binding = guarding[1]
    SERVED_TENANT.set(binding.tenant)
    connection.dialect = confining(dialect, binding.tenant_free)
    if connection in READING:
        connection.dialect = past_dialect(connection.dialect)
    if binding.writing and PASSED not in options and isinstance(statement, Insert):
        _check_rows(statement, binding, rows or [row])
    return statement, rows, row


def _check_rows(statement: Insert, binding: TenantBinding, rows: Rows) -> None:
    """Refuse a row in a flush's INSERT that has another tenant or no tenant."""
    owner = TABLES.owner(statement.table) if isinstance(statement.table, Table) else None
    if owner is None:
        return
    tenant = binding.required(f"The table {statement.table.name!r}")
    if owner.column is None:
        return  # in a joined child's table and in an association table, the referenced rows decide, which are checked
    own = column_value(tenant, owner.column)
    for each in rows:
        if not same(each.get(owner.column.key, _inline(statement, owner.column)), own):
            raise TenantIsolationError(f"{statement.table.name}: a row names another tenant, or none.")


def _inline(statement: Insert, column: Column[object]) -> object:
    """The value of a column in the statement itself, for all its rows."""
    value = values_of(statement).get(column)
    return value.value if isinstance(value, BindParameter) else value


def _on_cursor(
    connection: Connection,
    _cursor: object,
    statement: str,
    parameters: object,
    context: DefaultExecutionContext | None,
    _many: bool,
) -> tuple[str, object]:
    """Check a statement before it is sent: if it is not confined, it must not use tenants' tables or contain text."""
    guarding = _guarding(connection)
    if guarding is not None and not _CONTROL.match(statement):
        _check_sent(*guarding, connection, statement, context)
    return statement, parameters


def _check_sent(
    session: Session,
    binding: TenantBinding,
    connection: Connection,
    statement: str,
    context: DefaultExecutionContext | None,
) -> None:
    if context is not None and CLEANING in context.execution_options:
        return
    if binding.read_only and not _only_reads(context):
        refuse_write()
    protected = binding.rls is not None and has_policies(connection.dialect.name)
    if not binding.open and (context is None or OWN not in context.execution_options):
        judge(_facts(binding, statement, context, has_policies=protected)).enforce()
    if protected and binding.rls is not None:
        if _is_raw(context):
            mark_raw(connection, statement, binding.rls.harmless_functions)
        before_statement(session, connection, statement, context)


def _only_reads(context: DefaultExecutionContext | None) -> bool:
    """Whether a statement can't write: it is the toolkit's own, or a SELECT without text and without other commands."""
    if context is None or OWN in context.execution_options:
        return context is not None
    compiled = context.compiled
    if not isinstance(compiled, ConfiningCompiler) or compiled.opaque is not None:
        return False
    changes = (cte.element for cte in compiled.ctes or ())
    return isinstance(compiled.statement, SelectBase) and not any(isinstance(each, UpdateBase) for each in changes)


def _is_raw(context: DefaultExecutionContext | None) -> bool:
    """Whether a statement is raw SQL, contains text, or was not checked because an `unscoped` block is open."""
    if context is not None and OWN in context.execution_options:
        return False
    compiled = getattr(context, "compiled", None)
    return not isinstance(compiled, ConfiningCompiler) or compiled.opaque is not None


def tenant_settings(binding: TenantBinding, rls: RowLevelSecurity) -> SettingsProvider:
    """The settings of row-level security in a guarded session's transactions."""

    def current() -> tuple[str, bool] | None:
        state = "" if binding.tenant is None else str(binding.tenant), binding.open
        return None if state == ("", False) else state

    def values(state: object) -> Mapping[str, str]:
        tenant, across = state if isinstance(state, tuple) else (None, False)
        return settings_of(tenant, across, rls.signer)

    return SettingsProvider(current, values, is_secret=rls.signer is not None)


def _facts(
    binding: TenantBinding, sql: str, context: DefaultExecutionContext | None, *, has_policies: bool
) -> StatementFacts:
    """The facts by which `verdicts` judges a statement."""
    bound = binding.tenant is not None
    if context is None or context.compiled is None or isinstance(context.compiled.statement, ExecutableDDLElement):
        return StatementFacts(bound, has_policies, "Raw SQL", _unsafe(binding, sql) if bound and has_policies else None)
    compiled = context.compiled
    if not isinstance(compiled, ConfiningCompiler):
        return StatementFacts(bound, has_policies, unknown="A statement that the guard's compiler has not compiled")
    unsafe = None
    if compiled.opaque is not None and bound and has_policies:
        unsafe = _unsafe(binding, sql)
    if not compiled.touched:
        return StatementFacts(bound, has_policies, compiled.opaque, unsafe, compiled.unknown)
    table = min(table.name for table in compiled.touched)
    confinement = _confinement(binding.tenant, compiled, context)
    is_checked = _is_checked(binding, compiled, context)
    return StatementFacts(
        bound, has_policies, compiled.opaque, unsafe, compiled.unknown, table, confinement, is_checked
    )


def _unsafe(binding: TenantBinding, sql: str) -> str | None:
    """The part of a text that could change the setting that names the tenant, in words.

    None: there is no such part, or the setting is signed.
    """
    return None if binding.rls is None else binding.rls.refusal(sql)


def _is_checked(binding: TenantBinding, compiled: ConfiningCompiler, context: DefaultExecutionContext) -> bool:
    """Whether `orm_statements` or a repository has checked the statement, or it is part of a flush."""
    options = context.execution_options
    if options.get(PASSED) is binding or options.get(CONFINED) is not None:
        return True
    return bool(binding.writing) and isinstance(compiled.statement, (Insert, Update, Delete))


def _confinement(tenant: object, compiled: ConfiningCompiler, context: DefaultExecutionContext) -> KnownTenant:
    """Whether every parameter that confines the statement has the session's tenant as its value."""
    if tenant is None:
        return KnownTenant.UNBOUND
    confined = context.execution_options.get(CONFINED)
    if confined is not None and not same(confined, tenant):
        return KnownTenant.OTHER_REPOSITORY
    for names in (compiled.owner_columns, compiled.scopes):
        for name, column in names.items():
            own = column_value(tenant, column)
            # A missing parameter was not rendered: SQLAlchemy simplifies "… AND false" to "false".
            if any(name in row and not same(row[name], own) for row in context.compiled_parameters):
                return KnownTenant.OTHER_PARAMETER
    return KnownTenant.OWN


_listener: Any  # for mypy, functions do not have this attribute
for _listener in (_on_statement, _on_cursor):
    # This mark distinguishes the toolkit's listeners from the user's, which must be called for every statement. The
    # marked listeners return a value, because SQLAlchemy wraps listeners that return nothing, and would lose the mark.
    _listener.dotmac_internal = True
