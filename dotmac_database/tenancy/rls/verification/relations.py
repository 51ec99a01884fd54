"""The relations with tenants' rows: the metadata's tables, their partitions, children and parents, and other tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, Connection, MetaData, String, Table, text
from sqlalchemy.types import TypeEngine, UserDefinedType

from ..policies import quoted
from .findings import Finding
from .plans import Plan
from .roles import ReachableRoles


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column of a relation.

    ``type`` is the SQL type, with its modifiers; for a domain, its name. ``base`` is the type without modifiers; for a
    domain, the type that the domain is based on. ``category`` is PostgreSQL's category of types, such as "S" for texts.
    """

    name: str
    type: str
    base: str
    category: str
    length: int | None
    domain: bool
    generated: bool
    identity: bool
    insertable: bool
    updatable: bool

    @property
    def quoted(self) -> str:
        """The name for SQL."""
        return f'"{escaped(self.name)}"'


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, a view or a similar object of the database, and why it is inspected.

    ``kinship`` is the reason. "own": the relation is a tenants' table of the metadata. "child": it is a partition or an
    inheritance child of an own table. "ancestor": it is an inheritance parent of an own table, so that whoever reads it
    also reads the own table's rows. "unlisted": it has a tenant column, and is not in the metadata.

    ``root`` is the oid of the own table, ``parent`` is the name of the next relation on the way to the own table, and
    ``table`` and ``column`` are the own table and its tenant column. ``accessible``: the connection's roles can use the
    relation. ``stamped``: the relation has a trigger BEFORE INSERT for each row.
    """

    oid: int
    name: str
    schema_name: str
    relname: str
    kind: str
    kinship: str
    root: int
    parent: str | None
    owner: int
    owner_name: str
    enabled: bool
    forced: bool
    accessible: bool
    grants: Mapping[str, Sequence[str]]
    attributes: Sequence[Attribute]
    privileges: frozenset[str]
    stamped: bool
    table: Table | None
    column: str | None

    @property
    def tenant(self) -> Attribute | None:
        """The tenant column; None: there is none."""
        return next((each for each in self.attributes if each.name == self.column), None)

    @property
    def is_table(self) -> bool:
        """Whether it is a table, so that it can have policies."""
        return self.kind in ("r", "p")

    def policy_statements(self, plan: Plan) -> list[str]:
        """The toolkit's statements that protect this relation."""
        if self.table is None:
            return []
        statements = plan.enable(self.table, self.column)
        return [renamed(statement, self.table, self.name) for statement in statements]


def escaped(name: str) -> str:
    """A name as it is written between double quotes."""
    return name.replace('"', '""')


def renamed(statement: str, table: Table, name: str) -> str:
    """The toolkit's statement for ``table``, changed to the relation with the SQL name ``name``."""
    own = re.escape(quoted(table))
    return re.sub(rf'(?<![\w"$.]){own}(?=\.|\s+(?:ENABLE|FORCE|USING|AS|FOR|TO)\b|\Z)', lambda _: name, statement)


def resolve(connection: Connection, plan: Plan) -> list[int | None]:
    """The oids of the plan's tables, found by the connection's search path; None: the table does not exist."""
    names = [(table.schema, table.name) for table, _ in plan.tables]
    rows = connection.execute(
        text(_RESOLVE), {"schemas": [schema for schema, _ in names], "names": [name for _, name in names]}
    )
    oids = {row.place: row.oid for row in rows}
    return [oids.get(place) for place in range(1, len(names) + 1)]


def relations_of(
    connection: Connection, plan: Plan, reach: ReachableRoles, oids: Sequence[int | None]
) -> list[Relation]:
    """All relations that contain tenants' rows. One statement."""
    own = {oid: place for place, oid in enumerate(oids) if oid is not None}
    listed = [(table.schema or connection.dialect.default_schema_name, table.name) for table in plan.listed]
    statement = text(_RELATIONS).columns(attributes=JSON(), grants=JSON(), privileges=JSON())
    rows = connection.execute(
        statement,
        {
            "oids": list(own),
            "roles": reach.oids,
            "columns": plan.columns,
            "listed_schemas": [schema for schema, _ in listed],
            "listed_names": [name for _, name in listed],
        },
    ).mappings()
    return [_relation(dict(row), plan, own) for row in rows]


def _relation(row: dict[str, Any], plan: Plan, own: Mapping[int, int]) -> Relation:
    attributes = [Attribute(**each) for each in row.pop("attributes") or ()]
    grants: dict[str, list[str]] = {}
    for each in row.pop("grants") or ():
        grants.setdefault(each["privilege"], []).append(each["grantee"])
    privileges = frozenset(row.pop("privileges") or ())
    table: Table | None = None
    column: str | None = None
    if row["root"] in own and row["kinship"] != "ancestor":
        table, column = plan.tables[own[row["root"]]]
    elif row["kinship"] in ("unlisted", "ancestor"):
        column = next((each.name for each in attributes if each.name in plan.columns), None)
        table = None if column is None else _table_of(row, attributes, column)
    return Relation(**row, attributes=attributes, grants=grants, privileges=privileges, table=table, column=column)


class _NamedType(UserDefinedType[str]):
    """A type that is rendered as the given name."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        return self.name


def _table_of(row: Mapping[str, Any], attributes: Sequence[Attribute], column: str) -> Table:
    """A relation of the database as a table with only its tenant column, for the toolkit's statements."""
    attribute = next(each for each in attributes if each.name == column)
    type_: TypeEngine[str] = String() if attribute.category == "S" else _NamedType(attribute.type)
    return Table(row["relname"], MetaData(), Column(column, type_), schema=row["schema_name"])


