"""The guarded session: every statement of it is confined to its tenant, or refused.

Three places see all that a session sends: `do_orm_execute` the statements, `flush` the unit of work, and the
connection's cursor whatever came past those two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakSet, ref

from sqlalchemy import Connection, Engine, Result, event, func, inspect, select, tuple_
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, sessionmaker, with_loader_criteria

from ..errors import TenantIsolationError, TenantRequiredError, UnscopedStatementError
from ..models.traits import tenant_key, traits_of
from .context import TenantBinding, binding_of, guard
from .inserts import stamped_insert
from .rls import RowLevelSecurity, tell_tenant
from .statements import TABLES, core_tables, text_in, touched

Maker = TypeVar("Maker", bound="sessionmaker[Any] | async_sessionmaker[Any]")

_PASSED = "dotmac_passed"
_CONFINED = "dotmac_confined"
_SESSION = "dotmac_session"
_CONTROL = re.compile(r"(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)[\w\s]*\Z")
_WATCHED: WeakSet[Engine] = WeakSet()


def guard_tenants(maker: Maker, *, rls: RowLevelSecurity | None = None) -> Maker:
    """Confine every session of ``maker`` to the tenant it is bound to; gives ``maker`` back.

    Statements of tenant-scoped classes get the tenant's condition, inserts its stamp; what can't be confined raises
    `UnscopedStatementError`. With ``rls`` each transaction tells PostgreSQL its tenant, one statement more, and
    raw SQL and Core statements are let through to the policies.
    """
    if isinstance(maker, async_sessionmaker):
        base = maker.kw.get("sync_session_class") or maker.class_.sync_session_class
        maker.configure(sync_session_class=_guarded_class(base, rls is not None))
    else:
        maker.class_ = _guarded_class(maker.class_, rls is not None)
    return maker


def _guarded_class(base: type[Session], rls: bool) -> type[Session]:
    """A class of guarded sessions, of its own for each maker, so that nothing global is touched."""
    if getattr(base, "dotmac_guarded", False):
        return base

    class GuardedSession(base):  # type: ignore[misc, valid-type]  # the maker's class is known at run time only
        dotmac_guarded = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            guard(self, rls=rls)

        def flush(self, objects: Any = None) -> None:
            binding = _binding(self)
            if binding.open:
                with _passing(binding):
                    super().flush(objects)
                return
            check_unit_of_work(self, binding)
            with _passing(binding):
                super().flush(objects)

        def close(self) -> None:
            binding = _binding(self)
            super().close()
            binding.attached.clear()

    GuardedSession.__name__ = f"Guarded{base.__name__}"
    event.listen(GuardedSession, "do_orm_execute", _on_execute)
    event.listen(GuardedSession, "before_flush", _on_flush)
    event.listen(GuardedSession, "after_begin", _on_begin)
    event.listen(GuardedSession, "after_soft_rollback", _on_rollback)
    event.listen(GuardedSession, "detached_to_persistent", _on_attached)
    return GuardedSession


def _binding(session: Session) -> TenantBinding:
    binding = binding_of(session)
    assert binding is not None
    return binding


@contextmanager
def _passing(binding: TenantBinding) -> Iterator[None]:
    binding.passing += 1
    try:
        yield
    finally:
        binding.passing -= 1


# -- statements ------------------------------------------------------------------------------------------------


def _on_execute(state: ORMExecuteState) -> Result[Any] | None:
    binding = _binding(state.session)
    _check_statement(state, binding)
    state.update_execution_options(**{_PASSED: True})
    if isinstance(state.parameters, list) and (state.is_insert or state.is_update):
        # The ORM runs these on the connection, without the statement's execution options.
        with _passing(binding):
            return state.invoke_statement()
    return None


def _check_statement(state: ORMExecuteState, binding: TenantBinding) -> None:
    if binding.open:
        return
    confined = state.execution_options.get(_CONFINED)
    if confined is not None:
        if confined != binding.tenant:
            raise TenantIsolationError("The session serves another tenant than the repository.")
        return
    statement = state.statement
    if not state.is_orm_statement or text_in(statement):
        _refuse_unless_rls(state.session, binding, statement)
    elif not state.is_relationship_load and (core := core_tables(statement, state.all_mappers)) is not None:
        _refuse_unless_rls(state.session, binding, statement, core)
    if state.is_orm_statement:
        _confine(state, binding)


def _refuse_unless_rls(session: Session, binding: TenantBinding, statement: Any, table: str | None = None) -> None:
    """Refuse what can't be confined here: text, and tables named past their classes."""
    if table is None and not text_in(statement):
        table = core_tables(statement)
        if table is None:
            return
    what = f"The table {table!r}" if table else "A text in the statement"
    if binding.tenant is None:
        raise TenantRequiredError(f"{what} may hold tenants' rows, and the session is bound to no tenant.")
    if not (binding.rls and session.get_bind().dialect.name == "postgresql"):
        raise UnscopedStatementError(
            f"{what} can't be confined to a tenant; go through the mapped class, or unscoped(session, reason=…)."
        )


