"""Functions that run with more rights than their caller, or that change the settings that the policies read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from .findings import Finding
from .plans import Plan
from .relations import Relation
from .roles import ReachableRoles

_WORD = re.compile(r"\w+")
_CHANGES_SETTINGS = re.compile(r"\bset_config\b|\bSET\b|\bROW\s+LEVEL\s+SECURITY\b", re.IGNORECASE)


def function_findings(
    connection: Connection, plan: Plan, reach: ReachableRoles, relations: Sequence[Relation], views: Sequence[str]
) -> Iterator[Finding]:
    """The functions that the role can execute and that can bypass the policies. One statement.

    The toolkit's own functions are omitted. Functions in views need no other treatment, because the role that reads a
    view needs the right to execute its functions. ``views`` are the names of the views that bypass the policies, no
    matter who can use them.
    """
    if reach.superuser:
        return
    own = [relation for relation in relations if relation.kinship == "own"]
    parameters = {
        "roles": reach.oids,
        "unforced": sorted({relation.owner for relation in own if not relation.forced}),
        "oids": [relation.oid for relation in relations],
        "settings": [*plan.settings, "row_security"],
        "mentions": "|".join(re.escape(name) for name in plan.settings),
    }
    rows = [
        row
        for row in connection.execute(text(_FUNCTIONS), parameters)
        if not plan.defines(row.schema, row.plain, row.body, row.configuration or ())
    ]
    open_names = {relation.relname for relation in relations if not (relation.enabled and relation.forced)}
    open_names |= {*views, *(row.plain for row in rows if row.definer and row.passes)}
    for row in rows:
        risk = _risk(row, open_names) if row.executable else None
        if risk is not None:
            name = f"{row.kind} {row.name}"
            yield Finding(name, risk, reach.revoke(name, row.grantees or (), "EXECUTE"))


def _risk(row: Row[Any], open_names: Collection[str]) -> str | None:
    """How a function can bypass the policies; None: it can't. ``open_names``: objects that no policy covers."""
    if row.setting is not None:
        return f"it sets {row.setting} while it runs, and the policies read that setting"
    if row.served:
        return "it reads or writes the server's files, including the files of the tables"
    if row.definer and row.passes:
        return f"SECURITY DEFINER: it runs as {row.owner}, to whom the policies do not apply"
    if row.definer:
        words = {*_WORD.findall(row.body), *_WORD.findall(" ".join(row.sources or ()))}
        mentioned = sorted(name for name in open_names if set(_WORD.findall(name)) <= words)
        if mentioned:
            return f"SECURITY DEFINER: it runs as {row.owner}, and names {mentioned[0]}, which no policy covers"
    if row.leakproof:
        return "LEAKPROOF: it is called with the rows of other tenants, before the policies have filtered them"
    if row.mentions and _CHANGES_SETTINGS.search(row.body):
        return "its text changes what the policies read"
    return None


# Of the functions in pg_catalog it looks only at a few that access files, which only a superuser should execute.
_FUNCTIONS = """
SELECT n.nspname::text AS schema, p.proname::text AS plain,
  CASE WHEN p.prokind = 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END AS kind,
  format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name,
  p.prosrc AS body, p.proconfig AS configuration, p.prosecdef AS definer, p.proleakproof AS leakproof,
  quote_ident(o.rolname) AS owner, c.setting, n.nspname = 'pg_catalog' AS served,
  p.prosrc ~* CAST(:mentions AS text) AS mentions,
  EXISTS (SELECT FROM unnest(CAST(:roles AS oid[])) AS r
    WHERE has_function_privilege(r, p.oid, 'EXECUTE')) AS executable,
  -- A body in standard SQL (BEGIN ATOMIC) is not in prosrc, but PostgreSQL records which relations it reads.
  (SELECT array_agg(d.refobjid::regclass::text) FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
    AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass) AS sources,
  (SELECT array_agg(quote_ident(g.rolname)) FROM aclexplode(p.proacl) AS x JOIN pg_roles g ON g.oid = x.grantee
    WHERE x.grantee <> p.proowner AND g.oid = ANY(CAST(:roles AS oid[]))) AS grantees,
  o.rolsuper OR o.rolbypassrls
    OR EXISTS (SELECT FROM unnest(CAST(:unforced AS oid[])) AS t WHERE pg_has_role(o.oid, t, 'USAGE'))
    OR EXISTS (SELECT FROM pg_policy q, unnest(q.polroles) AS t WHERE q.polrelid = ANY(CAST(:oids AS oid[]))
      AND q.polpermissive AND t <> 0 AND pg_has_role(o.oid, t, 'USAGE')) AS passes
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
CROSS JOIN LATERAL (SELECT min(lower(split_part(s, '=', 1))) AS setting FROM unnest(coalesce(p.proconfig, '{}')) AS s
  WHERE lower(split_part(s, '=', 1)) = ANY(CAST(:settings AS text[]))) AS c
WHERE p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
  AND CASE WHEN n.nspname = 'pg_catalog'
    THEN p.proname IN ('pg_read_file', 'pg_read_binary_file', 'lo_import', 'lo_export', 'pg_ls_dir')
    ELSE n.nspname <> 'information_schema' AND (p.prosecdef OR p.proleakproof OR c.setting IS NOT NULL
      OR p.prosrc ~* CAST(:mentions AS text)) END
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
ORDER BY 4
"""
