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

from sqlalchemy import ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint

from ..errors import ValidationError
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


@dataclass(frozen=True, slots=True)
class LooseKey:
    """A key that crosses tenants: of ``table``, over ``columns``; ``referred`` is the parent's table, if it is a
    foreign key, else None.
    """

    table: str
    columns: tuple[str, ...]
    referred: str | None


def loose_keys(metadata: MetaData) -> Iterator[LooseKey]:
    """The foreign keys between tenants' tables that do not carry the tenant, and the unique constraints.

    A primary key, or the key of a joined child and of a table between many and many, is not among the latter.
    """
    protected = protected_tables(metadata)
    for table, column in protected.items():
        for key in table.foreign_key_constraints:
            parent: Any = protected.get(key.referred_table)
            if parent is not None and not _carries(key, column, parent) and not _is_extension(table, key):
                yield LooseKey(table.name, tuple(each.name for each in key.columns), key.referred_table.name)
        if column is not None:
            yield from _loose_uniques(table, column)


def _carries(key: ForeignKeyConstraint, column: Any, parent: Any) -> bool:
    return any(element.parent is column and element.column is parent for element in key.elements)


def _is_extension(table: Table, key: ForeignKeyConstraint) -> bool:
    """Whether the key is a joined child's own, which is its parent's row."""
    return set(key.columns) == set(table.primary_key.columns)


def _loose_uniques(table: Table, column: Any) -> Iterator[LooseKey]:
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint) and column not in constraint.columns.values():
            yield LooseKey(table.name, tuple(each.name for each in constraint.columns), None)
    for index in table.indexes:
        if index.unique and column not in index.columns.values():
            yield LooseKey(table.name, tuple(each.name for each in index.columns), None)
