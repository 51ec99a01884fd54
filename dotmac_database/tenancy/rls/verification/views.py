"""Views and materialized views that read tenants' rows, directly or through other views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from .findings import Finding
from .relations import Relation
from .roles import ReachableRoles


def views_of(connection: Connection, reach: ReachableRoles, relations: Sequence[Relation]) -> Sequence[Row[Any]]:
    """The views that read tenants' rows with the rights of the view's owner, and those that store them. One statement.

    If the role can use a view with its owner's rights, it can thereby also use the views that this view reads.
    """
    oids = [relation.oid for relation in relations]
    return connection.execute(text(_VIEWS), {"oids": oids, "roles": reach.oids}).all()


def view_findings(reach: ReachableRoles, views: Sequence[Row[Any]]) -> Iterator[Finding]:
    """The findings for the views that the role can use."""
    for view in views:
        if not view.used:
            continue
        if view.stored:
            yield Finding(
                f"materialized view {view.name}",
                f"it stores rows of {view.source}, which no policy covers",
                reach.revoke(view.name, view.grantees or ()),
            )
        else:
            yield Finding(
                f"view {view.name}",
                f"it reads {view.source} with its owner's rights",
                f"ALTER VIEW {view.name} SET (security_invoker = true)",
            )


_VIEWS = """
WITH RECURSIVE reads AS (
  SELECT r.ev_class AS view, d.refobjid AS source
  FROM pg_rewrite r JOIN pg_depend d
    ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
  JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
  WHERE r.ev_class <> d.refobjid
), reached AS (
  SELECT view, source FROM reads WHERE source = ANY(CAST(:oids AS oid[]))
  UNION
  SELECT r.view, r.source FROM reads r JOIN reached ON r.source = reached.view
), views AS (
  SELECT v.oid, v.relkind = 'm' AS stored, EXISTS (SELECT FROM unnest(v.reloptions) o WHERE lower(o) IN (
      'security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes')) AS invokes,
    EXISTS (SELECT FROM unnest(CAST(:roles AS oid[])) AS r
      WHERE has_table_privilege(r, v.oid, 'SELECT, INSERT, UPDATE, DELETE')
        OR has_any_column_privilege(r, v.oid, 'SELECT, INSERT, UPDATE')) AS granted
  FROM pg_class v WHERE v.oid IN (SELECT view FROM reached)
), used AS (
  SELECT oid FROM views WHERE granted
  UNION
  SELECT r.source FROM used JOIN views v ON v.oid = used.oid AND NOT v.invokes AND NOT v.stored
  JOIN reads r ON r.view = v.oid
)
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname::text AS relname, v.stored,
  used.oid IS NOT NULL AS used,
  (SELECT min(s.source::regclass::text) FROM reached s WHERE s.view = v.oid) AS source,
  (SELECT array_agg(DISTINCT quote_ident(g.rolname)) FROM aclexplode(c.relacl) AS x JOIN pg_roles g ON g.oid = x.grantee
    WHERE x.grantee <> c.relowner AND g.oid = ANY(CAST(:roles AS oid[]))) AS grantees
FROM views v LEFT JOIN used USING (oid) JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT v.invokes ORDER BY 1
"""