def _confine(state: ORMExecuteState, binding: TenantBinding) -> None:
    mapper = state.bind_mapper
    if state.is_insert:
        if mapper is not None and tenant_key(mapper) is not None:
            stamped_insert(state, mapper, binding.required(mapper.class_.__name__))
        if binding.tenant is not None:
            state.statement = state.statement.options(*_criteria(binding))
        return
    if state.is_update or state.is_delete:
        _confine_change(state, binding, mapper)
    if binding.tenant is not None:
        state.statement = state.statement.options(*_criteria(binding))
    # A refresh takes no criteria: it is by primary key, of an object that this session loaded or verified.
    if state.is_column_load and mapper is not None:
        verify_attached(state.session, binding)


def _criteria(binding: TenantBinding) -> list[Any]:
    """One plain expression per class: a lambda would be cached with the first tenant it saw."""
    return [
        with_loader_criteria(mapper.class_, _owns(mapper) == binding.tenant, include_aliases=True)
        for mapper in TABLES.roots
    ]


def _owns(mapper: Mapper[Any]) -> Any:
    key = tenant_key(mapper)
    assert key is not None
    return getattr(mapper.class_, key)


def _confine_change(state: ORMExecuteState, binding: TenantBinding, mapper: Mapper[Any] | None) -> None:
    key = None if mapper is None else tenant_key(mapper)
    if mapper is None or key is None:
        return
    tenant = binding.required(mapper.class_.__name__)
    column = traits_of(mapper.class_).columns[key]
    rows: list[Any] = state.parameters if isinstance(state.parameters, list) else [state.parameters or {}]
    values = {
        getattr(name, "key", name): value for name, value in (getattr(state.statement, "_values", None) or {}).items()
    }
    for given in (*rows, values):
        named = given.get(key, given.get(column.key, tenant))
        if getattr(named, "value", named) != tenant:
            raise TenantIsolationError(f"{mapper.class_.__name__}: a row can't be given to another tenant.")
    if isinstance(state.parameters, list) and state.is_update:
        names = [mapper.get_property_by_column(each).key for each in mapper.primary_key]
        _verify(state.session, mapper, tenant, [tuple(row.get(name) for name in names) for row in rows])
    elif column.table is not mapper.local_table:
        # The statement is about the child's own table, which has no tenant: hold it by the parent's key.
        parent: Any = column.table
        owned = select(*parent.primary_key.columns).where(column == tenant)
        child: Any = mapper.local_table
        here = tuple_(*child.primary_key.columns)
        statement: Any = state.statement
        state.statement = statement.where(here.in_(owned))


# -- the unit of work -------------------------------------------------------------------------------------------


def _on_flush(session: Session, *_: Any) -> None:
    """Check what other listeners added to the flush after the session was asked for it."""
    binding = _binding(session)
    if not binding.open:
        check_unit_of_work(session, binding, verify=False)


_on_flush.dotmac_internal = True  # type: ignore[attr-defined]  # tells it from a user's listener


