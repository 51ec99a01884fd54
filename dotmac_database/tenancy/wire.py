"""The connection of a guarded session: the last look at everything that is sent on it."""

from __future__ import annotations

import re
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Connection, Delete, Engine, Insert, Table, Update, bindparam, event
from sqlalchemy.orm import Session
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.elements import BindParameter

from ..errors import TenantIsolationError, TenantRequiredError, UnscopedStatementError
from .cleaning import CLEANING, mark_raw
from .context import TenantBinding, binding_of
from .criteria import owned_by_parent
from .executions import PASSED
from .rls import tell
from .statements import facts_of
from .tables import TABLES, tenant_column
from .values import same, stored

_SESSION = "dotmac_session"
_CONTROL = re.compile(r"(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)[\w\s]*\Z")
_OWN = "dotmac_own_tenant"
_WATCHED: WeakSet[Engine] = WeakSet()
_OWNED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""The unit of work's own UPDATEs and DELETEs, which SQLAlchemy keeps, with the tenant in their WHERE."""


def watch(session: Session, connection: Connection) -> None:
    """Tell a connection which session it serves now, and look at what its engine sends."""
    connection.execution_options(**{_SESSION: ref(session)})
    if connection.engine not in _WATCHED:
        _WATCHED.add(connection.engine)
        event.listen(connection.engine, "before_execute", _on_statement, retval=True)
        event.listen(connection.engine, "before_cursor_execute", _on_cursor, retval=True)
        event.listen(connection.engine, "rollback_savepoint", _on_savepoint)


def _guarding(connection: Connection) -> tuple[Session, TenantBinding] | None:
    """The guarded session that the connection serves now, if any."""
    held = connection.get_execution_options().get(_SESSION)
    session = None if held is None else held()
    if session is None or not session.in_transaction():
        return None
    binding = binding_of(session)
    return None if binding is None else (session, binding)


def _on_savepoint(connection: Connection, *_: Any) -> None:
    """A setting that was made within a savepoint goes with it."""
    guarding = _guarding(connection)
    if guarding is not None:
        guarding[1].told = None


def _on_statement(connection: Connection, statement: Any, rows: Any, row: Any, options: Any) -> tuple[Any, Any, Any]:
    """Confine the statements by which the session itself writes. All else is left to the look at the cursor."""
    guarding = _guarding(connection)
    if guarding is not None and guarding[1].writing and not guarding[1].open and PASSED not in options:
        return _confined_write(statement, guarding[1], rows, row)
    return statement, rows, row


def _confined_write(statement: Any, binding: TenantBinding, rows: Any, row: Any) -> tuple[Any, Any, Any]:
    """An INSERT of the tenant's rows; an UPDATE or DELETE with the tenant in its WHERE: no statement more."""
    table = TABLES.table(getattr(statement, "table", None))
    if table is None:
        return statement, rows, row
    mapper = TABLES.class_of(table)
    tenant = binding.required(f"The table {table.name!r}")
    if mapper is None:
        return statement, rows, row  # between many and many: both ends are the session's own
    column = tenant_column(mapper)
    own = stored(tenant, column)
    if isinstance(statement, Insert) and column.table is table:
        for each in rows or [row]:
            given = each.get(column.key, _inline(statement, column))
            if not same(given, own):
                raise TenantIsolationError(f"{table.name}: a row names another tenant, or none.")
    if not isinstance(statement, (Update, Delete)):
        return statement, rows, row
    confined = _OWNED.get(statement)
    if confined is None:
        parameter = bindparam(_OWN, type_=column.type)
        owns = column == parameter if column.table is table else owned_by_parent(table, column, parameter)
        confined = _OWNED[statement] = statement.where(owns)
    if rows:
        return confined, [{**each, _OWN: own} for each in rows], row
    return confined, rows, {**row, _OWN: own}


def _inline(statement: Any, column: Any) -> Any:
    given = (statement._values or {}).get(column)
    return given.value if isinstance(given, BindParameter) else given


def _on_cursor(
    connection: Connection, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
) -> tuple[str, Any]:
    """Look at what is sent: what was not confined must touch no tenants' table, and hold no text."""
    guarding = _guarding(connection)
    if guarding is not None and not _CONTROL.match(statement):
        _look(guarding[1], connection, statement, context)
    return statement, parameters


