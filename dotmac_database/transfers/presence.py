"""`has_rows`: whether a tenant has any row at all, so that a mistyped name is not taken for an empty tenant."""

from __future__ import annotations

from sqlalchemy import Engine

from ..engines import Database
from ..tenancy import RowLevelSecurity
from .target import Metadata, open_target, translating


def has_rows(
    database: Database | Engine, metadata: Metadata, tenant_id: object, *, rls: RowLevelSecurity | None = None
) -> bool:
    """Whether the tenant has a row in any table that `export_tenant` writes. One statement for each table until then.

    ``rls`` is as in `export_tenant`, and so are the exceptions.
    """
    target = open_target(database, metadata, tenant_id, rls)
    with translating(), target.reading() as connection:
        return any(target.has_rows(connection, holding) for holding in target.tables)
