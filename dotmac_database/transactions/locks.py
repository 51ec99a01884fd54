"""Advisory locks: one transaction at a time does a named thing, for each tenant."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..dialects import translated
from ..dialects.isolation import lock_by_name
from ..errors import TransactionError, ValidationError
from ..sessions import refuse_ended, sole_bind, sole_connection, state_of, sync_session
from ..tenancy.context import binding_of
from ..tenancy.values import named


def advisory_lock(session: Session, name: str, *, tenant_id: str | None = None, wait: bool = True) -> bool:
    """Hold the lock ``name`` of this tenant until the transaction of ``session`` ends; True: it is held.

    ``tenant_id`` None is the tenant that the session is bound to, and without one a lock for all. With ``wait`` it
    waits for whoever holds it, at most for the transaction's ``lock_timeout`` (`DatabaseTimeoutError`); without, it
    is False at once. It guards nothing but other advisory locks of that name. One statement. Raises
    `TransactionError` outside of a transaction, and on other databases than PostgreSQL.
    """
    plain = sync_session(session)
    if not name:
        raise ValidationError("An advisory lock needs a name.", field="name")
    require_transaction(plain, "An advisory lock")
    with translated():
        dialect = sole_bind(plain).dialect.name
        if dialect != "postgresql":
            raise TransactionError(f"{dialect} has no advisory locks.")
        # A name is free text, and so is a tenant's: the length keeps "a" + "b:c" from meeting "a:b" + "c".
        tenant = tenant_of(plain, tenant_id)
        held = sole_connection(plain).scalar(lock_by_name(f"{len(tenant)}:{tenant}:{name}", wait=wait))
    return wait or bool(held)


async def async_advisory_lock(
    session: AsyncSession, name: str, *, tenant_id: str | None = None, wait: bool = True
) -> bool:
    """As `advisory_lock`, for an `AsyncSession`."""
    return await session.run_sync(advisory_lock, name, tenant_id=tenant_id, wait=wait)


def require_transaction(session: Session, what: str) -> None:
    """Refuse, with `TransactionError`, where the next commit would be the statement's own."""
    refuse_ended(session)
    if not state_of(session).units and not session.in_transaction():
        raise TransactionError(f"{what} lasts as long as a transaction, and none is open: use a DatabaseTransaction.")


def tenant_of(session: Session, tenant_id: str | None) -> str:
    """The tenant that is meant, as text: this one, else the session's; none is the empty one.

    Raises `ValidationError` for what names no tenant, and `TenantRequiredError` for a blank.
    """
    if tenant_id is not None:
        return str(named(tenant_id))
    binding = binding_of(session)
    return "" if binding is None or binding.tenant is None else str(binding.tenant)