def _look(binding: TenantBinding, connection: Connection, statement: str, context: Any) -> None:
    if context is not None and CLEANING in context.execution_options:
        return
    backed = binding.rls is not None and connection.dialect.name == "postgresql"
    if not binding.open:
        _check(binding, statement, context, backed=backed)
    if backed and binding.rls is not None:
        if binding.told is not _TELLING and _is_raw(context):
            mark_raw(connection, statement, binding.rls.harmless_functions)
        _tell(binding, connection)


def _is_raw(context: Any) -> bool:
    """Whether a statement is raw SQL, or has a text in it."""
    compiled = getattr(context, "compiled", None)
    if compiled is None or isinstance(getattr(compiled, "statement", None), ExecutableDDLElement):
        return True
    return facts_of(compiled).text


def _tell(binding: TenantBinding, connection: Connection) -> None:
    """Tell row-level security the tenant, once in a transaction: before its first statement."""
    wanted = (None if binding.tenant is None else str(binding.tenant), binding.open)
    if binding.told == wanted or binding.told is _TELLING or (binding.told is None and wanted == (None, False)):
        return
    told, binding.told = binding.told, _TELLING
    try:
        tell(connection, *wanted, signer=None if binding.rls is None else binding.rls.signer)
        told = wanted
    finally:
        binding.told = told


_TELLING = object()


def _check(binding: TenantBinding, sent: str, context: Any, *, backed: bool) -> None:
    if binding.told is _TELLING:
        return
    compiled = getattr(context, "compiled", None)
    if compiled is None or isinstance(getattr(compiled, "statement", None), ExecutableDDLElement):
        _refuse_text(binding, "Raw SQL", sent, backed=backed)
        return
    facts = facts_of(compiled)
    kind = _kind(binding, context)
    if facts.touched:
        _check_tables(binding, facts.touched)
    if facts.text and kind != "confined":
        _refuse_text(binding, "A text in the statement", sent, backed=backed)
    name = facts.within if kind == "load" else facts.named
    if kind in ("load", "statement"):
        if name is not None or facts.within is not None:
            _refuse(binding, f"The table {name or facts.within!r}", backed=backed)
    elif kind is None and not _writes(binding, compiled):
        name = facts.named or min((table.name for table in facts.touched), default=None)
        if name is not None:
            _refuse(binding, f"The table {name!r}", backed=backed)


def _refuse_text(binding: TenantBinding, what: str, sent: str, *, backed: bool) -> None:
    """Refuse text, unless row-level security confines it: whatever it says where settings are signed, else only what
    is known not to change them.
    """
    _refuse(binding, what, backed=backed)
    unknown = None if binding.rls is None else binding.rls.refusal(sent)
    if unknown is not None:
        raise UnscopedStatementError(
            f"{what} may change the setting that names the tenant, as it has {unknown}. "
            "RowLevelSecurity(…, secret=…) signs the setting and lets all raw SQL through."
        )


def _kind(binding: TenantBinding, context: Any) -> str | None:
    """How the guard let a statement pass: as a repository's, a statement of the ORM's, or a load; None: it did not."""
    passed = context.execution_options.get(PASSED)
    return passed[1] if passed is not None and passed[0] is binding else None


def _writes(binding: TenantBinding, compiled: Any) -> bool:
    """Whether this is one of the statements by which the session itself writes, confined by `_on_statement`."""
    return bool(binding.writing) and isinstance(compiled.statement, (Insert, Update, Delete))


def _check_tables(binding: TenantBinding, touched: frozenset[Table]) -> None:
    if touched in binding.kept:
        return
    tenant = binding.required(f"The table {min(table.name for table in touched)!r}")
    for table in touched:
        mapper = TABLES.class_of(table)
        if mapper is not None:
            stored(tenant, tenant_column(mapper))
    binding.kept[touched] = True


def _refuse(binding: TenantBinding, what: str, *, backed: bool) -> None:
    if binding.tenant is None:
        raise TenantRequiredError(f"{what} may hold tenants' rows, and the session is bound to no tenant.")
    if not backed:
        raise UnscopedStatementError(
            f"{what} can't be confined to a tenant; go through the mapped class, or unscoped(session, reason=…)."
        )


_listener: Any
for _listener in (_on_statement, _on_cursor):
    # Tells them from a user's listeners, who are to hear of every statement. (SQLAlchemy wraps a listener that gives
    # nothing back, and the mark would be lost.)
    _listener.dotmac_internal = True
