"""Keys that carry the tenant, so that no row can point at another tenant's.

A foreign key does not ask row-level security, and neither does a unique constraint: with ``id`` alone a row can name
another tenant's parent, and a duplicate tells that the key exists. With ``(tenant_id, id)`` both are closed.

    class Account(TenantMixin, Base):
        __tablename__ = "accounts"
        __table_args__ = (tenant_primary_key("id"),)
        id: Mapped[int]

    class Note(TenantMixin, Base):
        __tablename__ = "notes"
        __table_args__ = (tenant_primary_key("id"), tenant_foreign_key("account_id", "accounts.id"))
        id: Mapped[int]
        account_id: Mapped[int | None]
        account: Mapped[Account | None] = relationship()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Index, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint

from ..errors import TenantIsolationError, ValidationError
from .context import log
from .policies import protected_tables


def tenant_primary_key(*columns: str, tenant: str = "tenant_id", name: str | None = None) -> PrimaryKeyConstraint:
    """The primary key ``(tenant, *columns)``. A repository takes it as a tuple in that order."""
    if not columns:
        raise ValidationError("A tenant's primary key needs a column besides the tenant's.")
    return PrimaryKeyConstraint(tenant, *columns, name=name)


def tenant_unique(*columns: str, tenant: str = "tenant_id", name: str | None = None) -> UniqueConstraint:
    """A unique constraint within the tenant: a duplicate tells nothing of other tenants' rows."""
    if not columns:
        raise ValidationError("A tenant's unique constraint needs a column besides the tenant's.")
    return UniqueConstraint(tenant, *columns, name=name)


def tenant_foreign_key(
    columns: str | Sequence[str],
    referred: str | Sequence[str],
    *,
    tenant: str = "tenant_id",
    referred_tenant: str | None = None,
    name: str | None = None,
    ondelete: str | None = None,
) -> ForeignKeyConstraint:
    """The foreign key ``(tenant, *columns)`` to ``(referred's tenant, *referred)``, such as ``"accounts.id"``.

    Where a column of ``columns`` is NULL there is no parent, as usual (MATCH SIMPLE). ``ondelete="SET NULL"`` becomes
    PostgreSQL's SET NULL of these columns alone, as the tenant's can't be. ``referred_tenant`` None: as ``tenant``.
    """
    here = [columns] if isinstance(columns, str) else list(columns)
    there = [referred] if isinstance(referred, str) else list(referred)
    tables = {each.rpartition(".")[0] for each in there}
    if len(here) != len(there) or len(tables) != 1 or "" in tables:
        raise ValidationError("A foreign key names as many columns here as there, each as 'table.column' of one table.")
    if ondelete is not None and ondelete.upper() == "SET NULL":
        ondelete = f"SET NULL ({', '.join(here)})"
    table = tables.pop()
    return ForeignKeyConstraint(
        [tenant, *here], [f"{table}.{referred_tenant or tenant}", *there], name=name, ondelete=ondelete
    )


ACROSS_TENANTS = "across_tenants"
"""The name in a key's ``info`` that says that it is not to carry the tenant."""


@dataclass(frozen=True, slots=True)
class LooseKey:
    """A key that crosses tenants: of ``table``, over ``columns``; ``referred`` is the parent's table, if it is a
    foreign key, else None. ``name`` is the key's own, where it has one, and ``remedy`` the code that mends it.
    """

    table: str
    columns: tuple[str, ...]
    referred: str | None
    name: str | None = None
    remedy: str = ""

    def __str__(self) -> str:
        kind = "The unique key" if self.referred is None else "The foreign key"
        named = f" {self.name}" if self.name else ""
        to = "" if self.referred is None else f" to {self.referred}"
        return f"{kind}{named} of {self.table} ({', '.join(self.columns)}){to} does not carry the tenant."


def check_tenant_keys(metadata: MetaData, *, strict: bool = False) -> list[LooseKey]:
    """The keys of tenants' tables that do not carry the tenant (see `loose_keys`), each logged as a warning.

    A foreign key without the tenant lets a row name another tenant's parent, which can then not be deleted; a unique
    key without it tells that another tenant has the value. Each warning has the key's name and its ``remedy`` as code.
    ``strict``: they are a `TenantIsolationError` that names them all, instead. A key that is meant to cross tenants
    says so, ``UniqueConstraint("domain", info={"across_tenants": True})``. No I/O.
    """
    found = list(loose_keys(metadata))
    if strict and found:
        report = "\n".join(f"- {each} {each.remedy}" for each in found)
        raise TenantIsolationError(f"Keys of tenants' tables that do not carry the tenant:\n{report}")
    for each in found:
        log.warning("%s %s", each, each.remedy, extra={"table": each.table, "remedy": each.remedy})
    return found


