"""Rights on the tables that no policy limits: ownership, TRUNCATE, REFERENCES, TRIGGER."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from .findings import Finding
from .relations import Relation
from .roles import Reach, Role

_RISKS = {
    "TRUNCATE": "TRUNCATE is granted, which removes every tenant's rows and asks no policy",
    "TRIGGER": "TRIGGER is granted: a trigger that the role adds runs with the rights of whoever writes",
    "REFERENCES": "REFERENCES is granted: foreign keys ask no policy, so they tell which keys exist, and block deletes",
}


def grant_findings(connection: Connection, reach: Reach, relations: Sequence[Relation]) -> Iterator[Finding]:
    """Ownership within reach, and dangerous grants. One statement."""
    if reach.superuser:
        return
    own = [relation for relation in relations if relation.kinship in ("own", "child")]
    yield from _owners(reach, own)
    row = connection.execute(text(_PLACES), {"roles": reach.oids, "oids": [relation.oid for relation in own]}).one()
    if row.database is not None:
        yield Finding(
            f"role {reach.current.name}",
            f"it owns the database {row.database}, and may set the toolkit's settings for every role",
            f"ALTER DATABASE {row.database} OWNER TO another role",
        )
    for schema in row.schemas or ():
        yield Finding(
            f"role {reach.current.name}",
            f"it owns the schema {schema}, and an owner may drop all that is in it",
            f"ALTER SCHEMA {schema} OWNER TO another role",
        )
    for relation in relations:
        if relation.kinship in ("own", "child", "unlisted"):
            yield from _granted(reach, relation, creates=row.creates)


def _owners(reach: Reach, relations: Sequence[Relation]) -> Iterator[Finding]:
    tables: dict[int, list[str]] = {}
    for relation in relations:
        tables.setdefault(relation.owner, []).append(relation.name)
    for owner, names in tables.items():
        role = reach.get(owner)
        if role is not None and not role.superuser:
            yield _owned(reach, role, names)


def _owned(reach: Reach, role: Role, names: Sequence[str]) -> Finding:
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    risk = f"the owner of {listed}, and an owner may turn the policies off"
    if role.own:
        current = reach.current.quoted
        rights = "; ".join(f"ALTER TABLE {name} OWNER TO another role" for name in names[:1])
        remedy = f"{rights}; GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(names)} TO {current}"
        return Finding(f"role {role.name}", f"it is {risk}", remedy)
    member = (role.through or "").strip('"')
    return Finding(
        f"role {member}", f"it is a member of {role.name}, {risk}", f"REVOKE {role.quoted} FROM {role.through}"
    )


def _granted(reach: Reach, relation: Relation, *, creates: bool) -> Iterator[Finding]:
    if reach.get(relation.owner) is not None:
        return
    for privilege, risk in _RISKS.items():
        grantees = relation.grants.get(privilege)
        if grantees and (creates or privilege != "REFERENCES"):
            yield Finding(relation.name, risk, reach.revoke(relation.name, sorted(set(grantees)), privilege))


_PLACES = """
SELECT
  (SELECT quote_ident(d.datname) FROM pg_database d
    WHERE d.datname = current_database() AND d.datdba = ANY(CAST(:roles AS oid[]))) AS database,
  (SELECT array_agg(DISTINCT quote_ident(n.nspname)) FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
    WHERE c.oid = ANY(CAST(:oids AS oid[])) AND n.nspowner = ANY(CAST(:roles AS oid[]))) AS schemas,
  EXISTS (SELECT FROM pg_namespace n, unnest(CAST(:roles AS oid[])) AS r
    WHERE has_schema_privilege(r, n.oid, 'CREATE') AND n.nspname !~ '^pg_'
  ) OR EXISTS (SELECT FROM unnest(CAST(:roles AS oid[])) AS r
    WHERE has_database_privilege(r, current_database(), 'CREATE')) AS creates
"""
