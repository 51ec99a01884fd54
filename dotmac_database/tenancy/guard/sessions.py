"""Guarded sessions: each statement is confined to the session's tenant, or refused.

The connection compiles statements with `compiler`, which confines them. Three modules check what a session sends:
`orm_statements` the statements of the ORM, `unit_of_work` the flushes, and `connection` everything that is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, event, inspect
from sqlalchemy import exc as sa
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from ...errors import TenantIsolationError
from ...execution.ended import end
from ...execution.state import state_of
from ...execution.work import discard
from ...models.traits import tenant_key
from ...sqlalchemy_internals import has_ended, has_nothing_to_flush
from ..context import TenantBinding, binding_of, guard
from ..related import stamp_by_related
from ..rls.row_level_security import RowLevelSecurity
from ..values import same
from .connection import tenant_settings, watch
from .orm_statements import on_execute
from .unit_of_work import check_attached, check_unit_of_work, core_writes_allowed

Maker = TypeVar("Maker", bound="sessionmaker[Any] | async_sessionmaker[Any]")


def guard_tenants(maker: Maker, *, rls: RowLevelSecurity | None = None, tenant_free: Iterable[str] = ()) -> Maker:
    """Guard all sessions of ``maker``, and return ``maker``. Each session is confined to the tenant it is bound to.

    Statements on tenant-scoped classes get the tenant's condition, and new rows get the tenant. A statement that can't
    be confined raises `UnscopedStatementError`. With ``rls`` each transaction sets the tenant in PostgreSQL, by one
    more statement, and raw SQL and Core statements are allowed, since the policies confine them.

    ``tenant_free`` names tables, views and functions that are not in the metadata of a mapped class, and that
    statements may read because they contain no tenant's rows. (A view in the metadata is confined if it has a
    ``tenant_id``.)
    """
    free = frozenset(name.lower() for name in tenant_free)
    if isinstance(maker, async_sessionmaker):
        base = maker.kw.get("sync_session_class") or maker.class_.sync_session_class
        maker.configure(sync_session_class=_guarded_class(base, rls, free))
    else:
        maker.class_ = _guarded_class(maker.class_, rls, free)
    return maker


def _guarded_class(base: type[Session], rls: RowLevelSecurity | None, tenant_free: frozenset[str]) -> type[Session]:
    """A class of guarded sessions. Each maker has its own, so that nothing global is changed."""
    if getattr(base, "dotmac_guarded", False):
        base = next(each for each in base.__mro__ if not getattr(each, "dotmac_guarded", False))

    class GuardedSession(base):  # type: ignore[misc, valid-type]  # the maker's class is known at run time only
        dotmac_guarded = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            binding = guard(self, rls=rls, tenant_free=tenant_free)
            if rls is not None:
                # The tenant is a setting of a transaction, so no read can be sent without a transaction.
                state_of(self).settings = (
                    tenant_settings(binding, rls),
                    *rls.session_settings(self, lambda: binding.tenant),
                )

        def get(self, *args: Any, **kwargs: Any) -> Any:
            entity = super().get(*args, **kwargs)
            if entity is not None:
                _check_cached(entity, _binding(self))
            return entity

        def flush(self, objects: Sequence[object] | None = None) -> None:
            if has_nothing_to_flush(self):
                super().flush(objects)  # raises an exception if another task is flushing the session
                return
            binding = _binding(self)
            if not binding.open:
                check_unit_of_work(self, binding)
                check_attached(self, binding)
            with core_writes_allowed(binding):
                super().flush(objects)

        def close(self) -> None:
            try:
                super().close()
            except sa.IllegalStateChangeError:
                discard(self)  # another task is executing one of the session's methods
            _binding(self).attached.clear()
            if has_ended(self):
                end(self)

    GuardedSession.__name__ = f"Guarded{base.__name__}"
    event.listen(GuardedSession, "do_orm_execute", on_execute)
    event.listen(GuardedSession, "before_flush", _on_flush)
    event.listen(GuardedSession, "after_begin", _on_begin)
    event.listen(GuardedSession, "detached_to_persistent", _on_attached)
    return GuardedSession


def _binding(session: Session) -> TenantBinding:
    binding = binding_of(session)
    assert binding is not None
    return binding


def _check_cached(entity: Any, binding: TenantBinding) -> None:
    """Raise `TenantIsolationError` if an object, which came from the identity map, is another tenant's. No I/O."""
    state = inspect(entity)
    key = tenant_key(state.mapper)
    if key is None or binding.open:
        return
    tenant = binding.required(type(entity).__name__)
    if not same(state.dict.get(key, tenant), tenant):
        raise TenantIsolationError(f"{type(entity).__name__}: the session holds a row of another tenant.")


def _on_flush(session: Session, *_: object) -> None:
    """Check the flush again, because other listeners can have added objects to it."""
    binding = _binding(session)
    if binding.open:
        stamp_by_related(session)
    else:
        check_unit_of_work(session, binding)


def _on_attached(session: Session, entity: object) -> None:
    binding = _binding(session)
    if not binding.open:
        binding.attached.add(inspect(entity))


def _on_begin(session: Session, _transaction: object, connection: Connection) -> None:
    watch(session, connection)


_listener: Any  # for mypy, functions do not have this attribute
for _listener in (_on_flush, _on_begin, on_execute):
    # This mark distinguishes the toolkit's listeners from the user's. If a session has a listener of the user's,
    # repositories write by the unit of work and in transactions, so that the listener is called.
    _listener.dotmac_internal = True
