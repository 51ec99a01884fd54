"""The tables with tenants' rows, and how to find the tenant of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from sqlalchemy import Column, ColumnElement, Connection, FromClause, MetaData, Table, and_, func, inspect

from ..dialects.features import has_policies
from ..errors import DatabaseError
from ..history.tables import source_of
from ..models.sorted_tables import sorted_tables
from ..models.traits import traits_of
from ..outbox.table import NAME as OUTBOX
from ..tenancy.rls.row_level_security import announce_tenant
from ..tenancy.rls.signature import Signer
from ..tenancy.rls.visibility import check_visible
from ..tenancy.tables import TABLES, Owner, Reference
from ..transactions.idempotency import idempotency_metadata

_IDEMPOTENCY = frozenset(table.name for table in idempotency_metadata.tables.values())

Report: TypeAlias = Callable[[str, int, int | None], None]
"""A function that is called with the name of a table, how many tables are done, and how many there are."""


class TableKind(StrEnum):
    """What the rows of a table are: those of the app, or those that the toolkit has written."""

    ROWS = "rows"
    HISTORY = "history"
    OUTBOX = "outbox"
    IDEMPOTENCY = "idempotency"


@dataclass(frozen=True, eq=False)
class TenantTable:
    """A table with tenants' rows.

    ``tenant`` is the expression that names a row's tenant, in a select from ``source``: a column of the table, or of
    the rows that its rows reference. ``column`` is a column of this expression. ``created`` is the column with the time
    of a row; None: it has none.
    """

    table: Table
    kind: TableKind
    source: FromClause
    tenant: ColumnElement[object]
    column: Column[object]
    created: ColumnElement[datetime] | None
    has_shared_rows: bool
    """Whether rows without a tenant belong to classes without tenants, so that they are nobody's usage."""

    @property
    def name(self) -> str:
        """The table's name, with its schema."""
        return self.table.fullname

    @property
    def has_column(self) -> bool:
        """Whether the table has a tenant column."""
        return self.source is self.table


@dataclass(frozen=True)
class TenantTables:
    """The ``present`` tables of tenants, and the names of those that can't be read.

    ``absent`` are tables of the models that the database does not have. ``unattributed`` contain tenants' rows, but
    nothing tells which row belongs to which tenant.
    """

    present: tuple[TenantTable, ...]
    absent: tuple[str, ...]
    unattributed: tuple[str, ...]


def tenant_tables(connection: Connection, metadata: Iterable[MetaData]) -> TenantTables:
    """The tables of tenants in ``metadata``, and the one of idempotency keys. One query for each table."""
    inspector = inspect(connection)
    present, absent, unattributed = list[TenantTable](), list[str](), list[str]()
    for each in dict.fromkeys((*metadata, idempotency_metadata)):
        for table in sorted_tables(each):
            owner = TABLES.stored_owner(table)
            if owner is None:
                continue
            if not inspector.has_table(table.name, schema=table.schema):
                if each is not idempotency_metadata:
                    absent.append(table.fullname)
            elif owner.is_unknown:
                unattributed.append(table.fullname)
            else:
                present.append(_described(table, owner))
    unique = {each.name: each for each in reversed(present)}
    return TenantTables(tuple(reversed(unique.values())), tuple(absent), tuple(unattributed))


def see_all(
    connection: Connection, tables: Sequence[Table], *, tenant: object = None, signer: Signer | None = None
) -> None:
    """Have the policies of PostgreSQL show all rows of ``tables``, or all of the ``tenant``, for this transaction.

    Raises `PermissionDeniedError` if they don't, since all numbers would then be wrong. At most seven statements.
    """
    if not has_policies(connection.dialect.name):
        return
    announce_tenant(connection, None if tenant is None else str(tenant), across=True, signer=signer)
    check_visible(connection, tables, "the policies' secret and all_tenants=True")


def _described(table: Table, owner: Owner) -> TenantTable:
    source, tenant, column = _tenant_of(table, owner)
    kind = _kind(table)
    created: ColumnElement[datetime] | None = None
    match kind:
        case TableKind.HISTORY:
            created = table.columns["at"]
        case TableKind.OUTBOX | TableKind.IDEMPOTENCY:
            created = table.columns["created_at"]
        case TableKind.ROWS:
            created = _created(table)
    return TenantTable(table, kind, source, tenant, column, created, bool(owner.extensions))


def _kind(table: Table) -> TableKind:
    if source_of(table) is not None:
        return TableKind.HISTORY
    if table.name in _IDEMPOTENCY:
        return TableKind.IDEMPOTENCY
    return TableKind.OUTBOX if table.name == OUTBOX else TableKind.ROWS


def _created(table: Table) -> ColumnElement[datetime] | None:
    for mapper in TABLES.classes_of(table):
        traits = traits_of(mapper.class_)
        column = None if traits.created_at is None else traits.columns[traits.created_at]
        if column is not None and column.table is table:
            return column
    return None


def _tenant_of(table: Table, owner: Owner) -> tuple[FromClause, ColumnElement[object], Column[object]]:
    """What to select from, the expression of the tenant, and a column of it."""
    if owner.column is not None:
        return table, owner.column, owner.column
    if owner.references:
        reference = owner.references[0]
        above = TABLES.stored_owner(reference.table)
        if above is None:
            raise DatabaseError(f"{table.fullname} belongs to tenants by {reference.table.fullname}, which has none.")
        source, tenant, column = _tenant_of(reference.table, above)
        return table.join(source, _condition(reference)), tenant, column
    joined: FromClause = table
    for reference, _ in owner.extensions:
        joined = joined.outerjoin(reference.table, _condition(reference))
    columns = [column for _, column in owner.extensions]
    return joined, columns[0] if len(columns) == 1 else func.coalesce(*columns), columns[0]


def _condition(reference: Reference) -> ColumnElement[bool]:
    return and_(*(here == there for here, there in reference.pairs))
