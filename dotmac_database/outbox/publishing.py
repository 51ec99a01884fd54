"""`publish`: a message that is written in the transaction of the work it tells of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from logging import DEBUG
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, Insert, Table
from sqlalchemy.orm import Session

from ..dialects.own_statements import OWN
from ..dialects.queueing import insertion, insertion_parameters, notifies
from ..execution.state import AnySession, sole_connection, sync_session
from ..tenancy.context import binding_of, unscoped, with_registered_tenant
from ..transactions.hooks import write_before_commit
from ..types import utc_now
from ..uuids import uuids7
from .message import json_text, lane_of, valid_name
from .table import sole_table

CHANNEL = "dotmac_outbox"
QUIET = 0.1
"""A process notifies the relays at most once in this time, in seconds.

PostgreSQL lets only one transaction with a notification commit at a time. A relay that was notified looks again after
this time, so that it finds the messages that were written without a notification.
"""

_COLUMNS = ("id", "tenant_id", "topic", "key", "lane", "payload", "created_at")
_NOTIFIED: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()


def publish(
    session: AnySession, topic: str, payload: object, *, key: str | None = None, table: Table | None = None
) -> UUID:
    """Publish a message if the session's transaction commits. Returns the message's id, a UUID of version 7.

    It is a plain call for a `Session` and an `AsyncSession`, and sends nothing. All messages of a transaction are
    written by one statement directly before its COMMIT, so they are in the order of the calls. If no transaction is
    open, one is begun, which the caller commits as usual; the plugin commits a request's. A message is not sent if its
    transaction is rolled back, or the savepoint in which it was published.

    ``payload`` is a JSON value, and is stored as it is now. Messages of one tenant and topic with the same ``key`` are
    delivered in order. ``key`` None: they are delivered in about the order of their writing. The message belongs to the
    tenant to which a guarded session is bound now; None: to no tenant. While it waits, the session can't be bound to
    another tenant. ``table`` None: the table that `outbox_table` has made.

    Raises `ValidationError` for a topic or key that has not 1 to 255 characters, and for a payload that is no JSON
    value; the error names the path of the value. Raises `MisuseError` without a table, and for a session that only
    reads.
    """
    plain = sync_session(session)
    binding = binding_of(plain)
    tenant: object = None if binding is None else binding.tenant
    (message_id,) = uuids7(1)
    tenant_id = None if tenant is None else str(tenant)
    row = {
        "id": message_id,
        "tenant_id": tenant_id,
        "topic": valid_name(topic, "topic"),
        "key": None if key is None else valid_name(key, "key"),
        "lane": lane_of(tenant_id, topic, key),
        "payload": json_text(payload),
        "created_at": utc_now(),
    }
    write_before_commit(plain, _writer(sole_table() if table is None else table), (tenant, row))
    return message_id


@lru_cache
def _writer(table: Table) -> partial[None]:
    """The function that writes rows of ``table``: always the same one, so that all its rows are written together."""
    return partial(_write, table)


def _write(table: Table, session: Session, values: Sequence[tuple[object, dict[str, object]]]) -> None:
    by_tenant: dict[object, list[dict[str, object]]] = {}
    for tenant, row in values:
        by_tenant.setdefault(tenant, []).append(row)
    for tenant, rows in by_tenant.items():
        with _serving(session, tenant):
            connection = sole_connection(session)
            dialect = connection.dialect.name
            statement = _insertion(table, dialect, CHANNEL if _should_notify(connection) else None)
            parameters = insertion_parameters(_COLUMNS, rows, dialect)
            connection.execute(statement, parameters, execution_options={OWN: True})


def _serving(session: Session, tenant: object) -> AbstractContextManager[None]:
    """A block in which row-level security admits the tenant's messages, or those without a tenant."""
    binding = binding_of(session)
    if binding is None or binding.rls is None:
        return nullcontext()
    if tenant is None:
        return unscoped(session, reason="a message without a tenant is published", level=DEBUG)
    return with_registered_tenant(session, tenant)


@lru_cache
def _insertion(table: Table, dialect: str, channel: str | None) -> Insert:
    return insertion(table, _COLUMNS, dialect, channel=channel)


def _should_notify(connection: Connection) -> bool:
    if not notifies(connection.dialect.name):
        return False
    engine, now = connection.engine, time.monotonic()
    if now - _NOTIFIED.get(engine, -QUIET) < QUIET:
        return False
    _NOTIFIED[engine] = now
    return True