def check_unit_of_work(session: Session, binding: TenantBinding, *, verify: bool = True) -> None:
    """Stamp new objects, and refuse whatever is not the tenant's own."""
    for entity in session.new:
        key = tenant_key(inspect(entity).mapper)
        if key is None:
            continue
        tenant = binding.required(type(entity).__name__)
        if getattr(entity, key) is None:
            setattr(entity, key, tenant)
        _own(entity, key, tenant)
    for entity in (*session.dirty, *session.deleted):
        key = tenant_key(inspect(entity).mapper)
        if key is not None:
            _own(entity, key, binding.required(type(entity).__name__))
    if verify:
        verify_attached(session, binding)


def _own(entity: Any, key: str, tenant: Any) -> None:
    state = inspect(entity)
    history = state.attrs[key].history
    held = [value for value in (*history.added, *history.unchanged, *history.deleted) if value is not None]
    if any(value != tenant for value in held):
        raise TenantIsolationError(f"{type(entity).__name__}: the row belongs to another tenant.")


def verify_attached(session: Session, binding: TenantBinding) -> None:
    """Look up the tenant of objects that came from outside: their loaded state may be forged. One SELECT a class."""
    by_mapper: dict[Mapper[Any], list[tuple[Any, ...]]] = {}
    for state in list(binding.attached):
        if state.session is session and state.key is not None and tenant_key(state.mapper) is not None:
            by_mapper.setdefault(state.mapper, []).append(tuple(state.key[1]))
    binding.attached.clear()
    for mapper, keys in by_mapper.items():
        _verify(session, mapper, binding.required(mapper.class_.__name__), keys)


def _verify(session: Session, mapper: Mapper[Any], tenant: Any, keys: Iterable[tuple[Any, ...]]) -> None:
    wanted = set(keys)
    if not wanted:
        return
    columns = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    target = columns[0] if len(columns) == 1 else tuple_(*columns)
    values = [key[0] for key in wanted] if len(columns) == 1 else list(wanted)
    statement = select(func.count()).select_from(mapper.class_).where(target.in_(values), _owns(mapper) == tenant)
    with session.no_autoflush:
        found = session.scalar(statement, execution_options={_CONFINED: tenant})
    if found != len(wanted):
        raise TenantIsolationError(f"{mapper.class_.__name__}: a row belongs to another tenant, or does not exist.")


def _on_attached(session: Session, entity: Any) -> None:
    binding = _binding(session)
    if not binding.open:
        binding.attached.add(inspect(entity))


# -- the connection ------------------------------------------------------------------------------------------------


def _on_begin(session: Session, _transaction: Any, connection: Connection) -> None:
    connection.execution_options(**{_SESSION: ref(session)})
    if connection.engine not in _WATCHED:
        _WATCHED.add(connection.engine)
        event.listen(connection.engine, "before_cursor_execute", _on_cursor)
    binding = _binding(session)
    binding.applied = None
    if binding.rls:
        from ..sessions import state_of

        state_of(session).standalone_reads = False


_on_begin.dotmac_internal = True  # type: ignore[attr-defined]  # tells it from a user's listener


def _on_rollback(session: Session, *_: Any) -> None:
    binding = _binding(session)
    binding.applied = None
    if not session.in_transaction():
        binding.attached.clear()


def _on_cursor(
    connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    """The last look at what a guarded session sends: what nobody has passed must touch no tenant's table."""
    held = connection.get_execution_options().get(_SESSION)
    session = None if held is None else held()
    if session is None or not session.in_transaction():
        return
    binding = _binding(session)
    if _CONTROL.match(statement):
        return
    if binding.rls and binding.tenant is not None and binding.applied != binding.tenant:
        binding.applied = binding.tenant
        tell_tenant(connection, binding.tenant)
    if binding.open:
        return
    compiled = getattr(context, "compiled", None)
    table = None if compiled is None else touched(compiled)
    if binding.passing or (context is not None and context.execution_options.get(_PASSED)):
        if table is not None:
            binding.required(f"The table {table!r}")
        return
    if compiled is None or table is not None or text_in(compiled.statement):
        what = f"The table {table!r}" if table else "Raw SQL"
        if binding.tenant is None:
            raise TenantRequiredError(f"{what} may hold tenants' rows, and the session is bound to no tenant.")
        if not binding.rls:
            raise UnscopedStatementError(f"{what} can't be confined to a tenant.")
