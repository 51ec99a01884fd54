"""Partitions, inheritance children and inheritance parents. Each needs its own policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import RowMapping

from .findings import Finding
from .relations import Relation
from .roles import ReachableRoles


def inheritance_findings(
    reach: ReachableRoles, relations: Sequence[Relation], policies: Mapping[int, Sequence[RowMapping]]
) -> Iterator[Finding]:
    """The partitions, children and parents that the role can use by their own names, and that are not protected.

    PostgreSQL applies only the policies of the table that a statement names. If it names the parent, the policies of
    partitions and children are not applied; if it names a partition or a child, the parent's policies are not applied.
    """
    for relation in relations:
        if not relation.accessible:
            continue
        if relation.kinship == "child":
            yield from _child(reach, relation)
        elif relation.kinship == "ancestor" and _exposes(relation, policies):
            yield Finding(
                relation.name,
                f"reading it also reads the rows of {relation.parent}, without the policies of that table",
                reach.revoke(relation.name, _grantees(relation)),
            )


def _exposes(relation: Relation, policies: Mapping[int, Sequence[RowMapping]]) -> bool:
    """Whether a parent can show rows of other tenants.

    The policies of a parent with a tenant column are compared with the toolkit's in `policy_findings`.
    """
    return not _is_protected(relation) or (relation.column is None and bool(policies.get(relation.oid)))


def _child(reach: ReachableRoles, relation: Relation) -> Iterator[Finding]:
    name = relation.name
    if not relation.is_table:
        yield Finding(
            name,
            f"a child of {relation.parent}, which can be read by its own name, and on which no policy can be put",
            reach.revoke(name, _grantees(relation)),
        )
    elif not _is_protected(relation):
        yield Finding(
            name,
            f"a partition or child of {relation.parent}, which can be read by its own name without that table's policy",
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        )


def _is_protected(relation: Relation) -> bool:
    return relation.is_table and relation.enabled and relation.forced


def _grantees(relation: Relation) -> list[str]:
    return sorted({grantee for grantees in relation.grants.values() for grantee in grantees})
