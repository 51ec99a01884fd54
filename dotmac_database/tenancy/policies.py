"""The DDL of row-level security.

A policy compares the tenant's column with a setting of the transaction. A setting that is missing (NULL) or over (an
empty string, after a SET LOCAL) names no tenant, hence no rows. With ``signed`` it does so by a function that checks
the setting's signature, in a subselect, which PostgreSQL evaluates once for a statement and not once for a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sqlalchemy import DDL, Column, ForeignKeyConstraint, MetaData, String, Table
from sqlalchemy.dialects import postgresql

from .signature import ACROSS as ACROSS
from .signature import SETTING as SETTING
from .tables import TABLES

POLICY = "dotmac_tenant"
# This style of parameters leaves a percent sign in a name as it is, as in psql.
_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_quote = _DIALECT.identifier_preparer.quote


def quoted(table: Table) -> str:
    """The table's name for DDL."""
    return str(_DIALECT.identifier_preparer.format_table(table))


def quoted_name(name: str, schema: str | None = None) -> str:
    """The name of a column, or of a table and its schema, for DDL."""
    return _quote(name) if schema is None else f"{_DIALECT.identifier_preparer.quote_schema(schema)}.{_quote(name)}"


def run_ddl(execute: Callable[[DDL], object], statements: Iterable[str]) -> None:
    """Run statements as they are, whatever names are in them: a percent sign and a colon are no parameters."""
    for statement in statements:
        execute(DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]  # as above


def protected_tables(metadata: MetaData) -> dict[Table, Column[object] | None]:
    """The tables that hold tenants' rows, parents first, and the column that names the tenant.

    None: the table has no tenant column, so its rows belong to the tenant of the parent rows they reference, as in a
    joined child's table and in an association table. A table with a ``tenant_id`` column is included even if no class
    maps it.
    """
    columns: dict[Table, Column[object] | None] = {}
    for table in metadata.sorted_tables:
        owner = TABLES.owner(table)
        if owner is not None and owner.column is not None:
            columns[table] = owner.column
        elif "tenant_id" in table.columns:
            columns[table] = table.columns["tenant_id"]
        elif TABLES.table(table) is not None and _references(table, list(columns)):
            columns[table] = None
    return columns


def _references(table: Table, protected: Sequence[Table]) -> list[ForeignKeyConstraint]:
    """The foreign keys of ``table`` to protected tables; those of its primary key, if there are such."""
    found = [each for each in table.foreign_key_constraints if each.referred_table in protected]
    of_key = [each for each in found if set(each.columns) <= set(table.primary_key.columns)]
    return sorted(of_key or found, key=lambda each: [column.name for column in each.columns])


def enable(table: Table, column: str | None = None, *, all_tenants: bool = True, signed: bool = False) -> list[str]:
    """The DDL for one table; ``column`` names the tenant, None: the rows that it refers to do. Repeatable."""
    condition = owned(table, column, signed=signed)
    return policy(quoted(table), with_all_tenants(condition, signed=signed) if all_tenants else condition)


def with_all_tenants(condition: str, *, signed: bool = False) -> str:
    """The condition, or that the transaction goes across tenants."""
    across = f"(SELECT {ACROSS}())" if signed else f"current_setting('{ACROSS}', true) = 'on'"
    return f"({condition}) OR {across}"


def policy(name: str, condition: str) -> list[str]:
    """The DDL that puts a table, by its quoted name, under a condition."""
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {name}",
        f"CREATE POLICY {POLICY} ON {name} USING ({condition}) WITH CHECK ({condition})",
    ]


def remove(name: str) -> list[str]:
    """The DDL that undoes `policy`."""
    return [
        f"DROP POLICY IF EXISTS {POLICY} ON {name}",
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",
    ]


def names_tenant(column: str, type_name: str | None, *, signed: bool = False) -> str:
    """The condition that a column names the transaction's tenant. ``type_name`` None: it is text of some kind."""
    setting = f"(SELECT {SETTING}())" if signed else f"NULLIF(current_setting('{SETTING}', true), '')"
    # A cast to varchar(n) would cut a longer name down to another tenant's.
    return f"{column} = {setting}" if type_name is None else f"{column} = {setting}::{type_name}"


def owned(table: Table, column: str | None, *, signed: bool = False) -> str:
    """The condition that a row of the table is the tenant's."""
    if column is not None:
        return names_tenant(_quote(column), type_name(table.c[column]), signed=signed)
    protected = protected_tables(table.metadata)
    return " AND ".join(f"EXISTS ({select})" for select in _referred(table, protected, signed))


def type_name(column: Column[object]) -> str | None:
    """The type that a setting is cast to for a comparison with the column; None: it is text of some kind."""
    return None if isinstance(column.type, String) else column.type.compile(dialect=_DIALECT)


def _referred(table: Table, protected: dict[Table, Column[object] | None], signed: bool) -> Iterator[str]:
    for key in _references(table, list(protected)):
        parent = key.referred_table
        other = quoted(parent)
        matches = [
            f"{other}.{_quote(element.column.name)} = {quoted(table)}.{_quote(element.parent.name)}"
            for element in key.elements
        ]
        column = protected[parent]
        if column is not None:
            matches.append(names_tenant(f"{other}.{_quote(column.name)}", type_name(column), signed=signed))
        else:
            matches += [f"EXISTS ({select})" for select in _referred(parent, protected, signed)]
        yield f"SELECT 1 FROM {other} WHERE {' AND '.join(matches)}"  # noqa: S608 - quoted names of tables
