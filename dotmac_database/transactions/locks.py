"""Advisory locks: for each tenant, only one transaction at a time holds a named lock."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..dialects import translated
from ..dialects.features import has_advisory_locks
from ..dialects.isolation import lock_by_name
from ..errors import TransactionError, ValidationError
from ..execution.state import refuse_ended, sole_bind, sole_connection, state_of, sync_session
from ..tenancy.context import binding_of
from ..tenancy.values import valid_tenant


def advisory_lock(session: Session, name: str, *, tenant_id: str | None = None, wait: bool = True) -> bool:
    """Take the tenant's lock ``name`` until the transaction of ``session`` ends. Returns whether it is held.

    ``tenant_id`` None: the session's tenant; all sessions without a tenant share the lock. If another transaction holds
    the lock, the call waits for it, and raises `DatabaseTimeoutError` after the transaction's ``lock_timeout``. Without
    ``wait`` the call returns False at once. The lock excludes only other advisory locks of the tenant with the same
    name. One statement. Raises `TransactionError` outside of a transaction, and on databases other than PostgreSQL.
    """
    plain = sync_session(session)
    if not name:
        raise ValidationError("An advisory lock needs a name.", field="name")
    require_transaction(plain, "An advisory lock")
    with translated():
        dialect = sole_bind(plain).dialect.name
        if not has_advisory_locks(dialect):
            raise TransactionError(f"{dialect} has no advisory locks.")
        # Both names are free text: the length distinguishes "a" + "b:c" from "a:b" + "c".
        tenant = tenant_of(plain, tenant_id)
        held = sole_connection(plain).scalar(lock_by_name(f"{len(tenant)}:{tenant}:{name}", wait=wait))
    return wait or bool(held)


async def async_advisory_lock(
    session: AsyncSession, name: str, *, tenant_id: str | None = None, wait: bool = True
) -> bool:
    """As `advisory_lock`, for an `AsyncSession`."""
    return await session.run_sync(advisory_lock, name, tenant_id=tenant_id, wait=wait)


def require_transaction(session: Session, what: str) -> None:
    """Raise `TransactionError` if no transaction is open, since the statement would then be committed at once."""
    refuse_ended(session)
    if not state_of(session).open_blocks and not session.in_transaction():
        raise TransactionError(f"{what} needs an open transaction: use a DatabaseTransaction.")


def tenant_of(session: Session, tenant_id: str | None) -> str:
    """``tenant_id`` as text; if it is None, the tenant of the session, or the empty text if the session has none.

    Raises `ValidationError` for a value that can't be a tenant's name, and `TenantRequiredError` for a blank one.
    """
    if tenant_id is not None:
        return str(valid_tenant(tenant_id))
    binding = binding_of(session)
    return "" if binding is None or binding.tenant is None else str(binding.tenant)
