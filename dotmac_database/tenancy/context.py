"""Which tenant a session serves.

The binding is kept on the sync session, never in a global; what `unscoped` opens also needs the context of the
task or thread that opened it, so that it ends with its block, task and thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal
from weakref import WeakSet

from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm import InstanceState, Session

from ..errors import TenantIsolationError, TenantRequiredError, ValidationError
from ..models.traits import tenant_key
from ..sessions import AnySession, sync_session

log = logging.getLogger("dotmac_database.tenancy")


class _AllTenants(Enum):
    ALL_TENANTS = "ALL_TENANTS"

    def __repr__(self) -> str:
        return "ALL_TENANTS"


ALL_TENANTS: Final = _AllTenants.ALL_TENANTS
"""In place of a tenant: across all of them, explicitly, for reading and administration."""

AllTenants = Literal[_AllTenants.ALL_TENANTS]

_INFO = "dotmac_database.tenant"
_OPEN: ContextVar[frozenset[int]] = ContextVar("dotmac_database_unscoped", default=frozenset())


@dataclass(slots=True, eq=False, weakref_slot=True)
class TenantBinding:
    """A guarded session's memory of its tenant.

    ``attached`` are objects that came from outside of the session, so that their loaded state proves nothing;
    ``passing`` counts the statements and flushes that the guard has checked and that are under way; ``applied`` is the
    tenant that row-level security was told in the open transaction.
    """

    rls: bool = False
    tenant: Any = None
    unscoped: int = 0
    passing: int = 0
    applied: Any = None
    attached: WeakSet[InstanceState[Any]] = field(default_factory=WeakSet)

    @property
    def open(self) -> bool:
        """Whether an `unscoped` block of this very task or thread is open."""
        return self.unscoped > 0 and id(self) in _OPEN.get()

    def required(self, what: str) -> Any:
        """The bound tenant; raises `TenantRequiredError` where there is none."""
        if self.tenant is None:
            raise TenantRequiredError(f"{what} belongs to tenants, and the session is bound to none.")
        return self.tenant


def binding_of(session: Session) -> TenantBinding | None:
    """The binding of a guarded session; None: the session is not guarded."""
    binding: TenantBinding | None = session.info.get(_INFO)
    return binding


def guard(session: Session, *, rls: bool) -> TenantBinding:
    """Mark a session as guarded."""
    binding = session.info[_INFO] = TenantBinding(rls=rls)
    return binding


def bind_tenant(session: AnySession, tenant: Any) -> None:
    """Bind a guarded session to a tenant for its life. No I/O.

    Binding to the same tenant again is nothing; to another needs a clean session (nothing pending, nothing loaded,
    no open transaction), else `TenantIsolationError`. A session that is not guarded raises it, too.
    """
    bound = sync_session(session)
    binding = _guarded(bound)
    if tenant is None or (isinstance(tenant, str) and not tenant.strip()):
        raise TenantRequiredError("A session can't be bound to no tenant.")
    if tenant is ALL_TENANTS:
        raise ValidationError("A session serves one tenant; to work across them use unscoped(session, reason=…).")
    _rebind(bound, binding, tenant)


@contextmanager
def tenant_scope(session: AnySession, tenant: Any) -> Iterator[None]:
    """Bind a guarded session to a tenant for this block. No I/O.

    At its end the session must be clean again before it serves another tenant: what was loaded stays the block's.
    """
    bound = sync_session(session)
    binding = _guarded(bound)
    before = binding.tenant
    bind_tenant(bound, tenant)
    try:
        yield
    finally:
        binding.tenant = before


@contextmanager
def unscoped(session: AnySession, *, reason: str) -> Iterator[None]:
    """Let a guarded session work across tenants in this block, task and thread; the reason is logged.

    Objects that it loads stay in the session: use a session of its own, or ``expunge_all()`` afterwards.
    """
    if not reason or not reason.strip():
        raise ValidationError("unscoped() needs the reason for it.", field="reason")
    binding = _guarded(sync_session(session))
    log.warning("tenant scope opened: %s", reason, extra={"reason": reason, "tenant": str(binding.tenant)})
    token = _OPEN.set(_OPEN.get() | {id(binding)})
    binding.unscoped += 1
    try:
        yield
    finally:
        binding.unscoped -= 1
        _OPEN.reset(token)
        log.info("tenant scope closed: %s", reason, extra={"reason": reason})


def confine(session: Session, tenant: Any) -> None:
    """What a tenant repository does before each statement: bind an unbound guarded session, refuse another tenant's."""
    binding = binding_of(session)
    if binding is None or binding.tenant == tenant or binding.open:
        return
    if tenant is ALL_TENANTS:
        raise TenantIsolationError(
            "The session is guarded; ALL_TENANTS needs a block of unscoped(session, reason=…) around it."
        )
    _rebind(session, binding, tenant)


def _guarded(session: Session) -> TenantBinding:
    binding = binding_of(session)
    if binding is None:
        raise TenantIsolationError("The session is not guarded: make it with guard_tenants(sessionmaker).")
    return binding


def _rebind(session: Session, binding: TenantBinding, tenant: Any) -> None:
    if binding.tenant == tenant:
        return
    if binding.tenant is not None or _holds_tenants_rows(session):
        clean = not (session.identity_map or session.new or session.deleted or session.in_transaction())
        if not clean:
            raise TenantIsolationError(
                "A session serves one tenant; another needs a clean one (nothing loaded, pending or begun)."
            )
    binding.tenant = tenant


def _holds_tenants_rows(session: Session) -> bool:
    """Whether the session holds loaded rows of tenants, which an unscoped block may have left."""
    return any(tenant_key(sa_inspect(entity).mapper) for entity in session.identity_map.values())
