"""What a deletion can't delete: rows that reference the tenant's rows, copies of them, and tables that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, ForeignKeyConstraint, Table, and_, false, inspect, not_, select

from ..dialects.features import has_server_statistics
from ..dialects.stored_rows import Condition, quoted, raw, table_name
from ..history.tables import source_of
from .holdings import Belonging, pairs_of, resolves
from .journal import transfer_metadata
from .target import Target


@dataclass(frozen=True, slots=True)
class Remaining:
    """Rows that remain, and why. ``rows`` None: nobody can count them. ``blocks``: the tenant can't be deleted."""

    table: str
    rows: int | None
    reason: str
    blocks: bool = False


def remaining_rows(connection: Connection, target: Target) -> Iterator[Remaining]:
    """What remains after a deletion. One statement for each foreign key to a tenant's table."""
    yield from _referring(connection, target)
    yield from _histories(target)
    yield from (Remaining(name, None, reason) for name, reason in target.absent.items())
    yield from _unknown(connection, target)


def _referring(connection: Connection, target: Target) -> Iterator[Remaining]:
    """The rows that are not the tenant's, but reference a row of the tenant."""
    tables = [each for each in (*target.holdings.by_table, *target.holdings.shared) if target.columns.get(each)]
    for table in sorted(tables, key=lambda each: each.fullname):
        for key in sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns]):
            if not resolves(key) or not target.columns.get(key.referred_table):
                continue
            if key.referred_table not in target.holdings.by_table or _is_inside(table, key, target):
                continue
            rows = target.rows.count(connection, table, _others(table, key, target))
            if rows:
                action = (key.ondelete or "").upper()
                names = f"{', '.join(column.name for column in key.columns)} references {key.referred_table.fullname}"
                if action in ("SET NULL", "SET DEFAULT"):
                    yield Remaining(table.fullname, rows, f"{names}; the foreign key changes it: ON DELETE {action}")
                else:
                    yield Remaining(table.fullname, rows, f"{names}, but the rows are not the tenant's", blocks=True)


def _is_inside(table: Table, key: ForeignKeyConstraint, target: Target) -> bool:
    """Whether the rows with this foreign key are of the same tenant as the referenced rows, by the key itself."""
    holding = target.holdings.by_table.get(table)
    referred = target.holdings.by_table[key.referred_table]
    if holding is None:
        return False
    if holding.owner.column is not None and referred.owner.column is not None:
        return any(here is holding.owner.column and there is referred.owner.column for here, there in pairs_of(key))
    return any(each.table is key.referred_table for each in holding.owner.references)


def _others(table: Table, key: ForeignKeyConstraint, target: Target) -> Condition:
    """The condition that a row references a tenant's row by ``key``, and is not the tenant's itself."""
    source = key.referred_table.alias("dotmac_referred")
    there = {each.name: each for each in source.columns}
    joined = [raw(f"{table_name(table)}.{quoted(here.name)}") == there[column.name] for here, column in pairs_of(key)]
    tenants = target.holdings.condition(key.referred_table, target.tenant, there)
    own = target.holdings.condition(table, target.tenant) if table in target.holdings.by_table else false()
    return and_(select(raw("1")).select_from(source).where(*joined, tenants).exists(), not_(own))


def _histories(target: Target) -> Iterator[Remaining]:
    for table in target.holdings.by_table:
        source = source_of(table)
        if source is not None and target.holdings.by_table[table].belonging is Belonging.REFERENCES:
            yield Remaining(
                table.fullname, None, f"entries of rows of {source.fullname} that were deleted earlier name no tenant"
            )


def _unknown(connection: Connection, target: Target) -> Iterator[Remaining]:
    """The tables and views of the database that the models don't have."""
    inspector = inspect(connection)
    known = {
        each.fullname
        for each in (*target.holdings.by_table, *target.holdings.shared, *transfer_metadata.tables.values())
    }
    schemas = {each.schema for each in (*target.holdings.by_table, *target.holdings.shared)} | {None}
    for schema in sorted(schemas, key=lambda each: each or ""):
        prefix = "" if schema is None else f"{schema}."
        for name in sorted(inspector.get_table_names(schema)):
            if f"{prefix}{name}" not in known and f"{prefix}{name}" not in ("alembic_version", "dotmac_settings"):
                yield Remaining(f"{prefix}{name}", None, "no model has this table, so nobody knows whose its rows are")
        if has_server_statistics(connection.dialect.name):
            for name in sorted(inspector.get_materialized_view_names(schema)):
                yield Remaining(f"{prefix}{name}", None, "a materialized view has copies of rows until it is refreshed")
