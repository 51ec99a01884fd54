"""The table that notes how far imports are, in the database into which they write."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, delete, insert, inspect, select
from sqlalchemy import exc as sa

from ..dialects.own_tables import TRANSFERS_TABLE
from ..errors import MisuseError

transfer_metadata = MetaData()
"""The metadata of the table ``dotmac_transfers``.

An import creates the table if the database doesn't have it. A migration can do it for a role that may not.
"""

_PARTS = Table(
    TRANSFERS_TABLE,
    transfer_metadata,
    Column("export", String(36), primary_key=True),
    Column("part", String(400), primary_key=True),
    Column("tenant", String(400), nullable=False),
)


def create_journal(engine: Engine) -> None:
    """Create the table if the database doesn't have it. Raises `MisuseError` if the role may not."""
    with engine.connect() as connection:
        if has_journal(connection):
            return
    try:
        transfer_metadata.create_all(engine)
    except sa.DBAPIError as error:
        raise MisuseError(
            f"An import notes its progress in the table {_PARTS.name}, which this role may not create: create it with "
            "transfer_metadata."
        ) from error


def has_journal(connection: Connection) -> bool:
    """Whether the database has the table."""
    return inspect(connection).has_table(_PARTS.name)


def finished_parts(connection: Connection, export: str) -> frozenset[str]:
    """The parts of an export that are in the database. One statement."""
    return frozenset(connection.execute(select(_PARTS.c.part).where(_PARTS.c.export == export)).scalars())


def note_part(connection: Connection, export: str, part: str, tenant: str) -> None:
    """Note, in the transaction of its rows, that a part is in the database. One statement."""
    connection.execute(insert(_PARTS).values(export=export, part=part, tenant=tenant))


def forget_export(connection: Connection, export: str) -> None:
    """Forget an export whose import is finished. One statement."""
    connection.execute(delete(_PARTS).where(_PARTS.c.export == export))


def forget_tenant(connection: Connection, tenant: str) -> None:
    """Forget all imports of a tenant. One statement."""
    connection.execute(delete(_PARTS).where(_PARTS.c.tenant == tenant))
