"""Row-level security: PostgreSQL's own ring.

https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, literal_column, select, text
from sqlalchemy.dialects import postgresql

from ..errors import DatabaseError
from .tables import TABLES

SETTING = "dotmac.tenant_id"
"""The setting that names the tenant, for one transaction."""

ACROSS = "dotmac.all_tenants"
"""The setting that `unscoped` turns on for one transaction, where the policies allow for it."""

POLICY = "dotmac_tenant"
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


@dataclass(frozen=True, slots=True)
class Finding:
    """A hole: the object that has it, what it risks, and the remedy."""

    object: str
    risk: str
    remedy: str


def tell(connection: Connection, tenant: str | None, across: bool) -> None:
    """Name the tenant for the open transaction: SET LOCAL, so that it never travels with a pooled connection."""
    local = literal_column("true")
    connection.execute(
        select(
            func.set_config(SETTING, tenant or "", local), func.set_config(ACROSS, "on" if across else "", local)
        )
    )


class RowLevelSecurity:
    """Policies for the tenant-scoped tables of ``metadata``. All methods are sync; use `AsyncConnection.run_sync`."""

    def __init__(self, metadata: MetaData) -> None:
        self.metadata = metadata

    def tables(self) -> list[tuple[Table, str]]:
        """The tenant-scoped tables and the name of each one's tenant column."""
        found: list[tuple[Table, str]] = []
        for mapper in TABLES.roots:
            from ..models.traits import traits_of

            traits = traits_of(mapper.class_)
            column = traits.columns[traits.tenant or ""]
            if column.table.metadata is self.metadata and (column.table, column.name) not in found:
                found.append((column.table, column.name))
        return found

    def create_statements(self) -> list[str]:
        """The DDL that turns the policies on: ENABLE and FORCE, USING and WITH CHECK."""
        return [statement for table, column in self.tables() for statement in enable(table, column)]

    def drop_statements(self) -> list[str]:
        """The DDL that turns them off again."""
        return [statement for table, _ in self.tables() for statement in disable(table)]

    def apply(self, connection: Connection) -> None:
        """Run `create_statements` in the connection's transaction; does not commit. Repeatable."""
        if connection.dialect.name != "postgresql":
            raise DatabaseError("Row-level security is PostgreSQL's; this is another database.")
        for statement in self.create_statements():
            connection.execute(text(statement))

    def verify(self, connection: Connection) -> list[Finding]:
        """The holes in the database, as the connection's role sees it; none on a sound one. Three statements."""
        if connection.dialect.name != "postgresql":
            raise DatabaseError("Row-level security is PostgreSQL's; this is another database.")
        return [*_role(connection), *self._tables(connection), *_views(connection)]

    def _tables(self, connection: Connection) -> Iterator[Finding]:
        rows = connection.execute(text(_TABLES_SQL)).mappings()
        known = {(row["schema"], row["name"]): row for row in rows}
        default = connection.dialect.default_schema_name
        for table, _ in self.tables():
            row = known.get((table.schema or default, table.name))
            name = _quoted(table)
            if row is None:
                yield Finding(name, "the table does not exist, so nothing protects it", "create the table")
                continue
            if not row["enabled"]:
                yield Finding(
                    name,
                    "row-level security is off: every row is visible",
                    f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
                )
            if not row["forced"]:
                yield Finding(name, "its owner passes every policy", f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
            yield from _policies(name, row["policies"] or [])


def _policies(name: str, policies: list[dict[str, Any]]) -> Iterator[Finding]:
    remedy = f"create the policy of RowLevelSecurity.create_statements() on {name}"
    if not policies:
        yield Finding(name, "it has no policy", remedy)
    for policy in policies:
        if not policy["permissive"]:
            continue
        told = f"{name}, policy {policy['name']}"
        if SETTING not in (policy["using"] or "") and policy["command"] != "a":
            yield Finding(told, "its USING does not ask for the tenant", remedy)
        if policy["check"] is None and policy["command"] in ("*", "w", "a"):
            yield Finding(told, "it has no WITH CHECK, so that a row's new values go unsaid", remedy)
        elif policy["check"] is not None and SETTING not in policy["check"]:
            yield Finding(told, "its WITH CHECK does not ask for the tenant", remedy)


def _role(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(
        text("SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
    ).one()
    if row.rolsuper:
        yield Finding(f"role {row.rolname}", "a superuser passes every policy", "connect as an ordinary role")
    elif row.rolbypassrls:
        yield Finding(f"role {row.rolname}", "BYPASSRLS passes every policy", f"ALTER ROLE {row.rolname} NOBYPASSRLS")


def _views(connection: Connection) -> Iterator[Finding]:
    for row in connection.execute(text(_VIEWS_SQL)):
        name = f"{row.schema}.{row.name}"
        yield Finding(
            f"view {name}",
            f"it reads {row.table} with its owner's rights",
            f"ALTER VIEW {name} SET (security_invoker = true)",
        )


def enable(table: Table, column: str) -> list[str]:
    """The DDL for one table. An empty or missing setting names no tenant, hence no rows."""
    name = _quoted(table)
    type_ = table.c[column].type.compile(dialect=_DIALECT)
    quoted = _DIALECT.identifier_preparer.quote(column)
    condition = f"{quoted} = NULLIF(current_setting('{SETTING}', true), '')::{type_}"
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {name}",
        f"CREATE POLICY {POLICY} ON {name} USING ({condition}) WITH CHECK ({condition})",
    ]


def disable(table: Table) -> list[str]:
    """The DDL that undoes `enable`."""
    name = _quoted(table)
    return [
        f"DROP POLICY IF EXISTS {POLICY} ON {name}",
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",
    ]


def _quoted(table: Table) -> str:
    return str(_DIALECT.identifier_preparer.format_table(table))


_TABLES_SQL = """
SELECT n.nspname AS schema, c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
  (SELECT json_agg(json_build_object('name', p.polname, 'permissive', p.polpermissive, 'command', p.polcmd,
     'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)))
   FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""

_VIEWS_SQL = """
SELECT DISTINCT n.nspname AS schema, v.relname AS name, t.relname AS table
FROM pg_class v
JOIN pg_namespace n ON n.oid = v.relnamespace
JOIN pg_rewrite r ON r.ev_class = v.oid
JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
JOIN pg_class t ON t.oid = d.refobjid AND t.relrowsecurity
WHERE v.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT EXISTS (SELECT 1 FROM unnest(coalesce(v.reloptions, '{}')) o
                  WHERE o IN ('security_invoker=true', 'security_invoker=on', 'security_invoker=1'))
ORDER BY 1, 2
"""
