"""Which tenants have rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Column, Connection, MetaData, Select, exists, null, select

from ..dialects.catalogue import IndexesOf, existing
from ..tenancy.rls.signature import Signer
from .tables import Report, TenantTable, see_all, tenant_tables


@dataclass(frozen=True)
class Presence:
    """The tenants, by name, each with the names of the ``tables`` in which it has rows.

    The tenant None stands for rows without a tenant. Tables without a tenant column are not among them: their rows
    belong to rows of the others. ``absent`` are tables of the models that the database does not have.
    """

    tenants: Mapping[str | None, Sequence[str]]
    absent: tuple[str, ...]


def find_tenants(
    connection: Connection,
    metadata: Iterable[MetaData],
    *,
    signer: Signer | None = None,
    report: Report | None = None,
) -> Presence:
    """The tenants that have rows in any table of ``metadata``.

    A table with an index that begins with the tenant costs one look-up in the index for each tenant; another table is
    read completely. Sends two statements for each table, and one more if its tenant column can be NULL.

    ``signer`` is that of the `RowLevelSecurity`. Raises `PermissionDeniedError` if row-level security hides rows from
    the connection's role.
    """
    tables = tenant_tables(connection, metadata)
    named = [each for each in tables.present if each.has_column]
    see_all(connection, [each.table for each in named], signer=signer)
    tenants: dict[str | None, list[str]] = {}
    for number, each in enumerate(named):
        if report is not None:
            report("Looking for tenants", number, len(named))
        for tenant in dict.fromkeys(_tenants_of(connection, each)):
            tenants.setdefault(tenant, []).append(each.name)
    ordered = sorted(tenants.items(), key=lambda item: (item[0] is not None, item[0] or ""))
    return Presence(dict(ordered), tables.absent)


def tenant_name(value: object) -> str | None:
    """A tenant as text; None: a row without a tenant."""
    return None if value in (None, "") else str(value)


def _tenants_of(connection: Connection, table: TenantTable) -> Iterator[str | None]:
    column = table.column
    statement = _skip_scan(column) if _leads_an_index(connection, table) else select(column).distinct()
    yield from map(tenant_name, connection.scalars(statement))
    if column.nullable and connection.scalar(select(exists().where(column.is_(None)))):
        yield None


def _leads_an_index(connection: Connection, table: TenantTable) -> bool:
    """Whether an index of all rows has the tenants in their order."""
    rows = connection.execute(IndexesOf(table.table)).mappings().all()
    return any(
        index.method == "btree"
        and not index.conditions
        and index.keys[0].column == table.column.name
        and index.keys[0].ordered
        for index in existing(connection.dialect.name, table.table, rows)
    )


def _skip_scan(column: Column[object]) -> Select[tuple[object]]:
    """The distinct tenants, by one look-up for the next greater one after the other.

    https://wiki.postgresql.org/wiki/Loose_indexscan
    """
    first = select(column.label("tenant")).where(column.is_not(null())).order_by(column).limit(1)
    chain = select(first.subquery().c.tenant).cte("tenants", recursive=True)
    following = select(column).where(column > chain.c.tenant).order_by(column).limit(1).scalar_subquery()
    chain = chain.union_all(select(following).where(chain.c.tenant.is_not(null())))
    return select(chain.c.tenant).where(chain.c.tenant.is_not(null()))
