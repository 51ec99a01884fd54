"""Partitions, inheritance children and inheritance parents: each has policies of its own, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .findings import Finding
from .relations import Relation
from .roles import Reach


def inheritance_findings(
    reach: Reach, relations: Sequence[Relation], policies: Mapping[int, Sequence[Any]]
) -> Iterator[Finding]:
    """The kin that may be used by their own names, and whose own protection is off.

    PostgreSQL applies the policies of the table that a statement names, and of no other: neither a partition's nor a
    child's when they are reached through the parent, nor the parent's when they are reached by themselves.
    """
    for relation in relations:
        if not relation.accessible:
            continue
        if relation.kinship == "child":
            yield from _child(reach, relation)
        elif relation.kinship == "ancestor" and _exposes(relation, policies):
            yield Finding(
                relation.name,
                f"reading it also reads the rows of {relation.parent}, past the policies of that table",
                reach.revoke(relation.name, _grantees(relation)),
            )


def _exposes(relation: Relation, policies: Mapping[int, Sequence[Any]]) -> bool:
    """Whether a parent shows rows; one with the tenant's column is compared with the toolkit's policy elsewhere."""
    return not _closed(relation) or (relation.column is None and bool(policies.get(relation.oid)))


def _child(reach: Reach, relation: Relation) -> Iterator[Finding]:
    name = relation.name
    if not relation.is_table:
        yield Finding(
            name,
            f"a child of {relation.parent} on which no policy can be put, and which can be read by its own name",
            reach.revoke(name, _grantees(relation)),
        )
    elif not _closed(relation):
        yield Finding(
            name,
            f"a partition or child of {relation.parent}, which can be read by its own name past that table's policy",
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        )


def _closed(relation: Relation) -> bool:
    return relation.is_table and relation.enabled and relation.forced


def _grantees(relation: Relation) -> list[str]:
    return sorted({grantee for grantees in relation.grants.values() for grantee in grantees})
