"""`once`: a request that is repeated gets its first result, and writes nothing a second time.

A client that lost the answer, or its connection during COMMIT, does not know whether its request took effect.
It sends the request again with the same key. The key is recorded in the transaction that does the work, so that
either both are there or neither is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, MetaData, String, Table, delete, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..dialects import dialect_named, translated
from ..dialects.own import OWN
from ..errors import DuplicateEntityError, ValidationError
from ..sessions import sync_session
from ..types import UTCDateTime, as_utc, utc_now
from .locks import require_transaction, tenant_of

MAX_KEY = 255
_OWN = {OWN: True}

idempotency_metadata = MetaData()
"""Has the one table of this module, for ``create_all`` or a migration."""

_KEYS = Table(
    "dotmac_idempotency_keys",
    idempotency_metadata,
    Column("tenant_id", String(128), primary_key=True),
    Column("key", String(MAX_KEY), primary_key=True),
    Column("fingerprint", String(128)),
    Column("result", JSON(none_as_null=True)),
    Column("created_at", UTCDateTime, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """A key that was recorded.

    ``first``: this transaction recorded it, and is to do the work; otherwise it was done at ``created_at``, and
    ``result`` is what it saved (None where it saved nothing).
    """

    key: str
    tenant_id: str
    first: bool
    created_at: datetime
    result: Any = None
    _session: Session = field(repr=False, compare=False, kw_only=True)

    def save(self, result: Any) -> None:
        """Keep ``result``, a JSON value, for whoever repeats the request. One statement, in the same transaction."""
        with translated():
            require_transaction(self._session, "An idempotency key")
            statement = update(_KEYS).where(_KEYS.c.tenant_id == self.tenant_id, _KEYS.c.key == self.key)
            self._session.connection().execute(statement.values(result=result), execution_options=_OWN)

    async def async_save(self, session: AsyncSession, result: Any) -> None:
        """As `save`, for the `AsyncSession` that `async_once` was given."""
        await session.run_sync(lambda _: self.save(result))


def once(
    session: Session, key: str, *, tenant_id: str | None = None, fingerprint: str | None = None
) -> IdempotencyRecord:
    """Record ``key`` of this tenant in the open transaction, or find it recorded.

    Of two transactions with one key the second waits for the first to end. ``tenant_id`` None is the tenant that the
    session is bound to, if any. With a ``fingerprint`` (a hash of the request, at most 128 characters) a key that was
    used for another request raises `DuplicateEntityError`. Raises `ValidationError` for an empty or overlong key, and
    `TransactionError` where no transaction is open. One statement, two where the key is found. Needs
    the table of ``idempotency_metadata``.
    """
    plain = sync_session(session)
    if not key or len(key) > MAX_KEY:
        raise ValidationError(f"An idempotency key has 1 to {MAX_KEY} characters.", field="key")
    require_transaction(plain, "An idempotency key")
    tenant, now = tenant_of(plain, tenant_id), utc_now()
    with translated():
        while True:
            if _insert(plain, tenant, key, fingerprint, now):
                return IdempotencyRecord(key, tenant, True, now, _session=plain)
            if row := _find(plain, tenant, key):  # None: it was purged between the two
                break
    if fingerprint is not None and row.fingerprint is not None and row.fingerprint != fingerprint:
        raise DuplicateEntityError("The idempotency key was used for another request.", fields=("key",))
    return IdempotencyRecord(key, tenant, False, row.created_at, row.result, _session=plain)


async def async_once(
    session: AsyncSession, key: str, *, tenant_id: str | None = None, fingerprint: str | None = None
) -> IdempotencyRecord:
    """As `once`, for an `AsyncSession`."""
    return await session.run_sync(once, key, tenant_id=tenant_id, fingerprint=fingerprint)


def purge_idempotency_keys(session: Session, before: datetime) -> int:
    """Forget every tenant's keys that were recorded before this time (naive is UTC); gives their number.

    One statement, in the session's transaction; the commit stays yours.
    """
    plain = sync_session(session)
    with translated():
        result = plain.connection().execute(
            delete(_KEYS).where(_KEYS.c.created_at < as_utc(before)), execution_options=_OWN
        )
    return int(result.rowcount)


def _insert(session: Session, tenant: str, key: str, fingerprint: str | None, now: datetime) -> bool:
    connection = session.connection()
    values = {"tenant_id": tenant, "key": key, "fingerprint": fingerprint, "created_at": now}
    statement = dialect_named(connection.dialect.name).insert(_KEYS).values(values)
    made = statement.on_conflict_do_nothing().returning(_KEYS.c.key)
    return connection.scalar(made, execution_options=_OWN) is not None


def _find(session: Session, tenant: str, key: str) -> Row[Any] | None:
    statement = select(_KEYS).where(_KEYS.c.tenant_id == tenant, _KEYS.c.key == key)
    return session.connection().execute(statement, execution_options=_OWN).one_or_none()
