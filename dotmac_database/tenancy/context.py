"""The tenant of a session.

The binding is stored on the sync session, never globally. An `unscoped` block is effective only in the task or thread
that opened it, and ends with its block, task or thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakSet

from sqlalchemy.orm import InstanceState, Session

from ..errors import TenantIsolationError, TenantNotGivenError, ValidationError
from ..execution.state import AnySession, state_of, sync_session
from .holdings import holds_tenant_data, release_added, release_others, stamp_pending, unload_tenant_rows
from .values import same, valid_tenant

if TYPE_CHECKING:
    from .rls.row_level_security import RowLevelSecurity

log = logging.getLogger("dotmac_database.tenancy")


class _AllTenants(Enum):
    ALL_TENANTS = "ALL_TENANTS"

    def __repr__(self) -> str:
        return "ALL_TENANTS"


ALL_TENANTS: Final = _AllTenants.ALL_TENANTS
"""Used in place of a tenant, to work explicitly across all tenants, for reading and administration."""

AllTenants = Literal[_AllTenants.ALL_TENANTS]

_INFO = "dotmac_database.tenant"
_BLOCKS: ContextVar[frozenset[int]] = ContextVar("dotmac_database_unscoped", default=frozenset())
_NUMBERS = count()


@dataclass(slots=True, eq=False, weakref_slot=True)
class TenantBinding:
    """The state of a guarded session.

    ``blocks`` are the open `unscoped` blocks, which are effective only in the task or thread that opened them.
    ``attached`` are objects that were loaded outside of this session and then added to it: their loaded state does not
    prove their tenant. ``writing`` is not zero during a flush or a bulk insert or update, which send Core statements.
    ``tenant_free`` are the names of tables and functions that are declared to contain no tenant's rows. ``last`` is the
    last tenant of the session: the session's objects belong to that tenant. ``waits`` returns whether callbacks wait
    for the commit. ``read_only``: statements that write are refused.
    """

    rls: RowLevelSecurity | None = None
    tenant_free: frozenset[str] = frozenset()
    tenant: Any = None
    blocks: set[int] = field(default_factory=set)
    writing: int = 0
    last: object = None
    waits: Callable[[], bool] | None = None
    read_only: bool = False
    attached: WeakSet[InstanceState[object]] = field(default_factory=WeakSet)

    @property
    def open(self) -> bool:
        """Whether an `unscoped` block of the current task or thread is open."""
        return bool(self.blocks) and not self.blocks.isdisjoint(_BLOCKS.get())

    def required(self, what: str) -> Any:
        """The bound tenant. Raises `TenantNotGivenError` if there is none."""
        if self.tenant is None:
            raise TenantNotGivenError(f"{what} belongs to tenants, and the session is bound to no tenant.")
        return self.tenant

    def serve(self, tenant: object) -> None:
        """Set the tenant; None: no tenant."""
        self.tenant = tenant
        if tenant is not None:
            self.last = tenant


def binding_of(session: Session) -> TenantBinding | None:
    """The binding of a guarded session; None if the session is not guarded."""
    binding: TenantBinding | None = session.info.get(_INFO)
    return binding


def guard(
    session: Session, *, rls: RowLevelSecurity | None, tenant_free: frozenset[str] = frozenset()
) -> TenantBinding:
    """Mark a session as guarded."""
    binding = session.info[_INFO] = TenantBinding(rls=rls, tenant_free=tenant_free)
    return binding


def bind_tenant(session: AnySession, tenant: Any) -> None:
    """Bind a guarded session to a tenant until it is closed. No I/O.

    Binding to the same tenant again has no effect. Binding to another tenant requires a clean session: no pending or
    loaded rows of a tenant, and no waiting `on_commit` callbacks. Otherwise, and for a session that is not guarded, it
    raises `TenantIsolationError`. Raises `TenantRequiredError` without a tenant.
    """
    bound = sync_session(session)
    binding = _guarded(bound)
    if tenant is ALL_TENANTS:
        raise ValidationError("A session serves one tenant; to work across them use unscoped(session, reason=…).")
    _rebind(bound, binding, valid_tenant(tenant))


def restrict_to_reads(session: AnySession) -> None:
    """Have a guarded session refuse writes until it is closed: `MisuseError`, before anything is sent. No I/O.

    Raw SQL is refused too, since it could write. Raises `TenantIsolationError` for a session that is not guarded.
    """
    restricted = sync_session(session)
    _guarded(restricted).read_only = state_of(restricted).read_only = True


def is_guarded(session: AnySession) -> bool:
    """Whether the session is guarded: its maker was passed to `guard_tenants`."""
    return binding_of(sync_session(session)) is not None


@contextmanager
def tenant_scope(session: AnySession, tenant: Any, *, release: bool = False) -> Iterator[None]:
    """Bind a guarded session to a tenant in this block. No I/O.

    Objects that the block loads stay in the session, which must be clean (``expunge_all()``) before it can serve
    another tenant. Pending changes of the block can be flushed only in a scope of the same tenant. If the block is
    inside another tenant's scope, its unchanged objects are detached at its end. With ``release`` they are always
    detached, so that a scope of another tenant can follow.
    """
    bound = sync_session(session)
    binding = _guarded(bound)
    before = binding.tenant
    bind_tenant(bound, tenant)
    entities = [*bound.identity_map.values(), *bound.new] if release else []
    try:
        yield
    finally:
        _return_to(bound, binding, before)
        if release:
            release_added(bound, entities)


def _return_to(session: Session, binding: TenantBinding, tenant: object) -> None:
    """Restore the tenant from before a block. New objects of the block keep the block's tenant."""
    block_tenant = binding.tenant
    binding.serve(tenant)
    if block_tenant is None or same(block_tenant, tenant):
        return
    stamp_pending(session, block_tenant)
    if tenant is not None:
        release_others(session, tenant)


