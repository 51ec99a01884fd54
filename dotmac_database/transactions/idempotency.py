"""`once`: a repeated request gets the result of the first one, and writes nothing again.

A client that did not get a response, such as after a lost connection, does not know whether its request took effect. It
repeats the request with the same key. The key is recorded in the transaction of the work itself, so that either both
are committed or neither is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Column, MetaData, String, Table, delete, select, tuple_, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..dialects import dialect_named, translated
from ..dialects.own_statements import OWN
from ..dialects.own_tables import IDEMPOTENCY_TABLE
from ..errors import DuplicateEntityError, ValidationError
from ..execution.state import sole_connection, sync_session
from ..types import UTCDateTime, as_utc, utc_now
from .locks import require_transaction, tenant_of

MAX_KEY = 255
_LONGEST = timedelta(days=3660)
_OWN = {OWN: True}

idempotency_metadata = MetaData()
"""The metadata of this module's table, for ``create_all`` or a migration."""

_KEYS = Table(
    IDEMPOTENCY_TABLE,
    idempotency_metadata,
    Column("tenant_id", String(128), primary_key=True),
    Column("key", String(MAX_KEY), primary_key=True),
    Column("fingerprint", String(128)),
    Column("result", JSON(none_as_null=True)),
    Column("created_at", UTCDateTime, nullable=False, index=True),
    Column("expires_at", UTCDateTime, index=True),
)


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """A recorded key.

    ``first``: this transaction has recorded the key, and must do the work. Otherwise the work was done at
    ``created_at``, and ``result`` is the saved result (None if none was saved).
    """

    key: str
    tenant_id: str
    first: bool
    created_at: datetime
    result: Any = None
    _session: Session = field(repr=False, compare=False, kw_only=True)

    def save(self, result: Any) -> None:
        """Save ``result``, a JSON value, for repeated requests. One statement, in the same transaction."""
        with translated():
            require_transaction(self._session, "An idempotency key")
            statement = update(_KEYS).where(_KEYS.c.tenant_id == self.tenant_id, _KEYS.c.key == self.key)
            sole_connection(self._session).execute(statement.values(result=result), execution_options=_OWN)

    async def async_save(self, session: AsyncSession, result: Any) -> None:
        """As `save`, for the `AsyncSession` of `async_once`."""
        await session.run_sync(lambda _: self.save(result))


def once(
    session: Session,
    key: str,
    *,
    tenant_id: str | None = None,
    fingerprint: str | None = None,
    ttl: float | timedelta | None = None,
) -> IdempotencyRecord:
    """Record ``key`` for this tenant in the open transaction, or find it already recorded.

    If two transactions use one key, the second waits until the first has ended. ``tenant_id`` None: the session's
    tenant, if any. ``fingerprint`` is a hash of the request (at most 128 characters): if the key was recorded with
    another fingerprint, `DuplicateEntityError` is raised. The key expires after ``ttl`` (seconds, or a timedelta; None:
    never). An expired key counts as new, even if it was not yet purged.

    Raises `ValidationError` for a key that is empty or too long, and for a ``ttl`` that is not positive or longer than
    ten years. Raises `TransactionError` without an open transaction. Sends one statement, two if the key is found, and
    three if it has expired. Requires the table of ``idempotency_metadata``.
    """
    plain = sync_session(session)
    if not key or len(key) > MAX_KEY:
        raise ValidationError(f"An idempotency key has 1 to {MAX_KEY} characters.", field="key")
    lifetime = None if ttl is None else lifetime_of(ttl)
    require_transaction(plain, "An idempotency key")
    tenant, now = tenant_of(plain, tenant_id), utc_now()
    expires = None if lifetime is None else now + lifetime
    values = {"tenant_id": tenant, "key": key, "fingerprint": fingerprint, "created_at": now, "expires_at": expires}
    with translated():
        while True:
            if _insert(plain, values):
                return IdempotencyRecord(key, tenant, True, now, _session=plain)
            row = _find(plain, tenant, key)
            if row is None:
                continue  # the key was purged between the two statements
            if row.expires_at is None or row.expires_at > now:
                break
            if _take_over(plain, values):
                return IdempotencyRecord(key, tenant, True, now, _session=plain)
    if fingerprint is not None and row.fingerprint is not None and row.fingerprint != fingerprint:
        raise DuplicateEntityError("The idempotency key was used for another request.", fields=("key",))
    return IdempotencyRecord(key, tenant, False, row.created_at, row.result, _session=plain)


