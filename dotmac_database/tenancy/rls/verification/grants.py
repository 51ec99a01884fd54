"""Rights on tables that policies do not restrict: ownership, TRUNCATE, REFERENCES and TRIGGER."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import JSON, Connection, text

from .findings import Finding
from .relations import Relation
from .roles import ReachableRoles, Role

_RISKS = {
    "TRUNCATE": "TRUNCATE is granted, which removes the rows of all tenants, without regard to policies",
    "TRIGGER": "TRIGGER is granted: a trigger that the role adds runs with the rights of whoever writes to the table",
    "REFERENCES": "REFERENCES is granted: foreign keys bypass policies, so they reveal existing keys and block deletes",
}


def grant_findings(connection: Connection, reach: ReachableRoles, relations: Sequence[Relation]) -> Iterator[Finding]:
    """Tables, schemas and the database that a role in ``reach`` owns, and dangerous grants. One statement."""
    if reach.superuser:
        return
    own = [relation for relation in relations if relation.kinship in ("own", "child")]
    yield from _table_owners(reach, own)
    places = text(_PLACES).columns(places=JSON())
    row = connection.execute(places, {"roles": reach.oids, "oids": [relation.oid for relation in own]}).one()
    for place in row.places or ():
        yield _place_owner(reach, **place)
    for relation in relations:
        if relation.kinship in ("own", "child", "unlisted"):
            yield from _grants(reach, relation, creates=row.creates)


def _table_owners(reach: ReachableRoles, relations: Sequence[Relation]) -> Iterator[Finding]:
    tables: dict[int, list[str]] = {}
    for relation in relations:
        tables.setdefault(relation.owner, []).append(relation.name)
    for owner, names in tables.items():
        role = reach.get(owner)
        if role is not None and not role.superuser:
            yield _table_owner(reach, role, names)


def _table_owner(reach: ReachableRoles, role: Role, names: Sequence[str]) -> Finding:
    tables = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    risk = f"the owner of {tables}, and an owner can turn the policies off"
    if role.own:
        current = reach.current.quoted
        alter = "; ".join(f"ALTER TABLE {name} OWNER TO another role" for name in names)
        remedy = f"{alter}; GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(names)} TO {current}"
        return Finding(f"role {role.name}", f"it is {risk}", remedy)
    member = (role.through or "").strip('"')
    return Finding(f"role {member}", f"it is a member of {role.name}, {risk}", role.revoke_membership)


def _place_owner(reach: ReachableRoles, kind: str, name: str, owner: int) -> Finding:
    risks = {
        "DATABASE": "can set the toolkit's settings for every role",
        "SCHEMA": "can drop everything in it",
    }
    role = reach.get(owner) or reach.current
    what = f"the {kind.lower()} {name}, and an owner {risks[kind]}"
    if role.own:
        return Finding(f"role {role.name}", f"it owns {what}", f"ALTER {kind} {name} OWNER TO another role")
    member = (role.through or "").strip('"')
    return Finding(
        f"role {member}",
        f"it is a member of {role.name}, which owns {what}",
        # PostgreSQL makes the database's owner a member of this role, which can't be revoked.
        f"ALTER {kind} {name} OWNER TO another role" if role.name == "pg_database_owner" else role.revoke_membership,
    )


def _grants(reach: ReachableRoles, relation: Relation, *, creates: bool) -> Iterator[Finding]:
    if reach.get(relation.owner) is not None:
        return
    for privilege, risk in _RISKS.items():
        grantees = relation.grants.get(privilege)
        if grantees and (creates or privilege != "REFERENCES"):
            yield Finding(relation.name, risk, reach.revoke(relation.name, sorted(set(grantees)), privilege))


_PLACES = """
SELECT
  (SELECT json_agg(json_build_object('kind', kind, 'name', name, 'owner', owner) ORDER BY kind, name) FROM (
    SELECT 'DATABASE' AS kind, quote_ident(d.datname) AS name, d.datdba::int8 AS owner
    FROM pg_database d WHERE d.datname = current_database()
    UNION
    SELECT 'SCHEMA', quote_ident(n.nspname), n.nspowner::int8
    FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE c.oid = ANY(CAST(:oids AS oid[]))
  ) AS p WHERE p.owner = ANY(CAST(:roles AS oid[]))) AS places,
  EXISTS (SELECT FROM pg_namespace n, unnest(CAST(:roles AS oid[])) AS r
    WHERE has_schema_privilege(r, n.oid, 'CREATE') AND n.nspname !~ '^pg_'
  ) OR EXISTS (SELECT FROM unnest(CAST(:roles AS oid[])) AS r
    WHERE has_database_privilege(r, current_database(), 'CREATE')) AS creates
"""
