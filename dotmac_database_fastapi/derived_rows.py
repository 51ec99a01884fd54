"""Makes dicts of rows and their related rows by derived schemas, which can be serialized without validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dotmac_database import Traits, traits_of

from .aliases import Annotation, JsonObject
from .hiding import NOTHING, Hidden
from .rendering import reader, row_type, uuids_of
from .variants import Tree, derived_schema, members_of


class DerivedRows:
    """Makes dicts of the rows of a class, with any part of a tree of relationships."""

    def __init__(self, traits: Traits[object], tree: Tree, hidden: Hidden = NOTHING) -> None:
        schema = derived_schema(traits, hidden)
        self._traits = traits
        self.keys = tuple(schema.model_fields)
        """The keys of a dict without related rows."""
        self._uuids = frozenset(uuids_of(schema))
        self._below: dict[str, tuple[bool, DerivedRows]] = {}
        related: dict[str, Annotation] = {}
        for name, below in tree.items():
            relationship = traits.relationships[name]
            is_many, rows = (
                bool(relationship.uselist),
                DerivedRows(traits_of(relationship.mapper.class_), below, hidden),
            )
            self._below[name] = is_many, rows
            related[name] = list[rows.type] if is_many else rows.type | None  # type: ignore[name-defined]  # known at run time
        self.type: Annotation = row_type(schema, related)
        """The type of the dicts. Each key may be missing."""

    def deferred(self, keys: Sequence[str], included: Tree, way: str = "") -> Iterator[str]:
        """Dotted paths to the deferred columns that these keys and relationships need."""
        yield from (f"{way}{key}" for key in keys if key in self._traits.deferred)
        for name, below in included.items():
            rows = self._below[name][1]
            yield from rows.deferred(rows.keys, below, f"{way}{name}.")

    def read(
        self, rows: Sequence[object], keys: Sequence[str], included: Tree, *, raw: bool = False
    ) -> list[JsonObject]:
        """The dicts of entities, or of rows that are dicts with these keys already.

        The relationships in ``included`` must be loaded. A related row that several rows have is read once. UUIDs
        become texts, unless the values are to be ``raw``. A UUID column's value of another type raises
        `PydanticSerializationError`.
        """
        dicts = reader(tuple(keys), () if raw else [key for key in keys if key in self._uuids])(rows)
        for name, below in included.items():
            is_many, target = self._below[name]
            related = [getattr(row, name) for row in rows]
            members = [members_of(each) if is_many else [] if each is None else [each] for each in related]
            different = {id(each): each for several in members for each in several}
            read = dict(zip(different, target.read([*different.values()], target.keys, below, raw=raw), strict=True))
            for values, several in zip(dicts, members, strict=True):
                below_row = [read[id(each)] for each in several]
                values[name] = below_row if is_many else next(iter(below_row), None)
        return dicts
