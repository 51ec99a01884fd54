"""The effects of deleting a row on the rows that refer to it: by the ORM's cascades, or by the database's foreign keys.

The ORM handles relationships with ``cascade="delete"``. For other relationships the ORM would, by default, load the
children and set their foreign keys to NULL, even if the database has another rule. The toolkit lets the database apply
its rule if it has one.
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

    NOTHING = "the ORM does nothing"
    ORM = "the ORM deletes or changes the rows, as the relationship specifies"
    IF_LOADED = "the ORM handles the loaded rows, and the database the others (passive_deletes=True)"
    DELETED = "the database deletes the rows (ON DELETE CASCADE)"
    UNLINKED = "the database deletes the rows of the association table (ON DELETE CASCADE)"
    CLEARED = "the database clears their foreign key (ON DELETE SET NULL, SET DEFAULT)"
    REFUSED = "the database refuses while there are such rows (ON DELETE RESTRICT, or a key that can't be NULL)"

    @property
    def is_in_database(self) -> bool:
        """Whether the database applies the rule, provided that it enforces foreign keys."""
        return self in (Rule.DELETED, Rule.UNLINKED, Rule.CLEARED, Rule.REFUSED)


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """The effects of deleting a row on the relationships of a class and its subclasses."""

    needs_orm: bool
    """Whether the ORM must delete the row, because a relationship has `Rule.ORM`."""
    needs_keys: bool
    """Whether the database must enforce foreign keys, because it applies the rule of a relationship."""
    if_loaded: tuple[str, ...]
    """The relationships that the ORM handles only if their rows are loaded (`Rule.IF_LOADED`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Dependence:
    """A foreign key: when a row of ``referred`` is deleted, the database deletes or changes the rows of ``table``.

    ``pairs`` has for each column of the key also the column that it refers to. ``cleared`` are the columns that the
    database sets to NULL or, if ``defaults`` is True, to their default. Without such columns, it deletes the row.
    """

    table: Table
    referred: Table
    pairs: tuple[tuple[Column[object], Column[object]], ...]
    cleared: tuple[Column[object], ...]
    defaults: bool

    @property
    def referred_columns(self) -> tuple[Column[object], ...]:
        """The columns that the foreign key refers to, in the key's order."""
        return tuple(there for _, there in self.pairs)


def deletion_of(traits: Traits[object]) -> Deletion:
    """The effects of deleting a row of the class. The result is cached."""
    mappers = list(traits.mapper.self_and_descendants)

    def find() -> Deletion:
        rules = {each: rule_of(each) for mapper in mappers for each in mapper.relationships}
        return Deletion(
            needs_orm=Rule.ORM in rules.values(),
            needs_keys=any(rule.is_in_database for rule in rules.values()),
            if_loaded=tuple(dict.fromkeys(each.key for each, rule in rules.items() if rule is Rule.IF_LOADED)),
        )

    return traits.cached(("deletion", len(mappers)), find)


def rule_of(relationship: RelationshipProperty[object]) -> Rule:
    """The rule of a relationship: that of its ORM cascade if it has one, otherwise that of its foreign key."""
    if relationship.viewonly:
        return Rule.NOTHING
    passive: object = relationship.passive_deletes
    if relationship.cascade.delete or relationship.post_update:
        return Rule.IF_LOADED if passive is True and not relationship.post_update else Rule.ORM
    if relationship.direction is RelationshipDirection.MANYTOONE or passive == "all":
        return Rule.NOTHING
    return _database_rule(relationship) or (Rule.IF_LOADED if passive else Rule.ORM)


def _database_rule(relationship: RelationshipProperty[object]) -> Rule | None:
    """The rule of a relationship's foreign key; None if the database can't handle the relationship without the ORM."""
    keys = keys_of(relationship)
    rules = {_action(key) for key in keys}
    if len(rules) != 1:
        return None
    rule = rules.pop()
    if relationship.direction is RelationshipDirection.MANYTOMANY:
        return Rule.UNLINKED if rule == "CASCADE" else None
    if rule == "CASCADE":
        # The rows of an entity with joined inheritance are in several tables. If the foreign key is not in the root's
        # table, the database would delete only a part of them.
        return Rule.DELETED if keys[0].table is root_of(relationship.mapper).local_table else None
    if rule.startswith("SET "):
        return Rule.CLEARED
    return (
        Rule.REFUSED if rule == "RESTRICT" or not can_be_cleared(key for each in keys for key in each.columns) else None
    )


def keys_of(relationship: RelationshipProperty[object]) -> list[ForeignKeyConstraint]:
    """The foreign keys by which the rows of a relationship, or of its association table, refer to the parent's row."""
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


def cleared_columns(key: ForeignKeyConstraint) -> tuple[Column[object], ...]:
    """The columns that SET NULL or SET DEFAULT changes: those listed after it in brackets, else all of the key."""
    _, bracket, names = (key.ondelete or "").partition("(")
    if not bracket:
        return tuple(key.columns)
    cleared = {name.strip().strip('"') for name in names.rstrip(") ").split(",")}
    return tuple(column for column in key.columns if column.name in cleared)


def _action(key: ForeignKeyConstraint) -> str:
    """The ON DELETE clause of a foreign key in a uniform spelling; empty if the clause is missing, or is NO ACTION."""
    action = " ".join((key.ondelete or "").upper().split())
    return "" if action == "NO ACTION" else action


def dependences(traits: Traits[object]) -> Sequence[Dependence]:
    """The foreign keys by which the database deletes or changes further rows, directly or through other deleted rows.

    They begin at the class's tables, and those of its parents and subclasses.
    """
    tables = {
        table
        for mapper in (*traits.mapper.iterate_to_root(), *traits.mapper.self_and_descendants)
        for table in mapper.tables
        if isinstance(table, Table)
    }
    table_count = sum(len(table.metadata.tables) for table in tables)
    return traits.cached(("dependences", table_count), lambda: tuple(_dependences(tables)))


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
    """The table that a foreign key refers to; None if the table is not declared in the metadata."""
    try:
        return key.referred_table
    except NoReferenceError:
        return None
