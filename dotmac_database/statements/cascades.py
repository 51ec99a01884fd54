"""The effects of a deletion on referring rows: by the ORM's cascades, or by the database's foreign keys.

A relationship with ``cascade="delete"`` is handled by the ORM. For others the ORM by itself would load the children and
set their keys to NULL, whatever the database's rule. Here the database's rule applies if there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Table
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.orm import RelationshipProperty
from sqlalchemy.orm.interfaces import RelationshipDirection

from ..models.traits import Traits
from .inheritance import root_of


class Rule(Enum):
    """The effect on a relationship's rows when the row that they refer to is deleted."""

    NOTHING = "the ORM has no part in it"
    ORM = "the ORM does what the relationship says"
    IF_LOADED = "the ORM does so for what is loaded, and the database does the rest (passive_deletes=True)"
    DELETED = "the database deletes them (ON DELETE CASCADE)"
    UNLINKED = "the database deletes the rows between many and many (ON DELETE CASCADE)"
    CLEARED = "the database clears their key (ON DELETE SET NULL, SET DEFAULT)"
    REFUSED = "the database refuses while there are any (ON DELETE RESTRICT, or a key that can't be NULL)"

    @property
    def is_databases(self) -> bool:
        """Whether the database carries out the rule, if it enforces foreign keys."""
        return self in (Rule.DELETED, Rule.UNLINKED, Rule.CLEARED, Rule.REFUSED)


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """The effects of a deletion on the relationships of a class and its subclasses."""

    needs_orm: bool
    needs_keys: bool
    """Whether the database must enforce its foreign keys for it."""
    if_loaded: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Dependence:
    """A foreign key whose rows the database deletes or changes with the row that they refer to.

    ``cleared`` are the columns that become NULL, or their default (``defaults``); none: the row is deleted.
    """

    table: Table
    referred: Table
    pairs: tuple[tuple[Column[Any], Column[Any]], ...]
    cleared: tuple[Column[Any], ...]
    defaults: bool

    @property
    def referred_columns(self) -> tuple[Column[Any], ...]:
        """The columns of the other table, in the key's order."""
        return tuple(there for _, there in self.pairs)


def deletion_of(traits: Traits[Any]) -> Deletion:
    """The effects on the class's relationships; cached."""
    mappers = list(traits.mapper.self_and_descendants)

    def find() -> Deletion:
        found = {each: rule_of(each) for mapper in mappers for each in mapper.relationships}
        return Deletion(
            needs_orm=Rule.ORM in found.values(),
            needs_keys=any(rule.is_databases for rule in found.values()),
            if_loaded=tuple(dict.fromkeys(each.key for each, rule in found.items() if rule is Rule.IF_LOADED)),
        )

    return traits.cached(("deletion", len(mappers)), find)


def rule_of(relationship: RelationshipProperty[Any]) -> Rule:
    """The rule of a relationship: the ORM's cascade if it has one, else the database's rule."""
    if relationship.viewonly:
        return Rule.NOTHING
    passive: Any = relationship.passive_deletes
    if relationship.cascade.delete or relationship.post_update:
        return Rule.IF_LOADED if passive is True and not relationship.post_update else Rule.ORM
    if relationship.direction is RelationshipDirection.MANYTOONE or passive == "all":
        return Rule.NOTHING
    return _databases(relationship) or (Rule.IF_LOADED if passive else Rule.ORM)


def _databases(relationship: RelationshipProperty[Any]) -> Rule | None:
    """The rule of a relationship's foreign key; None if it has none."""
    keys = keys_of(relationship)
    rules = {_action(key) for key in keys}
    if len(rules) != 1:
        return None
    rule = rules.pop()
    if relationship.direction is RelationshipDirection.MANYTOMANY:
        return Rule.UNLINKED if rule == "CASCADE" else None
    if rule == "CASCADE":
        # Of a row in several tables, the database would delete only a part.
        return Rule.DELETED if keys[0].table is root_of(relationship.mapper).local_table else None
    if rule.startswith("SET "):
        return Rule.CLEARED
    return (
        Rule.REFUSED if rule == "RESTRICT" or not can_be_cleared(key for each in keys for key in each.columns) else None
    )


def keys_of(relationship: RelationshipProperty[Any]) -> list[ForeignKeyConstraint]:
    """The foreign keys by which the rows of a relationship, or those between many and many, refer to the parent's."""
    pairs = {(there, here) for here, there in relationship.synchronize_pairs or ()}
    tables = {there.table for there, _ in pairs}
    return [
        key
        for table in tables
        if isinstance(table, Table)
        for key in table.foreign_key_constraints
        if _referred(key) is not None and pairs <= {(element.parent, element.column) for element in key.elements}
    ]


def can_be_cleared(columns: Iterable[Any]) -> bool:
    """Whether the ORM can set all of these columns to NULL."""
    return all(column.nullable and not column.primary_key for column in columns)


def cleared_columns(key: ForeignKeyConstraint) -> tuple[Column[Any], ...]:
    """The columns that SET NULL or SET DEFAULT changes: all of the key's, or those that it names in brackets."""
    _, bracket, names = (key.ondelete or "").partition("(")
    if not bracket:
        return tuple(key.columns)
    named = {name.strip().strip('"') for name in names.rstrip(") ").split(",")}
    return tuple(column for column in key.columns if column.name in named)


def _action(key: ForeignKeyConstraint) -> str:
    action = " ".join((key.ondelete or "").upper().split())
    return "" if action == "NO ACTION" else action


def dependences(traits: Traits[Any]) -> Sequence[Dependence]:
    """The foreign keys through which deleting rows of the class affects other rows, across any number of tables."""
    tables = {
        table
        for mapper in (*traits.mapper.iterate_to_root(), *traits.mapper.self_and_descendants)
        for table in mapper.tables
        if isinstance(table, Table)
    }
    known = sum(len(table.metadata.tables) for table in tables)
    return traits.cached(("dependences", known), lambda: tuple(_dependences(tables)))


def _dependences(deleted: set[Table]) -> Iterator[Dependence]:
    waiting, seen = sorted(deleted, key=lambda table: table.fullname), set(deleted)
    for referred in waiting:
        for table in referred.metadata.tables.values():
            for key in table.foreign_key_constraints:
                action = _action(key)
                if _referred(key) is not referred or not action.startswith(("CASCADE", "SET ")):
                    continue
                pairs = tuple((element.parent, element.column) for element in key.elements)
                deletes = action == "CASCADE"
                yield Dependence(
                    table, referred, pairs, () if deletes else cleared_columns(key), action.startswith("SET DEFAULT")
                )
                if deletes and table not in seen:
                    seen.add(table)
                    waiting.append(table)


def _referred(key: ForeignKeyConstraint) -> Table | None:
    """The table that a foreign key refers to; None if it is not declared."""
    try:
        return key.referred_table
    except NoReferenceError:
        return None
