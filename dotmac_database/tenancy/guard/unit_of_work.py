"""The checks of the unit of work: new rows get the tenant, and no row of another tenant is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Mapper, Session

from ...dialects import dialect_named
from ...errors import TenantIsolationError
from ...models.traits import Key, tenant_key
from ..context import TenantBinding
from ..tables import tenant_column
from ..values import column_value, same


@contextmanager
def core_writes_allowed(binding: TenantBinding) -> Iterator[None]:
    """In this block the session sends its writes as Core statements, which are confined instead of refused."""
    binding.writing += 1
    try:
        yield
    finally:
        binding.writing -= 1


def check_unit_of_work(session: Session, binding: TenantBinding) -> None:
    """Set the tenant on new objects, and raise if a changed or deleted object is another tenant's. No statement."""
    for entity in session.new:
        mapper = inspect(entity).mapper
        key = tenant_key(mapper)
        if key is None:
            continue
        tenant = column_value(binding.required(type(entity).__name__), tenant_column(mapper))
        if getattr(entity, key) is None:
            setattr(entity, key, tenant)
        _check_entity(entity, key, tenant)
    for entity in (*session.dirty, *session.deleted):
        key = tenant_key(inspect(entity).mapper)
        if key is not None:
            _check_entity(entity, key, binding.required(type(entity).__name__))


def _check_entity(entity: Any, key: str, tenant: object) -> None:
    """Raise unless the object's tenant, both the loaded and the new value, is this tenant."""
    history = inspect(entity).attrs[key].history
    values = [value for value in (*history.added, *history.unchanged, *history.deleted) if value is not None]
    if (history.added and None in history.added) or any(not same(value, tenant) for value in values):
        raise TenantIsolationError(f"{type(entity).__name__}: the row belongs to another tenant.")


def check_attached(session: Session, binding: TenantBinding) -> None:
    """Raise if an object that was attached to the session is another tenant's. One SELECT for each class.

    It reads the tenant from the database, because the loaded state of an attached object can be forged.
    """
    if not binding.attached:
        return
    by_mapper: dict[Mapper[object], list[Key]] = {}
    for state in list(binding.attached):
        if state.session is session and state.key is not None and tenant_key(state.mapper) is not None:
            by_mapper.setdefault(state.mapper, []).append(tuple(state.key[1]))
    for mapper, keys in by_mapper.items():
        check_rows(session, mapper, binding, keys)
    binding.attached.clear()


def check_rows(session: Session, mapper: Mapper[object], binding: TenantBinding, keys: Iterable[Key]) -> None:
    """Raise `TenantIsolationError` unless all rows with these keys exist and are the tenant's. One SELECT."""
    tenant = column_value(binding.required(mapper.class_.__name__), tenant_column(mapper))
    key_set = set(keys)
    if not key_set:
        return
    columns: list[Any] = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    dialect = dialect_named(session.get_bind(mapper).dialect.name)
    owner = getattr(mapper.class_, tenant_key(mapper) or "")
    among = dialect.row_among(columns, "dotmac_keys")
    statement = select(func.count()).select_from(mapper.class_).where(among, owner == tenant)
    parameters = dialect.row_parameters(columns, "dotmac_keys", key_set)
    with session.no_autoflush:
        count = session.scalar(statement, parameters, execution_options={"dotmac_confined": tenant})
    if count != len(key_set):
        raise TenantIsolationError(f"{mapper.class_.__name__}: a row belongs to another tenant, or does not exist.")
