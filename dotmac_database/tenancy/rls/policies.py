"""The DDL of row-level security.

A policy compares the tenant column with a setting of the transaction. If the setting is missing (NULL), or empty
because an earlier transaction's SET LOCAL has ended, no row matches. With ``signed`` the policy reads the setting by
a function that verifies its signature. The call is in a subselect, which PostgreSQL evaluates once for each
statement instead of once for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sqlalchemy import DDL, Column, ForeignKeyConstraint, MetaData, String, Table
from sqlalchemy.dialects import postgresql

from ...models.sorted_tables import sorted_tables
from ..tables import TABLES
from .signature import ALL_TENANTS_SETTING as ALL_TENANTS_SETTING
from .signature import SETTING as SETTING

POLICY = "dotmac_tenant"
# With this parameter style a percent sign in a name is not doubled.
_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_quote = _DIALECT.identifier_preparer.quote


def quoted(table: Table) -> str:
    """The table's name for DDL."""
    return str(_DIALECT.identifier_preparer.format_table(table))


def quoted_name(name: str, schema: str | None = None) -> str:
    """The name of a column, or of a table and its schema, for DDL."""
    return _quote(name) if schema is None else f"{_DIALECT.identifier_preparer.quote_schema(schema)}.{_quote(name)}"


def run_ddl(execute: Callable[[DDL], object], statements: Iterable[str]) -> None:
    """Run statements unchanged: a percent sign or a colon in a name is not taken for a parameter."""
    for statement in statements:
        execute(DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]  # as above


def protected_tables(metadata: MetaData) -> dict[Table, Column[object] | None]:
    """The tables that hold tenants' rows, parents first, and the column that names the tenant.

    None: the table has no tenant column, so its rows belong to the tenant of the parent rows they reference, as in a
    joined child's table and in an association table. A table with a ``tenant_id`` column is included even if no class
    maps it.
    """
    columns: dict[Table, Column[object] | None] = {}
    for table in sorted_tables(metadata):
        owner = TABLES.owner(table)
        if owner is not None and owner.column is not None:
            columns[table] = owner.column
        elif "tenant_id" in table.columns:
            columns[table] = table.columns["tenant_id"]
        elif TABLES.table(table) is not None and _references(table, list(columns)):
            columns[table] = None
    return columns


def _references(table: Table, protected: Sequence[Table]) -> list[ForeignKeyConstraint]:
    """The foreign keys of ``table`` to protected tables; only those within its primary key, if there are any."""
    keys = [each for each in table.foreign_key_constraints if each.referred_table in protected]
    of_primary_key = [each for each in keys if set(each.columns) <= set(table.primary_key.columns)]
    return sorted(of_primary_key or keys, key=lambda each: [column.name for column in each.columns])


def parents_of(table: Table, protected: Iterable[Table]) -> list[Table]:
    """The tables that the policy of a table without a tenant column reads."""
    return [key.referred_table for key in _references(table, list(protected))]


def enable_statements(
    table: Table, column: str | None = None, *, all_tenants: bool = True, signed: bool = False
) -> list[str]:
    """The DDL that protects one table. It can be run repeatedly.

    ``column`` is the name of the tenant column; None: the rows belong to the tenant of the parent rows they reference.
    """
    condition = ownership_condition(table, column, signed=signed)
    return policy_statements(quoted(table), with_all_tenants(condition, signed=signed) if all_tenants else condition)


def with_all_tenants(condition: str, *, signed: bool = False) -> str:
    """``condition`` OR the transaction's setting for access to all tenants is on."""
    return f"({condition}) OR {across_tenants(signed=signed)}"


def across_tenants(*, signed: bool = False) -> str:
    """The condition that the transaction's setting for access to all tenants is on."""
    return f"(SELECT {ALL_TENANTS_SETTING}())" if signed else f"current_setting('{ALL_TENANTS_SETTING}', true) = 'on'"


def policy_statements(name: str, condition: str) -> list[str]:
    """The DDL for a policy with this condition on the table with this quoted name."""
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {name}",
        f"CREATE POLICY {POLICY} ON {name} USING ({condition}) WITH CHECK ({condition})",
    ]


def drop_statements(name: str) -> list[str]:
    """The DDL that undoes `policy_statements`."""
    return [
        f"DROP POLICY IF EXISTS {POLICY} ON {name}",
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",
    ]


def tenant_condition(column: str, type_name: str | None, *, signed: bool = False) -> str:
    """The condition that a column has the transaction's tenant. ``type_name`` None: the column has a text type."""
    setting = f"(SELECT {SETTING}())" if signed else f"NULLIF(current_setting('{SETTING}', true), '')"
    # No cast to varchar(n): it would truncate a longer name, which could then equal another tenant's name.
    return f"{column} = {setting}" if type_name is None else f"{column} = {setting}::{type_name}"


def ownership_condition(table: Table, column: str | None, *, signed: bool = False) -> str:
    """The condition that a row of the table belongs to the transaction's tenant."""
    if column is not None:
        return tenant_condition(_quote(column), type_name(table.c[column]), signed=signed)
    protected = protected_tables(table.metadata)
    return " AND ".join(f"EXISTS ({select})" for select in _parent_selects(table, protected, signed))


def type_name(column: Column[object]) -> str | None:
    """The SQL type to which a setting is cast for the comparison with the column; None: the column has a text type."""
    return None if isinstance(column.type, String) else column.type.compile(dialect=_DIALECT)


def _parent_selects(table: Table, protected: dict[Table, Column[object] | None], signed: bool) -> Iterator[str]:
    """For each parent of a table without a tenant column: the SELECT of the parent row, if it is the tenant's."""
    for key in _references(table, list(protected)):
        parent = key.referred_table
        parent_name = quoted(parent)
        conditions = [
            f"{parent_name}.{_quote(element.column.name)} = {quoted(table)}.{_quote(element.parent.name)}"
            for element in key.elements
        ]
        column = protected[parent]
        if column is not None:
            conditions.append(
                tenant_condition(f"{parent_name}.{_quote(column.name)}", type_name(column), signed=signed)
            )
        else:
            conditions += [f"EXISTS ({select})" for select in _parent_selects(parent, protected, signed)]
        yield f"SELECT 1 FROM {parent_name} WHERE {' AND '.join(conditions)}"  # noqa: S608 - quoted names of tables
