"""Keys that carry the tenant: primary keys, unique constraints and foreign keys that contain the tenant column.

The database checks foreign keys and unique constraints without row-level security. With a key of ``id`` alone, a row
can reference another tenant's row, and a duplicate-key error reveals that another tenant has the value. With
``(tenant_id, id)`` neither is possible.

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

from sqlalchemy import (
    Column,
    Constraint,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)

from ..dialects.clearing_keys import CLEARING_ACTIONS, ClearingKey, clearing
from ..errors import MisuseError, TenantIsolationError, ValidationError
from ..models.table_columns import ColumnName, checked_at_table, own_column, plain_column
from .context import log
from .rls.policies import protected_tables


def tenant_primary_key(
    *columns: ColumnName, tenant: ColumnName = "tenant_id", name: str | None = None
) -> PrimaryKeyConstraint:
    """The primary key ``(tenant, *columns)``. A repository expects its values as a tuple in that order."""
    if not columns:
        raise ValidationError("tenant_primary_key needs a column besides the tenant column.")
    here = (tenant, *columns)
    constraint = PrimaryKeyConstraint(*(own_column(each, "tenant_primary_key") for each in here), name=name)
    checked_at_table(constraint, here, "tenant_primary_key")
    return constraint


def tenant_unique(*columns: ColumnName, tenant: ColumnName = "tenant_id", name: str | None = None) -> UniqueConstraint:
    """The unique constraint ``(tenant, *columns)``. A duplicate reveals nothing about other tenants' rows."""
    if not columns:
        raise ValidationError("tenant_unique needs a column besides the tenant column.")
    here = (tenant, *columns)
    constraint = UniqueConstraint(*(own_column(each, "tenant_unique") for each in here), name=name)
    checked_at_table(constraint, here, "tenant_unique")
    return constraint


def tenant_foreign_key(
    columns: ColumnName | Sequence[ColumnName],
    referred: ColumnName | Sequence[ColumnName],
    *,
    tenant: ColumnName = "tenant_id",
    referred_tenant: ColumnName | None = None,
    name: str | None = None,
    ondelete: str | None = None,
) -> ForeignKeyConstraint:
    """The foreign key of ``(tenant, *columns)`` to ``(referred_tenant, *referred)``.

    ``referred`` are columns of one table, each with the table's name, such as ``"accounts.id"``, or as an attribute
    (``Account.id``). ``referred_tenant`` is
    the tenant column of that table; None: it has the same name as ``tenant``. A row with NULL in one of ``columns``
    references no parent, as usual (MATCH SIMPLE). ``ondelete="SET NULL"`` becomes ``SET NULL (columns)``, which
    PostgreSQL has since version 15, because the tenant column must not change; ``"SET DEFAULT"`` likewise. SQLite has
    no such list: the table can't be created there, and the `CompileError` says so.
    """
    here = [tenant, *_one_or_more(columns)]
    there = [_referred(each) for each in _one_or_more(referred)]
    tables = {each.rpartition(".")[0] for each in there}
    if len(here) != len(there) + 1 or len(tables) != 1 or "" in tables:
        raise ValidationError("A foreign key refers to one 'table.column' for each of its columns, all of one table.")
    table = tables.pop()
    owner = tenant if referred_tenant is None else referred_tenant
    tenant_there = f"{table}.{owner}" if isinstance(owner, str) else f"{table}.{_column_name(owner)}"
    own: list[Any] = [own_column(each, "tenant_foreign_key") for each in here]
    action = " ".join((ondelete or "").upper().split())
    key = ForeignKeyConstraint
    if action in CLEARING_ACTIONS:
        key, ondelete = ClearingKey, clearing(action, map(_column_name, here[1:]))
    constraint = key(own, [tenant_there, *there], name=name, ondelete=ondelete)
    checked_at_table(constraint, here, "tenant_foreign_key")
    return constraint


def _one_or_more(columns: ColumnName | Sequence[ColumnName]) -> list[ColumnName]:
    return list(columns) if isinstance(columns, Sequence) and not isinstance(columns, str) else [columns]


def _referred(column: ColumnName) -> str:
    """The name of a column with that of its table: ``"accounts.id"``."""
    plain = plain_column(column, "tenant_foreign_key")
    return plain if isinstance(plain, str) else f"{_table(plain).fullname}.{plain.key}"


def _table(column: Column[object]) -> Table:
    """The table of a column. Raises `MisuseError` if it has none yet."""
    table: object = column.table
    if not isinstance(table, Table):
        raise MisuseError("A foreign key refers to a column of a mapped class, or to a text 'table.column'.")
    return table


def _column_name(column: ColumnName) -> str:
    """The name of a column. Raises `MisuseError` if it has none yet, as in the body of its class."""
    plain = plain_column(column, "tenant_foreign_key")
    name: str | None = plain if isinstance(plain, str) else plain.name
    if name is None:
        raise MisuseError(
            "With an ondelete that clears columns, or as the tenant of both tables, name the columns as texts."
        )
    return name


ACROSS_TENANTS = "across_tenants"
"""The entry in a key's ``info`` for a key that crosses tenants on purpose."""


@dataclass(frozen=True, slots=True)
class LooseKey:
    """A key that does not carry the tenant.

    ``referred`` is the name of the parent's table if the key is a foreign key; None: it is a unique key. ``name`` is
    the name of the key; None: it has no name. ``remedy`` says in words and code how to correct the model.
    """

    table: str
    columns: tuple[str, ...]
    referred: str | None
    name: str | None = None
    remedy: str = ""

    def __str__(self) -> str:
        kind = "The unique key" if self.referred is None else "The foreign key"
        name = f" {self.name}" if self.name else ""
        to = "" if self.referred is None else f" to {self.referred}"
        return f"{kind}{name} of {self.table} ({', '.join(self.columns)}){to} does not carry the tenant."


