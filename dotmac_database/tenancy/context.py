"""Which tenant a session serves.

The binding is kept on the sync session, never in a global; what `unscoped` opens also needs the context of the
task or thread that opened it, so that it ends with its block, task and thread.
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
from ..sessions import AnySession, sync_session
from .holdings import forget_reached, holds_tenants, release_added, release_others, stamp_pending
from .values import named, same

if TYPE_CHECKING:
    from .rls import RowLevelSecurity

log = logging.getLogger("dotmac_database.tenancy")


class _AllTenants(Enum):
    ALL_TENANTS = "ALL_TENANTS"

    def __repr__(self) -> str:
        return "ALL_TENANTS"


ALL_TENANTS: Final = _AllTenants.ALL_TENANTS
"""In place of a tenant: across all of them, explicitly, for reading and administration."""

AllTenants = Literal[_AllTenants.ALL_TENANTS]

UNKNOWN: Final = object()
"""The tenant setting after a rollback to a savepoint: PostgreSQL has restored an older one, which may be any."""

_INFO = "dotmac_database.tenant"
_BLOCKS: ContextVar[frozenset[int]] = ContextVar("dotmac_database_unscoped", default=frozenset())
_NUMBERS = count()


@dataclass(slots=True, eq=False, weakref_slot=True)
class TenantBinding:
    """A guarded session's memory of its tenant.

    ``blocks`` are the open `unscoped` blocks, which count only where the task's or thread's context knows them, too.
    ``attached`` are objects that came from outside of the session, so that their loaded state proves nothing;
    ``writing`` is not zero while the session itself writes by Core statements: a flush, or a bulk insert or update.
    ``announced`` is the tenant setting that row-level security has in the open transaction; None: no setting yet.
    ``tenant_free`` are the names of tables and functions that are declared to hold no tenant's rows. ``last`` is the
    tenant that was served last: the session's objects are that tenant's. ``waits`` says whether callbacks wait for the
    commit.
    """

    rls: RowLevelSecurity | None = None
    tenant_free: frozenset[str] = frozenset()
    tenant: Any = None
    blocks: set[int] = field(default_factory=set)
    writing: int = 0
    announced: Any = None
    last: Any = None
    waits: Callable[[], bool] | None = None
    attached: WeakSet[InstanceState[Any]] = field(default_factory=WeakSet)

    @property
    def open(self) -> bool:
        """Whether an `unscoped` block of this very task or thread is open."""
        return bool(self.blocks) and not self.blocks.isdisjoint(_BLOCKS.get())

    def required(self, what: str) -> Any:
        """The bound tenant; raises `TenantNotGivenError` where there is none."""
        if self.tenant is None:
            raise TenantNotGivenError(f"{what} belongs to tenants, and the session is bound to none.")
        return self.tenant

    def serve(self, tenant: Any) -> None:
        """Be the tenant's from now on; None: nobody's."""
        self.tenant = tenant
        if tenant is not None:
            self.last = tenant


def binding_of(session: Session) -> TenantBinding | None:
    """The binding of a guarded session; None: the session is not guarded."""
    binding: TenantBinding | None = session.info.get(_INFO)
    return binding


def guard(
    session: Session, *, rls: RowLevelSecurity | None, tenant_free: frozenset[str] = frozenset()
) -> TenantBinding:
    """Mark a session as guarded."""
    binding = session.info[_INFO] = TenantBinding(rls=rls, tenant_free=tenant_free)
    return binding


def bind_tenant(session: AnySession, tenant: Any) -> None:
    """Bind a guarded session to a tenant for its life. No I/O.

    Binding to the same tenant again is nothing; to another needs a clean session, else `TenantIsolationError`: nothing
    of a tenant may be pending or loaded, and no `on_commit` callback may wait. A session that is not guarded raises it,
    too; no tenant is a `TenantRequiredError`.
    """
    bound = sync_session(session)
    binding = _guarded(bound)
    if tenant is ALL_TENANTS:
        raise ValidationError("A session serves one tenant; to work across them use unscoped(session, reason=…).")
    _rebind(bound, binding, named(tenant))


def is_guarded(session: AnySession) -> bool:
    """Whether the session's maker was given to `guard_tenants`."""
    return binding_of(sync_session(session)) is not None