def table_findings(plan: Plan, relations: Sequence[Relation], oids: Sequence[int | None]) -> Iterator[Finding]:
    """The tables of the metadata that do not exist, and the tables without row-level security."""
    for (table, _), oid in zip(plan.tables, oids, strict=True):
        if oid is None:
            name = quoted(table)
            yield Finding(name, "the table does not exist, so nothing protects it", "create the table")
    for relation in relations:
        if relation.kinship in ("own", "unlisted") and (relation.kinship == "own" or relation.accessible):
            yield from _unprotected(relation, plan)


def _unprotected(relation: Relation, plan: Plan) -> Iterator[Finding]:
    name = relation.name
    if not relation.is_table:
        kind = {"f": "a foreign table", "v": "a view", "m": "a materialized view"}.get(relation.kind, "no table")
        yield Finding(name, f"it is {kind}, on which no policy can be put", f"REVOKE ALL ON {name} FROM PUBLIC")
        return
    if relation.kinship == "unlisted" and not relation.enabled:
        yield Finding(
            name,
            f"it has the column {relation.column}, the metadata lacks it, and row-level security is off",
            "; ".join(relation.policy_statements(plan)),
        )
        return
    if not relation.enabled:
        remedy = f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
        yield Finding(name, "row-level security is off: every row is visible", remedy)
    if not relation.forced:
        remedy = f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
        yield Finding(name, "without FORCE, the policies do not apply to the table's owner", remedy)


_RESOLVE = """
SELECT w.place::int AS place, c.oid::int8 AS oid
FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS w (schema_name, name, place)
JOIN pg_class c ON c.relname = w.name AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE CASE WHEN w.schema_name IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = w.schema_name END
"""

_RELATIONS = """
WITH RECURSIVE own AS (
  SELECT c.oid FROM pg_class c WHERE c.oid = ANY(CAST(:oids AS oid[]))
), down AS (
  SELECT oid, oid AS root, NULL::oid AS parent FROM own
  UNION
  SELECT i.inhrelid, down.root, i.inhparent FROM pg_inherits i JOIN down ON i.inhparent = down.oid
), up AS (
  SELECT oid, oid AS root, NULL::oid AS heir FROM own
  UNION
  SELECT i.inhparent, up.root, i.inhrelid FROM pg_inherits i JOIN up ON i.inhrelid = up.oid
), kin AS (
  SELECT oid, root, NULL::oid AS next, 'own' AS kinship, 0 AS rank FROM down WHERE parent IS NULL
  UNION ALL SELECT oid, root, parent, 'child', 1 FROM down WHERE parent IS NOT NULL
  UNION ALL SELECT oid, root, heir, 'ancestor', 2 FROM up WHERE heir IS NOT NULL
  UNION ALL SELECT a.attrelid, a.attrelid, NULL, 'unlisted', 3
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attname = ANY(CAST(:columns AS text[])) AND a.attnum > 0 AND NOT a.attisdropped
      AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND NOT EXISTS (SELECT FROM unnest(CAST(:listed_schemas AS text[]), CAST(:listed_names AS text[])) AS l (s, t)
        WHERE l.s = n.nspname AND l.t = c.relname)
), chosen AS (
  SELECT DISTINCT ON (oid) oid, root, next, kinship FROM kin ORDER BY oid, rank, root, next
)
SELECT c.oid::int8 AS oid, format('%I.%I', n.nspname, c.relname) AS name, n.nspname::text AS schema_name,
  c.relname::text AS relname, c.relkind::text AS kind, k.kinship, k.root::int8 AS root,
  k.next::regclass::text AS parent, c.relowner::int8 AS owner, quote_ident(o.rolname) AS owner_name,
  c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
  EXISTS (SELECT FROM unnest(CAST(:roles AS oid[])) AS r WHERE has_schema_privilege(r, n.oid, 'USAGE')
    AND (has_table_privilege(r, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
      OR has_any_column_privilege(r, c.oid, 'SELECT, INSERT, UPDATE'))) AS accessible,
  (SELECT json_agg(json_build_object('privilege', x.privilege_type,
      'grantee', CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END))
    FROM aclexplode(c.relacl) AS x
    WHERE x.grantee <> c.relowner AND (x.grantee = 0 OR x.grantee = ANY(CAST(:roles AS oid[])))) AS grants,
  (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
      'base', format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL), 'category', t.typcategory::text,
      'length', CASE WHEN a.atttypid IN (1042, 1043) AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
      'domain', t.typtype = 'd', 'generated', a.attgenerated <> '', 'identity', a.attidentity <> '',
      'insertable', has_column_privilege(c.oid, a.attnum, 'INSERT'),
      'updatable', has_column_privilege(c.oid, a.attnum, 'UPDATE')) ORDER BY a.attnum)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS attributes,
  (SELECT json_agg(p) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
    WHERE has_schema_privilege(n.oid, 'USAGE') AND (has_table_privilege(c.oid, p)
      OR CASE WHEN p <> 'DELETE' THEN has_any_column_privilege(c.oid, p) ELSE false END)) AS privileges,
  EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgtype & 7 = 7) AS stamped
FROM chosen k JOIN pg_class c ON c.oid = k.oid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles o ON o.oid = c.relowner
ORDER BY array_position(ARRAY['own', 'child', 'ancestor', 'unlisted'], k.kinship), name
"""
