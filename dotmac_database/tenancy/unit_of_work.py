"""The unit of work: new rows are stamped, and nothing of another tenant is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Mapper, Session

from ..dialects import dialect_named
from ..errors import TenantIsolationError
from ..models.traits import tenant_key
from .context import TenantBinding
from .tables import tenant_column
from .values import same, stored


@contextmanager
def writing_by_itself(binding: TenantBinding) -> Iterator[None]:
    """The session writes by Core statements in this block; the connection confines them, rather than refuse them."""
    binding.writing += 1
    try:
        yield
    finally:
        binding.writing -= 1


def check_unit_of_work(session: Session, binding: TenantBinding) -> None:
    """Stamp new objects, and refuse whatever is not the tenant's own. No statement."""
    for entity in session.new:
        mapper = inspect(entity).mapper
        key = tenant_key(mapper)
        if key is None:
            continue
        tenant = stored(binding.required(type(entity).__name__), tenant_column(mapper))
        if getattr(entity, key) is None:
            setattr(entity, key, tenant)
        _own(entity, key, tenant)
    for entity in (*session.dirty, *session.deleted):
        key = tenant_key(inspect(entity).mapper)
        if key is not None:
            _own(entity, key, binding.required(type(entity).__name__))


def _own(entity: Any, key: str, tenant: Any) -> None:
    history = inspect(entity).attrs[key].history
    held = [value for value in (*history.added, *history.unchanged, *history.deleted) if value is not None]
    if (history.added and None in history.added) or any(not same(value, tenant) for value in held):
        raise TenantIsolationError(f"{type(entity).__name__}: the row belongs to another tenant.")


def attached_are_own(session: Session, binding: TenantBinding) -> None:
    """Look up the tenant of objects that came from outside: their loaded state may be forged. One SELECT a class."""
    if not binding.attached:
        return
    by_mapper: dict[Mapper[Any], list[tuple[Any, ...]]] = {}
    for state in list(binding.attached):
        if state.session is session and state.key is not None and tenant_key(state.mapper) is not None:
            by_mapper.setdefault(state.mapper, []).append(tuple(state.key[1]))
    for mapper, keys in by_mapper.items():
        rows_are_own(session, mapper, binding, keys)
    binding.attached.clear()


def rows_are_own(
    session: Session, mapper: Mapper[Any], binding: TenantBinding, keys: Iterable[tuple[Any, ...]]
) -> None:
    """Raise `TenantIsolationError` unless every one of these rows is there and the tenant's. One SELECT."""
    tenant = stored(binding.required(mapper.class_.__name__), tenant_column(mapper))
    wanted = set(keys)
    if not wanted:
        return
    columns: list[Any] = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    dialect = dialect_named(session.get_bind(mapper).dialect.name)
    owner = getattr(mapper.class_, tenant_key(mapper) or "")
    among = dialect.row_among(columns, "dotmac_keys")
    statement = select(func.count()).select_from(mapper.class_).where(among, owner == tenant)
    parameters = dialect.row_parameters(columns, "dotmac_keys", wanted)
    with session.no_autoflush:
        found = session.scalar(statement, parameters, execution_options={"dotmac_confined": tenant})
    if found != len(wanted):
        raise TenantIsolationError(f"{mapper.class_.__name__}: a row belongs to another tenant, or does not exist.")
