"""The bound parameters that carry a session's tenant into its statements."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Column
from sqlalchemy.sql.elements import BindParameter

from .values import fitting, kind_of

SERVED: ContextVar[Any] = ContextVar("dotmac_database_served_tenant", default=None)
"""The tenant of the statement that is compiled and bound at this moment."""

PREFIX = "dotmac_owner_"


class ScopeParameter(BindParameter[Any]):
    """A repository's tenant in its own statement.

    A class of its own, so that no other statement has the same cache key: where a guarded session compiles a statement
    that compares the tenant column with such a parameter, the rows are confined already. The value is checked each time
    the statement is sent.
    """

    inherit_cache = True


def owner_parameter(number: int, column: Column[Any]) -> BindParameter[Any]:
    """A parameter that takes the served tenant when the statement is bound, as a value of ``column``.

    It is no part of the statement's cache key, so tenants share the compiled statement.
    """
    return BindParameter(f"{PREFIX}{number}", type_=column.type, callable_=_served_as(column))


def _served_as(column: Column[Any]) -> Callable[[], Any]:
    kind = kind_of(column)

    def served() -> Any:
        tenant = SERVED.get()
        try:
            return None if tenant is None else fitting(tenant, kind)
        except ValueError:
            return None  # no row can be this tenant's; the check before sending raises

    return served
