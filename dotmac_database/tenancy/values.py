"""A tenant's name as a value of a column: a string from a header is a UUID's or an integer's name as well."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Column
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..errors import TenantIsolationError, TenantNotGivenError, TenantRequiredError, ValidationError

_NO_NAMES = (bool, float, bytes, bytearray, memoryview, list, dict, set, frozenset, tuple, type)


def named(tenant: Any) -> Any:
    """``tenant``, if it is one. Raises `TenantRequiredError` for None and blanks, `ValidationError` for the rest.

    An SQL expression is none: it would be a condition of the statement's writer, and true of any row. What can't be
    compared or hashed is none either.
    """
    if tenant is None:
        raise TenantNotGivenError("A session can't be bound to no tenant.")
    if isinstance(tenant, str) and not tenant.strip():
        raise TenantRequiredError("A tenant's name can't be blank.")
    if isinstance(tenant, str):
        if "\x00" in tenant:
            raise ValidationError("A tenant's name can't hold a NUL.", field="tenant_id")
        return tenant
    if isinstance(tenant, ClauseElement) or hasattr(tenant, "__clause_element__"):
        raise ValidationError("A tenant's name can't be an SQL expression.", field="tenant_id")
    if isinstance(tenant, _NO_NAMES) or callable(tenant) or type(tenant).__hash__ is None:
        raise ValidationError(f"A tenant's name can't be a {type(tenant).__name__}.", field="tenant_id")
    return tenant


def kind_of(column: Column[Any]) -> type:
    """The Python type of the column's values; `object` where the column doesn't tell."""
    kind = _python_type(column.type)
    if kind is object and isinstance(column.type, TypeDecorator):
        return _python_type(column.type.impl_instance)
    return kind


def _python_type(type_: TypeEngine[Any]) -> type:
    try:
        return type_.python_type
    except NotImplementedError:
        return object


def fitting(tenant: Any, kind: type) -> Any:
    """The tenant as a ``kind``; raises `ValueError` where there is no such value."""
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


def stored(tenant: Any, column: Column[Any]) -> Any:
    """The tenant as a value of ``column``. Raises `TenantIsolationError` where the column can't hold such a name."""
    kind = kind_of(column)
    try:
        return fitting(tenant, kind)
    except ValueError:
        raise TenantIsolationError(
            f"{column.table.name}.{column.name} names tenants by {kind.__name__}, which this tenant's name is not."
        ) from None


def same(one: Any, other: Any) -> bool:
    """Whether two names are the same tenant's, whatever their types."""
    if one == other:
        return True
    if type(one) is type(other) or one is None or other is None:
        return False
    for name, kind in ((one, type(other)), (other, type(one))):
        try:
            if fitting(name, kind) == (other if name is one else one):
                return True
        except ValueError:
            continue
    return False
