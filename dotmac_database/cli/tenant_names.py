"""What a command says of a tenant without rows, whose name may be mistyped."""

from __future__ import annotations

from ..errors import PermissionDeniedError
from ..statements.suggestions import shown, suggestion
from ..usage import find_tenants
from .target import Target


def similar(target: Target, tenant: str) -> str:
    """The end of a sentence: the tenant of the database whose name is most similar, or only the full stop.

    The tenants are looked for as by ``dotmac-db tenants list``. A role that may not see them all gets the full stop.
    """
    signer = None if target.rls is None else target.rls.signer
    try:
        with target.database.engine.connect() as connection:
            known = find_tenants(connection, target.metadata, signer=signer).tenants
    except PermissionDeniedError:
        return "."
    return suggestion(tenant, [each for each in known if each not in (None, tenant)], listed=False)


def without_rows(target: Target, tenant: str) -> str:
    """The sentence that a tenant has no rows."""
    return f"{shown(tenant)} has no rows in any table{similar(target, tenant)}"
