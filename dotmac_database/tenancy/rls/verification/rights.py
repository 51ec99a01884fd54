"""Compares the restrictive policies of rights in the database with those that the toolkit would create."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Row, text

from .expectations import Expectations
from .findings import Finding
from .plans import Plan
from .relations import Relation, renamed

_STATEMENT = re.compile(
    r"CREATE POLICY (?P<name>\w+) ON .*? AS RESTRICTIVE FOR (?P<command>SELECT|INSERT|UPDATE|DELETE) ", re.DOTALL
)
_COMMANDS = {"SELECT": "r", "INSERT": "a", "UPDATE": "w", "DELETE": "d"}


def right_findings(
    connection: Connection, plan: Plan, expectations: Expectations, relations: Sequence[Relation]
) -> Iterator[Finding]:
    """The policies of rights that are missing, or differ from the toolkit's. One statement.

    A partition or child that the role can use by its own name, with a policy of the tenant, needs them too.
    """
    rows = connection.execute(text(_POLICIES), {"oids": [relation.oid for relation in relations]})
    present = {(row.oid, row.name): row for row in rows}
    own = {relation.oid: relation for relation in relations if relation.kinship == "own"}
    for relation in relations:
        parent = own.get(relation.root) if relation.kinship == "child" else relation
        if parent is None or parent.table is None or not relation.is_table:
            continue
        if relation is not parent and not (relation.accessible and (relation.oid, "dotmac_tenant") in present):
            continue
        for statement in plan.rules.get(parent.table, ()):
            yield from _compared(expectations, relation, parent, statement, present)


def _compared(
    expectations: Expectations,
    relation: Relation,
    parent: Relation,
    statement: str,
    present: dict[tuple[int, str], Row[tuple[object, ...]]],
) -> Iterator[Finding]:
    match = _STATEMENT.match(statement)
    assert match is not None
    assert parent.table is not None
    name, command = match["name"], match["command"]
    remedy = renamed(statement, parent.table, relation.name)
    row = present.get((relation.oid, name))
    if row is None:
        risk = f"the rules of an actor's rights do not apply to {command}"
        yield Finding(f"{relation.name}, policy {name}", f"it does not exist: {risk}", remedy)
        return
    expected = expectations.of_rule(parent, statement)
    same = row.restrictive and row.everybody and row.command == _COMMANDS[command]
    if expected is not None:
        same = same and (row.using, row.check) == (expected.using, expected.check)
    if not same:
        risk = f"it is not the toolkit's, so that an actor may get more rows by {command} than the policies say"
        yield Finding(f"{relation.name}, policy {name}", risk, f"DROP POLICY {name} ON {relation.name}; {remedy}")


_POLICIES = """
SELECT p.polrelid::int8 AS oid, p.polname AS name, p.polcmd::text AS command, NOT p.polpermissive AS restrictive,
  0 = ANY(p.polroles) AS everybody,
  pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS check
FROM pg_policy p WHERE p.polrelid = ANY(CAST(:oids AS oid[])) AND p.polname LIKE 'dotmac%'
"""
