"""Compares each policy in the database with the policy that the toolkit would create."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, RowMapping, text

from .expectations import Expectations
from .findings import Finding
from .plans import Plan
from .relations import Relation
from .roles import ReachableRoles

_READS = ("*", "r", "w", "d")
_WRITES = ("*", "w", "a")
_POLICY = "dotmac_tenant"


def policies_of(
    connection: Connection, reach: ReachableRoles, relations: Sequence[Relation]
) -> dict[int, list[RowMapping]]:
    """The permissive policies that apply to the roles in ``reach``, by the table's oid. One statement.

    Restrictive policies are omitted, because they can only hide more rows.
    """
    policies: dict[int, list[RowMapping]] = {}
    oids = [relation.oid for relation in relations]
    for row in connection.execute(text(_POLICIES), {"oids": oids, "roles": reach.oids}).mappings():
        policies.setdefault(row["oid"], []).append(row)
    return policies


def policy_findings(
    plan: Plan, expectations: Expectations, relations: Sequence[Relation], policies: Mapping[int, Sequence[RowMapping]]
) -> Iterator[Finding]:
    """The policies that differ from the toolkit's, and tables of the metadata without a policy."""
    for relation in relations:
        if not relation.is_table or (relation.kinship != "own" and not (relation.accessible and relation.enabled)):
            continue
        applied = policies.get(relation.oid, ())
        if not applied and relation.kinship == "own":
            yield Finding(relation.name, "it has no policy", "; ".join(relation.policy_statements(plan)))
        for policy in applied:
            yield from _differences(plan, expectations, relation, policy)


def _differences(plan: Plan, expectations: Expectations, relation: Relation, policy: RowMapping) -> Iterator[Finding]:
    differing = [
        clause
        for clause, applies, condition in (
            ("USING", policy["command"] in _READS, policy["using"]),
            # A policy without WITH CHECK checks new rows with its USING condition.
            ("WITH CHECK", policy["command"] in _WRITES, policy["check"] or policy["using"]),
        )
        if applies and not expectations.expects(relation, clause, condition)
    ]
    if not differing:
        return
    clauses = " and its ".join(differing)
    verb = "is" if len(differing) == 1 else "are"
    yield Finding(
        f"{relation.name}, policy {policy['name']}",
        f"its {clauses} {verb} not the toolkit's, and a row is visible if any permissive policy admits it",
        _remedy(plan, relation, policy["name"]),
    )


def _remedy(plan: Plan, relation: Relation, name: str) -> str:
    statements = [each for each in relation.policy_statements(plan) if "POLICY" in each.split()[:2]]
    if name == _POLICY and statements and relation.kinship != "child":
        return "; ".join(statements)
    return f"DROP POLICY {name} ON {relation.name}"


_POLICIES = """
SELECT p.polrelid::int8 AS oid, quote_ident(p.polname) AS name, p.polcmd::text AS command,
  pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS check
FROM pg_policy p
WHERE p.polrelid = ANY(CAST(:oids AS oid[])) AND p.polpermissive
  AND (0 = ANY(p.polroles) OR p.polroles && CAST(:roles AS oid[]))
ORDER BY p.polrelid, p.polname
"""