async def async_once(
    session: AsyncSession,
    key: str,
    *,
    tenant_id: str | None = None,
    fingerprint: str | None = None,
    ttl: float | timedelta | None = None,
) -> IdempotencyRecord:
    """As `once`, for an `AsyncSession`."""
    return await session.run_sync(once, key, tenant_id=tenant_id, fingerprint=fingerprint, ttl=ttl)


def lifetime_of(ttl: float | timedelta) -> timedelta:
    """``ttl`` as a timedelta. Raises `ValidationError` unless it is positive and at most ten years."""
    try:
        lifetime = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    except (TypeError, ValueError, OverflowError):
        lifetime = timedelta(0)
    if not timedelta(0) < lifetime <= _LONGEST:
        raise ValidationError("The ttl of an idempotency key must be positive, and at most ten years.", field="ttl")
    return lifetime


def purge_idempotency_keys(session: Session, before: datetime | None = None, *, at_most: int | None = None) -> int:
    """Delete all tenants' keys that were recorded ``before`` this time (naive: UTC). Returns the number of keys.

    ``before`` None: the expired keys. ``at_most``: only so many keys, the oldest first. Keys that another transaction
    has locked are then skipped, so that the call never waits. Sends one statement in the session's transaction, and
    does not commit.
    """
    plain = sync_session(session)
    condition = _KEYS.c.expires_at < utc_now() if before is None else _KEYS.c.created_at < as_utc(before)
    if at_most is not None:
        identity = (_KEYS.c.tenant_id, _KEYS.c.key)
        order = _KEYS.c.expires_at if before is None else _KEYS.c.created_at
        batch = select(*identity).where(condition).order_by(order).limit(at_most).with_for_update(skip_locked=True)
        condition = tuple_(*identity).in_(batch)
    with translated():
        result = sole_connection(plain).execute(delete(_KEYS).where(condition), execution_options=_OWN)
    return int(result.rowcount)


async def async_purge_idempotency_keys(
    session: AsyncSession, before: datetime | None = None, *, at_most: int | None = None
) -> int:
    """As `purge_idempotency_keys`, for an `AsyncSession`."""
    return await session.run_sync(purge_idempotency_keys, before, at_most=at_most)


def _insert(session: Session, values: dict[str, Any]) -> bool:
    connection = sole_connection(session)
    statement = dialect_named(connection.dialect.name).insert(_KEYS).values(values)
    insertion = statement.on_conflict_do_nothing().returning(_KEYS.c.key)
    return connection.scalar(insertion, execution_options=_OWN) is not None


def _take_over(session: Session, values: dict[str, Any]) -> bool:
    """Record an expired key again. If two transactions try this, only the first returns True."""
    is_expired = _KEYS.c.expires_at <= values["created_at"]
    statement = update(_KEYS).where(_KEYS.c.tenant_id == values["tenant_id"], _KEYS.c.key == values["key"], is_expired)
    result = sole_connection(session).execute(statement.values({**values, "result": None}), execution_options=_OWN)
    return int(result.rowcount) == 1


def _find(session: Session, tenant: str, key: str) -> Row[Any] | None:
    statement = select(_KEYS).where(_KEYS.c.tenant_id == tenant, _KEYS.c.key == key)
    return sole_connection(session).execute(statement, execution_options=_OWN).one_or_none()
