"""Which rows belong to a tenant, over all tables of the models, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from sqlalchemy import Column, ForeignKeyConstraint, FromClause, MetaData, Table, and_, false, or_, select, type_coerce
from sqlalchemy import exc as sa
from sqlalchemy.sql import ColumnElement

from ..dialects.stored_rows import Columns, Condition, quoted, raw, table_name
from ..errors import MisuseError
from ..history.tables import source_of
from ..tenancy.tables import TABLES, Owner, Reference
from ..tenancy.values import column_value
from ..transactions.idempotency import idempotency_metadata

_Pairs: TypeAlias = tuple[tuple[Column[object], Column[object]], ...]


class Belonging(Enum):
    """Why rows of a table belong to a tenant."""

    COLUMN = "the tenant column"
    DIRECTORY = "the row that the tenant column references"
    REFERENCES = "the rows that it references"
    EXTENSION = "the row of a child class that extends it"


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """A table with rows of tenants. ``owner`` says which rows are whose. ``source``: the table whose history it is."""

    table: Table
    belonging: Belonging
    owner: Owner
    source: Table | None = None

    @property
    def name(self) -> str:
        """The table's name with its schema."""
        return self.table.fullname

    @property
    def key(self) -> tuple[Column[object], ...]:
        """The primary key; empty if the table has none."""
        return tuple(self.table.primary_key.columns)


@dataclass(frozen=True, slots=True, eq=False)
class Holdings:
    """The tables with rows of tenants, by table, and the tables that belong to no tenant with the reason."""

    by_table: Mapping[Table, Holding]
    shared: Mapping[Table, str] = field(default_factory=dict)

    def condition(self, table: Table, tenant: object, columns: Columns | None = None) -> Condition:
        """The condition that a row is the tenant's. ``columns`` None: those of the table; else those of another row."""
        return _Conditions(self.by_table, tenant).of(table, _columns_of(table) if columns is None else columns)


def _columns_of(table: Table) -> Columns:
    """The columns of a table, without the types of the model."""
    return {each.name: raw(f"{table_name(table)}.{quoted(each.name)}") for each in table.columns}


class _Conditions:
    """Makes the conditions, with a number for the alias of each table that a subselect reads."""

    def __init__(self, holdings: Mapping[Table, Holding], tenant: object) -> None:
        self._holdings, self._tenant, self._aliases = holdings, tenant, 0

    def of(self, table: Table, columns: Columns) -> Condition:
        owner = self._holdings[table].owner
        if owner.column is not None:
            return self._is_tenant(columns[owner.column.name], owner.column)
        if owner.references:
            return and_(*(self._refers(each, columns) for each in owner.references))
        return or_(false(), *(self._is_extended(*each, columns) for each in owner.extensions))

    def _is_tenant(self, value: ColumnElement[object], column: Column[object]) -> Condition:
        condition: Condition = type_coerce(value, column.type) == column_value(self._tenant, column)
        return condition

    def _refers(self, reference: Reference, columns: Columns) -> Condition:
        there, source = self._source(reference.table)
        joined = [columns[here.name] == there[key.name] for here, key in reference.pairs]
        return select(raw("1")).select_from(source).where(*joined, self.of(reference.table, there)).exists()

    def _is_extended(self, reference: Reference, column: Column[object], columns: Columns) -> Condition:
        there, source = self._source(reference.table)
        joined = [there[key.name] == columns[here.name] for here, key in reference.pairs]
        owner = self._is_tenant(there[column.name], column)
        return select(raw("1")).select_from(source).where(*joined, owner).exists()

    def _source(self, table: Table) -> tuple[Columns, FromClause]:
        self._aliases += 1
        source = table.alias(f"dotmac_{self._aliases}")
        return {each.name: each for each in source.columns}, source