@contextmanager
def tenant_scope(session: AnySession, tenant: Any, *, release: bool = False) -> Iterator[None]:
    """Bind a guarded session to a tenant for this block. No I/O.

    What the block loaded stays in the session, which must be clean (``expunge_all()``) before it serves another
    tenant; what it left unflushed can be flushed in a scope of the same tenant alone. Within another tenant's scope
    unchanged rows of the block leave the session with it, detached; with ``release`` they always do, so that another
    tenant's scope may follow.
    """
    bound = sync_session(session)
    binding = _guarded(bound)
    before = binding.tenant
    bind_tenant(bound, tenant)
    held = [*bound.identity_map.values(), *bound.new] if release else []
    try:
        yield
    finally:
        _return_to(bound, binding, before)
        if release:
            release_added(bound, held)


def _return_to(session: Session, binding: TenantBinding, tenant: Any) -> None:
    """Serve the tenant from before a block again, whose own rows stay its own."""
    left = binding.tenant
    binding.serve(tenant)
    if left is None or same(left, tenant):
        return
    stamp_pending(session, left)
    if tenant is not None:
        release_others(session, tenant)


@contextmanager
def as_registered(session: Session, tenant: Any) -> Iterator[None]:
    """Serve the tenant under which a callback was registered, and no other; None: whom the session serves anyway.

    It may be called in another scope, or within an `unscoped` block, which is not its own.
    """
    binding = binding_of(session)
    if binding is None or tenant is None:
        yield
        return
    before = binding.tenant
    if before is not None and not same(before, tenant):
        forget_reached(session)
    token = _BLOCKS.set(frozenset())
    binding.serve(tenant)
    try:
        yield
    finally:
        _BLOCKS.reset(token)
        _return_to(session, binding, before)


@contextmanager
def unscoped(session: AnySession, *, reason: str, level: int = logging.WARNING) -> Iterator[None]:
    """Let a guarded session work across tenants in this block, task and thread; the reason is logged.

    As a warning, unless ``level`` is another of `logging`'s. The end of the block is logged one level below, and never
    above INFO.

    Flush inside of the block: what is written after it must be the bound tenant's. Rows of others that the block
    loaded leave the session with it, detached, so that nothing after it finds them there.
    """
    if not reason or not reason.strip():
        raise ValidationError("unscoped() needs the reason for it.", field="reason")
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


def confine(session: Session, tenant: Any) -> None:
    """What a tenant repository does before each statement: bind an unbound guarded session, refuse another tenant's.

    Also a clean one: a repository does not take a session over, as `bind_tenant` may.
    """
    binding = binding_of(session)
    if binding is None or binding.tenant == tenant or binding.open:
        return
    if tenant is ALL_TENANTS:
        raise TenantIsolationError(
            "The session is guarded; ALL_TENANTS needs a block of unscoped(session, reason=…) around it."
        )
    if binding.tenant is None:
        _rebind(session, binding, named(tenant))
    elif not same(binding.tenant, tenant):
        raise TenantIsolationError("The session serves another tenant than the repository.")


def _guarded(session: Session) -> TenantBinding:
    binding = binding_of(session)
    if binding is None:
        raise TenantIsolationError("The session is not guarded: make it with guard_tenants(sessionmaker).")
    return binding


def _rebind(session: Session, binding: TenantBinding, tenant: Any) -> None:
    if same(binding.tenant, tenant):
        return
    held_for = binding.last if binding.tenant is None else binding.tenant
    if not same(held_for, tenant):
        # Rows that were added before the session served anyone are the first tenant's; loaded ones were somebody's.
        unclean = holds_tenants(session, pending=held_for is not None)
        waits = held_for is not None and binding.waits is not None and binding.waits()
        begun = binding.tenant is not None and binding.rls is not None and session.in_transaction()
        if unclean or waits or begun:
            raise TenantIsolationError(
                "A session serves one tenant; another needs a clean one: nothing loaded, nothing pending, "
                "and no callback that waits for the commit."
            )
    binding.serve(tenant)
