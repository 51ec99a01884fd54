"""How many rows tenants have, and how much space they take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, MetaData, Row, func, null, select

from ..dialects.sizes import size_of
from ..tenancy.rls.signature import Signer
from ..tenancy.values import convert_tenant, kind_of, valid_tenant
from .presence import tenant_name
from .tables import Report, TableKind, TenantTable, see_all, tenant_tables


@dataclass(frozen=True, slots=True)
class TableUsage:
    """A tenant's ``rows`` in one table.

    ``bytes`` is its share of the table with its indexes, as if all rows had the same size; None: the database does not
    know the table's size. ``oldest`` and ``newest`` are the times at which rows were created; None: the table has no
    such column.
    """

    table: str
    kind: TableKind
    rows: int
    bytes: int | None
    oldest: datetime | None
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """What one tenant has in each table in which it has rows. ``tenant`` None: the rows without a tenant."""

    tenant: str | None
    tables: tuple[TableUsage, ...]

    def rows(self, kind: TableKind = TableKind.ROWS) -> int:
        """The rows in all tables of a kind."""
        return sum(each.rows for each in self.tables if each.kind is kind)

    @property
    def bytes(self) -> int | None:
        """The bytes in all tables; None: the size of a table is not known."""
        sizes = [each.bytes for each in self.tables]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def oldest(self) -> datetime | None:
        """When the oldest of the app's rows was created; None: it is not known."""
        return min((each.oldest for each in self._own if each.oldest is not None), default=None)

    @property
    def newest(self) -> datetime | None:
        """When the newest of the app's rows was created; None: it is not known."""
        return max((each.newest for each in self._own if each.newest is not None), default=None)

    @property
    def _own(self) -> Iterator[TableUsage]:
        return (each for each in self.tables if each.kind is TableKind.ROWS)


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of each of the ``tenants``, by name.

    ``absent`` are tables of the models that the database does not have. ``unattributed`` contain tenants' rows, but
    nothing tells which row belongs to which tenant.
    """

    tenants: tuple[TenantUsage, ...]
    absent: tuple[str, ...]
    unattributed: tuple[str, ...]


def measure(
    connection: Connection,
    metadata: Iterable[MetaData],
    *,
    tenant: object = None,
    signer: Signer | None = None,
    report: Report | None = None,
) -> Usage:
    """Count the rows of each tenant, or of one ``tenant``, in each table of ``metadata``.

    Soft-deleted rows are counted, since they take space. Sends at most four statements for each table. For all tenants
    each table is read completely; for one tenant, only its rows if an index finds them.

    ``signer`` is that of the `RowLevelSecurity`. Raises `PermissionDeniedError` if row-level security hides rows from
    the connection's role.
    """
    tables = tenant_tables(connection, metadata)
    if tenant is not None:
        valid_tenant(tenant)
    see_all(connection, [each.table for each in tables.present], tenant=tenant, signer=signer)
    measured: dict[str | None, list[TableUsage]] = {} if tenant is None else {str(tenant): []}
    for number, each in enumerate(tables.present):
        if report is not None:
            report("Counting rows", number, len(tables.present))
        for name, usage in _of_table(connection, each, tenant):
            measured.setdefault(name, []).append(usage)
    ordered = sorted(measured.items(), key=lambda item: (item[0] is not None, item[0] or ""))
    return Usage(tuple(TenantUsage(name, tuple(each)) for name, each in ordered), tables.absent, tables.unattributed)


def _of_table(connection: Connection, table: TenantTable, tenant: object) -> Iterator[tuple[str | None, TableUsage]]:
    """The tenants with rows in the table, and what they have there."""
    counts = _counts(connection, table, tenant)
    if not counts:
        return
    size = size_of(connection, table.table)
    total = sum(row.rows for row in counts)
    if tenant is not None and size.bytes is not None:
        total = size.rows or connection.scalar(select(func.count()).select_from(table.table)) or total
    for row in counts:
        share = None if size.bytes is None else round(size.bytes * min(row.rows / total, 1))
        yield tenant_name(row.tenant), TableUsage(table.name, table.kind, row.rows, share, row.oldest, row.newest)


def _counts(connection: Connection, table: TenantTable, tenant: object) -> list[Row[tuple[object, ...]]]:
    created = table.created
    times = (null(), null()) if created is None else (func.min(created), func.max(created))
    statement = select(
        table.tenant.label("tenant"), func.count().label("rows"), times[0].label("oldest"), times[1].label("newest")
    ).select_from(table.source)
    if tenant is not None:
        try:
            statement = statement.where(table.tenant == convert_tenant(tenant, kind_of(table.column)))
        except ValueError:
            return []  # such as a word, where tenants are numbers
    elif table.has_shared_rows:
        statement = statement.where(table.tenant.is_not(null()))
    return list(connection.execute(statement.group_by(table.tenant)))
