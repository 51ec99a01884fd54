"""Derives the missing indexes of a read from its filters, its order and its relationships."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.orm import RelationshipDirection, RelationshipProperty

from ..dialects.catalogue import ExistingIndex
from ..models.traits import Traits, traits_of
from ..query import Filter
from ..statements.ordering import Order
from ..statements.paths import relationship_of
from ..statements.reads import Reader
from .candidates import CandidateIndex, Key
from .lookup import Copies, Lookup, on_table
from .shapes import Condition, conditions_of
from .values import IndexAdvice

Catalogue = Callable[[Table], list[ExistingIndex]]


class Advisor:
    """Finds the missing indexes of a reader's reads.

    ``catalogue`` returns the existing indexes of a table. It is called once for each table.
    """

    def __init__(self, reader: Reader, catalogue: Catalogue) -> None:
        self.reader = reader
        self.dialect = reader.dialect.name
        self._catalogue = catalogue
        self._known: dict[Table, list[ExistingIndex]] = {}
        self._copies = Copies()

    def advice(
        self, filters: Sequence[Filter], order: Order, relationships: Sequence[str] = (), *, limited: bool
    ) -> tuple[IndexAdvice, ...]:
        """The missing indexes of a read. The index for the order comes first.

        ``relationships`` are the names of the relationships that the read loads. ``limited``: the read returns a page,
        and not all rows.
        """
        if not on_table(self.reader.traits):
            return ()
        self._existing(self._lookup(self.reader.traits).table)
        conditions = conditions_of(self.reader.traits, self.reader.analysed(filters))
        return tuple(
            candidate.advice()
            for candidate in self._candidates(conditions, order, relationships, limited)
            if self._is_missing(candidate)
        )

    def _lookup(self, traits: Traits[Any], conditions: Sequence[Condition] = ()) -> Lookup:
        return Lookup(self.reader, self._copies, traits, conditions)

    def _candidates(
        self, conditions: Sequence[Condition], order: Order, relationships: Sequence[str], limited: bool
    ) -> Iterator[CandidateIndex]:
        root = self.reader.traits
        own = [each for each in conditions if each.required and not each.path.steps]
        lookup = self._lookup(root, own)
        special = [candidate for each in own for candidate in lookup.special_indexes(each)]
        ordinary = lookup.btree_index(order, limited=limited)
        if ordinary is not None and (lookup.has_requested_order(order) or not special or lookup.compares):
            yield ordinary
        yield from special
        for each in conditions:
            yield from self._foreign_key_indexes(each.path.steps)
            if each.path.steps and each.path.key is not None and each.required:
                yield from self._indexes_on_related_rows(each)
        for name in relationships:
            owner, way = root, list[RelationshipProperty[Any]]()
            for part in name.split("."):
                way.append(relationship_of(owner, part, name))
                owner = traits_of(way[-1].mapper.class_)
            yield from self._foreign_key_indexes([step for step in way if step.uselist])

    def _indexes_on_related_rows(self, condition: Condition) -> Iterator[CandidateIndex]:
        """The indexes that a condition on the row of a to-one relationship needs in order to find that row."""
        step = condition.path.steps[-1]
        if step.uselist or not on_table(traits_of(step.mapper.class_)):
            return
        lookup = self._lookup(traits_of(step.mapper.class_), [condition])
        special = list(lookup.special_indexes(condition))
        yield from special
        ordinary = None if special else lookup.btree_index((), limited=False)
        if ordinary is not None:
            yield ordinary

    def _is_missing(self, candidate: CandidateIndex) -> bool:
        known = self._existing(candidate.table)
        if any(candidate.served_by(index) for index in known):
            return False
        known.append(candidate.as_existing)
        return True

    def _existing(self, copy: Table) -> list[ExistingIndex]:
        """The existing indexes of the table of which this is a copy, and the candidates that are already advised."""
        if copy not in self._known:
            self._known[copy] = list(self._catalogue(self._copies.original(copy)))
        return self._known[copy]

    def _foreign_key_indexes(self, steps: Sequence[RelationshipProperty[Any]]) -> Iterator[CandidateIndex]:
        """The indexes on the foreign keys that connect the rows of relationships."""
        for step in steps:
            if step.direction is RelationshipDirection.MANYTOONE:
                owner = traits_of(step.parent.class_)
                columns = [local for local, _ in step.local_remote_pairs or ()]
            elif step.secondary is not None:
                if isinstance(step.secondary, Table):
                    yield self._join_table(step, step.secondary)
                continue
            else:
                owner = traits_of(step.mapper.class_)
                columns = [remote for _, remote in step.local_remote_pairs or ()]
            if not on_table(owner):
                continue
            lookup = self._lookup(owner)
            keys = [key for key in map(lookup.column_key, columns) if key is not None]
            if len(keys) == len(columns):
                yield lookup.candidate(f"{step.parent.class_.__name__}.{step.key} is joined by its foreign key", keys)

    def _join_table(self, step: RelationshipProperty[Any], table: Table) -> CandidateIndex:
        copy = self._copies.of(table)
        return CandidateIndex(
            self.dialect,
            copy,
            f"{step.parent.class_.__name__}.{step.key} is joined by its foreign key",
            equal=tuple(Key(copy.c[str(column.key)]) for _, column in step.synchronize_pairs),
        )