@contextmanager
def with_registered_tenant(session: Session, tenant: object) -> Iterator[None]:
    """Bind the session to the tenant that it had when a callback was registered; None: do not change its tenant.

    The callback can be called within another tenant's scope or an `unscoped` block, which must not apply to it.
    """
    binding = binding_of(session)
    if binding is None or tenant is None:
        yield
        return
    before = binding.tenant
    if before is not None and not same(before, tenant):
        unload_tenant_rows(session)
    token = _BLOCKS.set(frozenset())
    binding.serve(tenant)
    try:
        yield
    finally:
        _BLOCKS.reset(token)
        _return_to(session, binding, before)


@contextmanager
def unscoped(session: AnySession, *, reason: str, level: int = logging.WARNING) -> Iterator[None]:
    """Let a guarded session work across tenants in this block, in this task or thread.

    The ``reason`` is logged at ``level``, by default as a warning. The end of the block is logged one level lower, at
    most at INFO.

    Flush inside the block: changes that are flushed later must be the bound tenant's. At the end of the block, objects
    of other tenants that it loaded are detached from the session.
    """
    if not reason or not reason.strip():
        raise ValidationError("unscoped() needs a reason.", field="reason")
    bound = sync_session(session)
    binding = _guarded(bound)
    log.log(level, "tenant scope opened: %s", reason, extra={"reason": reason, "tenant": str(binding.tenant)})
    outermost = not binding.blocks
    before = {id(entity) for entity in bound.identity_map.values()} if outermost else set()
    number = next(_NUMBERS)
    token = _BLOCKS.set(_BLOCKS.get() | {number})
    binding.blocks.add(number)
    try:
        yield
    finally:
        binding.blocks.discard(number)
        _BLOCKS.reset(token)
        if outermost:
            release_others(bound, binding.tenant, before)
        log.log(min(level - 10, logging.INFO), "tenant scope closed: %s", reason, extra={"reason": reason})


def confine(session: Session, tenant: object) -> None:
    """Bind a guarded session without a tenant to a repository's tenant, and refuse a session of another tenant.

    It refuses the session even if it is clean: unlike `bind_tenant`, a repository never changes a session's tenant.
    """
    binding = binding_of(session)
    if binding is None or binding.tenant == tenant or binding.open:
        return
    if tenant is ALL_TENANTS:
        raise TenantIsolationError(
            "The session is guarded; ALL_TENANTS needs a block of unscoped(session, reason=…) around it."
        )
    if binding.tenant is None:
        _rebind(session, binding, valid_tenant(tenant))
    elif not same(binding.tenant, tenant):
        raise TenantIsolationError("The session serves another tenant than the repository.")


def _guarded(session: Session) -> TenantBinding:
    binding = binding_of(session)
    if binding is None:
        raise TenantIsolationError("The session is not guarded: make it with guard_tenants(sessionmaker).")
    return binding


def _rebind(session: Session, binding: TenantBinding, tenant: object) -> None:
    if same(binding.tenant, tenant):
        return
    previous = binding.last if binding.tenant is None else binding.tenant
    if not same(previous, tenant):
        # Objects that were added before the session had a tenant become the first tenant's. Loaded rows have a tenant.
        unclean = holds_tenant_data(session, pending=previous is not None)
        waits = previous is not None and binding.waits is not None and binding.waits()
        begun = binding.tenant is not None and binding.rls is not None and session.in_transaction()
        if unclean or waits or begun:
            raise TenantIsolationError(
                "A session serves one tenant; to serve another it must be clean: nothing loaded, nothing pending, "
                "and no callback that waits for the commit."
            )
    binding.serve(tenant)
