"""The bound parameters that contain the tenant in statements."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Column
from sqlalchemy.sql.elements import BindParameter

from .values import convert_tenant, kind_of

SERVED_TENANT: ContextVar[object] = ContextVar("dotmac_database_served_tenant", default=None)
"""The tenant of the session whose statement is being compiled and bound."""

PREFIX = "dotmac_owner_"


class ScopeParameter(BindParameter[Any]):
    """The parameter for a repository's tenant in the repository's own statements.

    If a statement compares the tenant column with a `ScopeParameter`, the statement is confined already, and the
    compiler of a guarded session adds no second condition. The class of the parameter is part of the statement's cache
    key, so that no statement with another parameter uses the same compiled form. The value is checked each time the
    statement is sent.
    """

    inherit_cache = True


def owner_parameter(number: int, column: Column[object]) -> BindParameter[object]:
    """A parameter whose value is the tenant in `SERVED_TENANT` at the time of binding, as a value of ``column``.

    The value is not part of the statement's cache key, so all tenants share the compiled statement.
    """
    return BindParameter(f"{PREFIX}{number}", type_=column.type, callable_=_tenant_getter(column))


def _tenant_getter(column: Column[object]) -> Callable[[], object]:
    kind = kind_of(column)

    def get_tenant() -> object:
        tenant = SERVED_TENANT.get()
        try:
            return None if tenant is None else convert_tenant(tenant, kind)
        except ValueError:
            return None  # the column can't store this tenant's name; the check before sending raises

    return get_tenant
