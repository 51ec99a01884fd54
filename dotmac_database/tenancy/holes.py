"""The holes in row-level security: what a database's role, tables and views let through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, text

from .policies import SETTING, quoted


@dataclass(frozen=True, slots=True)
class Finding:
    """A hole: the object that has it, what it risks, and the remedy."""

    object: str
    risk: str
    remedy: str


def find_holes(connection: Connection, tables: Sequence[Table]) -> list[Finding]:
    """The holes that matter to ``tables``, for the connection's role."""
    default = connection.dialect.default_schema_name
    names = {(table.schema or default, table.name): quoted(table) for table in tables}
    held = {(row["schema"], row["name"]): row for row in connection.execute(text(_TABLES)).mappings()}
    oids = [row["oid"] for key, row in held.items() if key in names]
    return [
        *_role(connection),
        *(finding for key, name in names.items() for finding in _table(name, held.get(key))),
        *_partitions(connection, oids),
        *_views(connection, oids),
    ]


def _role(connection: Connection) -> Iterator[Finding]:
    for row in connection.execute(text(_ROLES)):
        name = f"role {row.name}"
        if row.superuser:
            yield Finding(name, "a superuser passes every policy", "connect as an ordinary role")
        elif row.bypasses:
            yield Finding(name, "BYPASSRLS passes every policy", f"ALTER ROLE {row.quoted} NOBYPASSRLS")


def _table(name: str, row: RowMapping | None) -> Iterator[Finding]:
    if row is None:
        yield Finding(name, "the table does not exist, so nothing protects it", "create the table")
        return
    if not row["enabled"]:
        remedy = f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
        yield Finding(name, "row-level security is off: every row is visible", remedy)
    if not row["forced"]:
        remedy = f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
        yield Finding(name, "without FORCE its owner passes every policy", remedy)
    yield from _policies(name, [policy for policy in row["policies"] or [] if policy["permissive"]])


def _policies(name: str, policies: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    remedy = f"create the policy of RowLevelSecurity.create_statements() on {name}"
    if not policies:
        yield Finding(name, "it has no policy", remedy)
    for policy in policies:
        told = f"{name}, policy {policy['name']}"
        if policy["command"] != "a" and SETTING not in (policy["using"] or ""):
            yield Finding(told, "its USING does not ask for the tenant: permissive policies add up", remedy)
        if policy["command"] not in ("*", "w", "a"):
            continue
        if policy["check"] is None:
            yield Finding(told, "it has no WITH CHECK that says which rows may be written", remedy)
        elif SETTING not in policy["check"]:
            yield Finding(told, "its WITH CHECK does not ask for the tenant", remedy)


def _partitions(connection: Connection, oids: Sequence[int]) -> Iterator[Finding]:
    for row in connection.execute(text(_PARTITIONS), {"oids": list(oids)}):
        yield Finding(
            row.name,
            f"a partition of {row.parent}, which can be read by its own name past the parent's policy",
            f"ALTER TABLE {row.name} ENABLE ROW LEVEL SECURITY; ALTER TABLE {row.name} FORCE ROW LEVEL SECURITY",
        )


def _views(connection: Connection, oids: Sequence[int]) -> Iterator[Finding]:
    for row in connection.execute(text(_VIEWS), {"oids": list(oids)}):
        if row.stored:
            yield Finding(
                f"materialized view {row.name}",
                f"it keeps rows of {row.source}, which no policy covers",
                f"REVOKE ALL ON {row.name} FROM the application's role",
            )
        else:
            yield Finding(
                f"view {row.name}",
                f"it reads {row.source} with its owner's rights",
                f"ALTER VIEW {row.name} SET (security_invoker = true)",
            )


_ROLES = """
SELECT DISTINCT rolname AS name, quote_ident(rolname) AS quoted, rolsuper AS superuser, rolbypassrls AS bypasses
FROM pg_roles WHERE rolname IN (current_user, session_user) ORDER BY 1
"""

_TABLES = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
  (SELECT json_agg(json_build_object('name', p.polname, 'permissive', p.polpermissive, 'command', p.polcmd,
     'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.polname)
   FROM pg_policy p WHERE p.polrelid = c.oid
     AND EXISTS (SELECT FROM unnest(p.polroles) AS r WHERE r = 0 OR pg_has_role(current_user, r, 'USAGE'))
  ) AS policies
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""

_PARTITIONS = """
SELECT i.inhrelid::regclass::text AS name, i.inhparent::regclass::text AS parent
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY(:oids) AND NOT (c.relrowsecurity AND c.relforcerowsecurity) AND c.relkind IN ('r', 'p')
ORDER BY 1
"""

_VIEWS = """
WITH RECURSIVE reads AS (
  SELECT r.ev_class AS view, d.refobjid AS source
  FROM pg_rewrite r JOIN pg_depend d
    ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
  WHERE r.ev_class <> d.refobjid
), reached AS (
  SELECT view, source FROM reads WHERE source = ANY(:oids)
  UNION
  SELECT r.view, r.source FROM reads r JOIN reached ON r.source = reached.view
)
SELECT v.oid::regclass::text AS name, min(s.source::regclass::text) AS source, v.relkind = 'm' AS stored
FROM reached s JOIN pg_class v ON v.oid = s.view
WHERE v.relkind IN ('v', 'm') AND NOT EXISTS (
  SELECT FROM unnest(coalesce(v.reloptions, '{}')) o
  WHERE o IN ('security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'))
GROUP BY 1, 3 ORDER BY 1
"""
