"""Tenants' names as values of columns: for example, a string from a header as a UUID or an integer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Column
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from ..errors import TenantIsolationError, TenantNotGivenError, TenantRequiredError, ValidationError
from ..types import undecorated

_NOT_NAMES = (bool, float, bytes, bytearray, memoryview, list, dict, set, frozenset, tuple, type)


def valid_tenant(tenant: Any) -> Any:
    """``tenant``, if it is a valid tenant's name.

    Raises `TenantRequiredError` for None and blank strings. Raises `ValidationError` for values that can't be hashed or
    that are clearly no name, and for SQL expressions, because an expression could match the rows of any tenant.
    """
    if tenant is None:
        raise TenantNotGivenError("A tenant is required, but it is None.")
    if isinstance(tenant, str) and not tenant.strip():
        raise TenantRequiredError("A tenant's name can't be blank.")
    if isinstance(tenant, str):
        if "\x00" in tenant:
            raise ValidationError("A tenant's name can't contain a NUL character.", field="tenant_id")
        return tenant
    if isinstance(tenant, ClauseElement) or hasattr(tenant, "__clause_element__"):
        raise ValidationError("A tenant's name can't be an SQL expression.", field="tenant_id")
    if isinstance(tenant, _NOT_NAMES) or callable(tenant) or type(tenant).__hash__ is None:
        raise ValidationError(f"A tenant's name can't be a {type(tenant).__name__}.", field="tenant_id")
    return tenant


def kind_of(column: Column[object]) -> type:
    """The Python type of the column's values; `object` if the column's type doesn't define it."""
    kind = _python_type(column.type)
    return _python_type(undecorated(column.type)) if kind is object else kind


def _python_type(type_: TypeEngine[object]) -> type:
    try:
        return type_.python_type
    except NotImplementedError:
        return object


def convert_tenant(tenant: Any, kind: type) -> Any:
    """The tenant converted to the Python type ``kind``. Raises `ValueError` if it can't be converted."""
    if kind is object or type(tenant) is kind:
        return tenant
    if kind is str and isinstance(tenant, (int, UUID)):
        return str(tenant)
    if kind is UUID and isinstance(tenant, str):
        return UUID(tenant)
    if kind is int and isinstance(tenant, str) and tenant.isascii() and str(int(tenant)) == tenant:
        return int(tenant)
    if isinstance(tenant, kind):
        return tenant
    raise ValueError(kind.__name__)


def column_value(tenant: Any, column: Column[object]) -> Any:
    """The tenant as a value of ``column``. Raises `TenantIsolationError` if the column can't store this name."""
    kind = kind_of(column)
    try:
        return convert_tenant(tenant, kind)
    except ValueError:
        raise TenantIsolationError(
            f"{column.table.name}.{column.name} stores tenants as {kind.__name__}, but this name is no such value."
        ) from None


def same(one: object, other: object) -> bool:
    """Whether two values name the same tenant. Their types may differ, as with a UUID and its text."""
    if one == other:
        return True
    if type(one) is type(other) or one is None or other is None:
        return False
    for name, kind in ((one, type(other)), (other, type(one))):
        try:
            if convert_tenant(name, kind) == (other if name is one else one):
                return True
        except ValueError:
            continue
    return False