def holdings_of(metadata: MetaData | Iterable[MetaData]) -> Holdings:
    """The tables of these metadata with rows of tenants, and the table of the idempotency keys.

    A row belongs to a tenant by the tenant column; in the tables of parents and children of a class, in association
    tables and in history tables by the rows that it belongs to; if no class says it, by a foreign key to a tenant's
    row that can't be NULL or that deletes the row with it. The row to which the tenant columns' foreign key points,
    such as ``tenants.id``, belongs to the tenant too.

    Raises `MisuseError` for a table with tenants' rows if nothing says whose a row is.
    """
    collected = [metadata] if isinstance(metadata, MetaData) else list(metadata)
    tables = list(dict.fromkeys(t for each in (*collected, idempotency_metadata) for t in each.tables.values()))
    holdings: dict[Table, Holding] = {}
    for table in tables:
        owner = TABLES.stored_owner(table)
        if owner is not None and owner.is_unknown:
            raise MisuseError(f"The table {table.fullname} has tenants' rows, but nothing says which row is whose.")
        if owner is not None:
            holdings[table] = Holding(table, _belonging(owner), owner, source_of(table))
    for table, column in list(_directories(holdings)):
        if table in tables and table not in holdings:
            holdings[table] = Holding(table, Belonging.DIRECTORY, Owner(column=column))
    _add_referring(tables, holdings)
    return Holdings(holdings, {each: _why_shared(each, holdings) for each in tables if each not in holdings})


def _belonging(owner: Owner) -> Belonging:
    if owner.column is not None:
        return Belonging.COLUMN
    return Belonging.REFERENCES if owner.references else Belonging.EXTENSION


def _directories(holdings: Mapping[Table, Holding]) -> Iterator[tuple[Table, Column[object]]]:
    """The tables to which a foreign key of the tenant column alone points, with the referenced column."""
    for holding in list(holdings.values()):
        if holding.owner.column is None:
            continue
        for key in holding.table.foreign_key_constraints:
            if len(key.columns) == 1 and key.columns[0] is holding.owner.column and resolves(key):
                yield key.referred_table, key.elements[0].column


def resolves(key: ForeignKeyConstraint) -> bool:
    """Whether the table that a foreign key references is in the metadata."""
    try:
        return key.referred_table is not None
    except (sa.NoReferencedTableError, sa.InvalidRequestError):
        return False


def pairs_of(key: ForeignKeyConstraint) -> _Pairs:
    """The columns of a foreign key, as pairs of (referencing, referenced)."""
    return tuple((element.parent, element.column) for element in key.elements)


def _add_referring(tables: Iterable[Table], holdings: dict[Table, Holding]) -> None:
    """Add the tables whose rows can't exist without a tenant's row, and the histories of tables without a column."""
    remaining = [each for each in tables if each not in holdings]
    while True:
        added = [each for each in remaining if _add(each, holdings)]
        if not added:
            return
        remaining = [each for each in remaining if each not in holdings]


def _add(table: Table, holdings: dict[Table, Holding]) -> bool:
    source = source_of(table)
    if source is not None:
        if source not in holdings:
            return False
        pairs = tuple((table.columns[each.name], each) for each in source.primary_key.columns)
        references: tuple[Reference, ...] = (Reference(source, pairs),)
    else:
        references = tuple(
            Reference(key.referred_table, pairs_of(key))
            for key in sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns])
            if resolves(key) and key.referred_table in holdings and key.referred_table is not table and _needs(key)
        )
    if references:
        holdings[table] = Holding(table, Belonging.REFERENCES, Owner(references=references), source)
    return bool(references)


def _needs(key: ForeignKeyConstraint) -> bool:
    """Whether a row can't exist without the row that it references."""
    return (key.ondelete or "").upper() == "CASCADE" or not any(column.nullable for column in key.columns)


def _why_shared(table: Table, holdings: Mapping[Table, Holding]) -> str:
    keys = [each for each in table.foreign_key_constraints if resolves(each) and each.referred_table in holdings]
    if keys:
        names = ", ".join(sorted({each.referred_table.fullname for each in keys}))
        return f"no tenant column; a row can reference {names}, but need not"
    return "no tenant column, and no foreign key to a table of tenants"
