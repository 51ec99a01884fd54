"""Two tenants for tests."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import MetaData

from ..errors import MisuseError
from ..models.registered import mapped_tables
from ..tenancy.rls.policies import protected_tables
from ..tenancy.values import kind_of

_PAIRS: dict[type, tuple[object, object]] = {int: (1, 2), UUID: (UUID(int=0xA), UUID(int=0xB))}
TENANTS = ("acme", "globex")
"""The two tenants if their column is a text."""


def two_tenants(metadata: MetaData | None) -> tuple[object, object]:
    """Two tenants whose type is that of the tenant columns of ``metadata`` (None: of all mapped classes).

    They are names if there is no tenant column. Raises `MisuseError` if the columns have several types.
    """
    tables = mapped_tables() if metadata is None else metadata.tables.values()
    owners = {id(table.metadata): table.metadata for table in tables}
    columns = [column for owner in owners.values() for column in protected_tables(owner).values()]
    kinds = {kind_of(column) for column in columns if column is not None}
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise MisuseError(f"The tenant columns have several types ({names}): override the fixture dotmac_tenants.")
    return _PAIRS.get(kinds.pop(), TENANTS) if kinds else TENANTS