def check_tenant_keys(metadata: MetaData, *, strict: bool = False) -> list[LooseKey]:
    """The keys of tenants' tables that do not carry the tenant (see `loose_keys`). Each is logged as a warning. No I/O.

    With a foreign key without the tenant, a row can reference another tenant's row, which then can't be deleted. A
    unique key without the tenant reveals that another tenant has a value. Each warning contains the name of the key and
    its ``remedy``. ``strict``: if there are such keys, it raises `TenantIsolationError` with all of them instead of
    logging. A key that crosses tenants on purpose needs ``info={"across_tenants": True}``, as in
    ``UniqueConstraint("domain", info={"across_tenants": True})``.
    """
    keys = list(loose_keys(metadata))
    if strict and keys:
        report = "\n".join(f"- {each} {each.remedy}" for each in keys)
        raise TenantIsolationError(f"Keys of tenants' tables that do not carry the tenant:\n{report}")
    for each in keys:
        log.warning("%s %s", each, each.remedy, extra={"table": each.table, "remedy": each.remedy})
    return keys


def loose_keys(metadata: MetaData) -> Iterator[LooseKey]:
    """The foreign keys between tenants' tables, unique constraints and unique indexes that do not carry the tenant.

    It omits primary keys, a joined child's foreign key to its parent's row, unique keys of tables without a tenant
    column (joined children's and association tables), and keys with ``info={"across_tenants": True}``. No I/O.
    """
    protected = protected_tables(metadata)
    for table, column in protected.items():
        for key in sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns]):
            parent = protected.get(key.referred_table)
            if key.referred_table not in protected or _is_extension(table, key) or _crosses_on_purpose(key):
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
            yield from _loose_unique_keys(table, column)


def _carries(key: ForeignKeyConstraint, column: Column[object] | None, parent: Column[object] | None) -> bool:
    return parent is not None and any(element.parent is column and element.column is parent for element in key.elements)


def _is_extension(table: Table, key: ForeignKeyConstraint) -> bool:
    """Whether the foreign key is the primary key, as in a joined child's table, whose rows extend the parent's rows."""
    return set(key.columns) == set(table.primary_key.columns)


def _loose_unique_keys(table: Table, column: Column[object]) -> Iterator[LooseKey]:
    uniques = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    for constraint in sorted(uniques, key=lambda each: [column.name for column in each.columns]):
        if column not in constraint.columns.values() and not _crosses_on_purpose(constraint):
            columns = tuple(each.name for each in constraint.columns)
            remedy = f"Use {_call('tenant_unique', columns, **_tenant_argument(column))}."
            yield LooseKey(table.name, columns, None, _name(constraint), remedy)
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        if index.unique and column not in index.columns.values() and not _crosses_on_purpose(index):
            columns = tuple(each.name for each in index.columns)
            yield LooseKey(table.name, columns, None, _name(index), _index_remedy(index, column))


def _crosses_on_purpose(key: Constraint | Index) -> bool:
    return bool(key.info.get(ACROSS_TENANTS))


def _index_remedy(index: Index, column: Column[object]) -> str:
    plain = all(isinstance(each, Column) for each in index.expressions)
    conditions = [index.dialect_options[name].get("where") for name in ("postgresql", "sqlite")]
    if not plain or any(each is not None for each in conditions):
        return f'Name "{column.name}" first in it.'
    names = (str(index.name), column.name, *(each.name for each in index.columns))
    return f"Use {_call('Index', names, unique=True)}."


def _foreign_remedy(key: ForeignKeyConstraint, column: Column[object] | None, parent: Column[object] | None) -> str:
    if column is None or parent is None:
        table = key.table.name if column is None else key.referred_table.name
        return f"The table {table} needs a column for the tenant first, which such a key can carry."
    pairs = [each for each in key.elements if each.parent is not column and each.column is not parent]
    here = tuple(each.parent.name for each in pairs)
    there = tuple(f"{key.referred_table.fullname}.{each.column.name}" for each in pairs)
    referred = {} if parent.name == column.name else {"referred_tenant": parent.name}
    ondelete = {} if key.ondelete is None else {"ondelete": key.ondelete}
    columns: tuple[object, ...] = (here[0], there[0]) if len(pairs) == 1 else (list(here), list(there))
    remedy = f"Use {_call('tenant_foreign_key', columns, **_tenant_argument(column), **referred, **ondelete)}"
    columns_there = [each.column for each in pairs]
    uniques = (
        each for each in key.referred_table.constraints if isinstance(each, (UniqueConstraint, PrimaryKeyConstraint))
    )
    if any({parent, *columns_there} == set(each.columns) for each in uniques):
        return f"{remedy}."
    unique = _call("tenant_unique", tuple(each.name for each in columns_there), **_tenant_argument(parent))
    return f"{remedy}, and {unique} for {key.referred_table.name}."


def _tenant_argument(column: Column[object]) -> dict[str, str]:
    """The keyword argument for the name of the tenant column; none if it has the default name."""
    return {} if column.name == "tenant_id" else {"tenant": column.name}


def _call(function: str, arguments: Sequence[object], **keywords: object) -> str:
    """The source code of a call."""
    code = [_literal(each) for each in arguments] + [f"{name}={_literal(each)}" for name, each in keywords.items()]
    return f"{function}({', '.join(code)})"


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _name(key: Constraint | Index) -> str | None:
    return key.name if isinstance(key.name, str) else None
