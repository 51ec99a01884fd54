"""The table of the outbox, which `outbox_table` adds to the user's metadata."""

from __future__ import annotations

from weakref import WeakSet

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    literal_column,
    text,
)

from ..errors import MisuseError
from ..types import UTCDateTime

NAME = "dotmac_outbox"
LONGEST = 255
"""The greatest length of a topic, and of a key."""

PENDING = "pending"
DEAD = "dead"

_MADE: WeakSet[Table] = WeakSet()


def outbox_table(metadata: MetaData) -> Table:
    """The table ``dotmac_outbox`` of ``metadata``, in the schema of the metadata. It is added at the first call.

    ``create_all`` and Alembic's autogenerate make it like the other tables of the metadata. It has a column
    ``tenant_id``, so row-level security of the metadata protects it too. A tenant is stored as text.

    A row is a message that is not delivered yet, since delivered messages are deleted. Its ``status`` is ``pending`` or
    ``dead``. ``position`` is the order in which the messages were written. ``lane`` is a hash of tenant, topic and key,
    which are compared by it; None: the message has no key. ``available_at`` is None for a message that
    nobody has tried to deliver; otherwise it is the time (UTC) until which a relay holds the message, or until which
    the next attempt waits. ``claim`` identifies the relay's hold. ``attempt`` counts the relays' holds, and
    ``failures`` the deliveries that have failed. ``error`` is the class of the last failure.
    """
    name = NAME if metadata.schema is None else f"{metadata.schema}.{NAME}"
    table = metadata.tables.get(name)
    if table is None:
        table = Table(
            NAME,
            metadata,
            Column(
                "position", BigInteger().with_variant(Integer(), "sqlite"), Identity(always=False), primary_key=True
            ),
            Column("id", Uuid(), nullable=False),
            Column("tenant_id", String(128)),
            Column("topic", String(LONGEST), nullable=False),
            Column("key", String(LONGEST)),
            Column("lane", BigInteger()),
            Column("payload", JSON(), nullable=False),
            Column("created_at", UTCDateTime(), nullable=False),
            Column("status", String(16), nullable=False, server_default=PENDING),
            Column("attempt", Integer(), nullable=False, server_default=text("0")),
            Column("failures", Integer(), nullable=False, server_default=text("0")),
            Column("available_at", UTCDateTime()),
            Column("claim", Uuid()),
            Column("error", String(LONGEST)),
        )
        columns = table.c
        pending, held = columns.status == literal_column(f"'{PENDING}'"), columns.available_at.is_not(None)
        Index(f"ix_{NAME}_pending", columns.position, postgresql_where=pending, sqlite_where=pending)
        Index(f"ix_{NAME}_held", columns.available_at, postgresql_where=held, sqlite_where=held)
    _MADE.add(table)
    return table


def sole_table() -> Table:
    """The table that `outbox_table` has made; any of them if all have the same name.

    Raises `MisuseError` if there is none, or if they are in several schemas.
    """
    tables = {table.fullname: table for table in _MADE}
    if not tables:
        raise MisuseError("There is no outbox: call outbox_table(metadata) where the metadata is defined.")
    if len(tables) > 1:
        raise MisuseError(f"Outboxes of several schemas: {', '.join(sorted(tables))}. Name one by table=.")
    return next(iter(tables.values()))