def loose_keys(metadata: MetaData) -> Iterator[LooseKey]:
    """The foreign keys between tenants' tables that do not carry the tenant, and the unique constraints and indexes.

    A primary key, or the key of a joined child and of a table between many and many, is not among the latter. A key
    with ``info={"across_tenants": True}`` is left out: it is meant to be so. No I/O.
    """
    protected = protected_tables(metadata)
    for table, column in protected.items():
        for key in sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns]):
            parent: Any = protected.get(key.referred_table)
            if key.referred_table not in protected or _is_extension(table, key) or _is_meant(key):
                continue
            if not _carries(key, column, parent):
                yield LooseKey(
                    table.name,
                    tuple(each.name for each in key.columns),
                    key.referred_table.name,
                    _name(key),
                    _foreign_remedy(key, column, parent),
                )
        if column is not None:
            yield from _loose_uniques(table, column)


def _carries(key: ForeignKeyConstraint, column: Any, parent: Any) -> bool:
    return parent is not None and any(element.parent is column and element.column is parent for element in key.elements)


def _is_extension(table: Table, key: ForeignKeyConstraint) -> bool:
    """Whether the key is a joined child's own, which is its parent's row."""
    return set(key.columns) == set(table.primary_key.columns)


def _loose_uniques(table: Table, column: Any) -> Iterator[LooseKey]:
    uniques = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    for constraint in sorted(uniques, key=lambda each: [column.name for column in each.columns]):
        if column not in constraint.columns.values() and not _is_meant(constraint):
            columns = tuple(each.name for each in constraint.columns)
            remedy = f"Use {_call('tenant_unique', columns, **_tenant(column))}."
            yield LooseKey(table.name, columns, None, _name(constraint), remedy)
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        if index.unique and column not in index.columns.values() and not _is_meant(index):
            columns = tuple(each.name for each in index.columns)
            yield LooseKey(table.name, columns, None, _name(index), _index_remedy(index, column))


def _is_meant(key: Any) -> bool:
    return bool(key.info.get(ACROSS_TENANTS))


def _index_remedy(index: Index, column: Any) -> str:
    plain = all(isinstance(each, Column) for each in index.expressions)
    conditions = [index.dialect_options[name].get("where") for name in ("postgresql", "sqlite")]
    if not plain or any(each is not None for each in conditions):
        return f'Name "{column.name}" first in it.'
    names = (str(index.name), column.name, *(each.name for each in index.columns))
    return f"Use {_call('Index', names, unique=True)}."


def _foreign_remedy(key: ForeignKeyConstraint, column: Any, parent: Any) -> str:
    if column is None or parent is None:
        bare = key.table.name if column is None else key.referred_table.name
        return f"The table {bare} needs a column for the tenant first, which such a key can carry."
    pairs = [each for each in key.elements if each.parent is not column and each.column is not parent]
    here = tuple(each.parent.name for each in pairs)
    there = tuple(f"{key.referred_table.fullname}.{each.column.name}" for each in pairs)
    referred = {} if parent.name == column.name else {"referred_tenant": parent.name}
    ondelete = {} if key.ondelete is None else {"ondelete": key.ondelete}
    columns: tuple[Any, ...] = (here[0], there[0]) if len(pairs) == 1 else (list(here), list(there))
    remedy = f"Use {_call('tenant_foreign_key', columns, **_tenant(column), **referred, **ondelete)}"
    named = [each.column for each in pairs]
    uniques = (
        each for each in key.referred_table.constraints if isinstance(each, (UniqueConstraint, PrimaryKeyConstraint))
    )
    if any({parent, *named} == set(each.columns) for each in uniques):
        return f"{remedy}."
    unique = _call("tenant_unique", tuple(each.name for each in named), **_tenant(parent))
    return f"{remedy}, and {unique} for {key.referred_table.name}."


def _tenant(column: Any) -> dict[str, str]:
    """The argument that names the tenant's column, where it is not the usual one."""
    return {} if column.name == "tenant_id" else {"tenant": column.name}


def _call(function: str, arguments: Sequence[Any], **named: Any) -> str:
    """A call, as one writes it."""
    written = [_written(each) for each in arguments] + [f"{name}={_written(each)}" for name, each in named.items()]
    return f"{function}({', '.join(written)})"


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _name(key: Any) -> str | None:
    return key.name if isinstance(key.name, str) else None
