"""The tables that hold tenants' rows, as the mapped classes tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Column, Table, event
from sqlalchemy.orm import Mapper, RelationshipProperty, configure_mappers
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause

from ..models.inheritance import joined_columns
from ..models.registered import mappers
from ..models.traits import tenant_key, traits_of
from .values import kind_of


def tenant_column(mapper: Mapper[Any]) -> Column[Any]:
    """The column that names the tenant of a tenant-scoped class; a parent's table may have it."""
    traits = traits_of(mapper.class_)
    return traits.columns[traits.tenant or ""]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Columns of a table, and those of the row in ``table`` that they name: ``pairs`` of (here, there)."""

    table: Table
    pairs: tuple[tuple[Column[Any], Column[Any]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """How the tenant of a table's rows is known.

    ``column`` names the tenant. Without one, a row belongs to the tenant of the rows that its ``references`` name: a
    joined child's to its parent's, one between many and many to both ends'. With neither, a row is shared by all, but
    for the ``extensions``: where a child's table names the tenant, the parent's row is that tenant's.
    """

    column: Column[Any] | None = None
    references: tuple[Reference, ...] = ()
    extensions: tuple[tuple[Reference, Column[Any]], ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether the table is a tenants' one, and nothing says whose a row is."""
        return self.column is None and not self.references and not self.extensions


class TenantTables:
    """The tables of tenant-scoped classes, kept up to date as classes are mapped.

    ``texts`` are the fragments of SQL that the classes themselves were written with.
    """

    def __init__(self) -> None:
        self._stale = True
        self._kinds: dict[type, Column[Any]] = {}
        self._mappers: tuple[Mapper[Any], ...] = ()
        self._tables: dict[Table, Mapper[Any] | None] = {}
        self._owners: dict[Table, Owner] = {}
        self._metadata: tuple[Any, ...] = ()
        self._roots: tuple[Mapper[Any], ...] = ()
        self._texts: frozenset[str] = frozenset()
        self.version = 0
        event.listen(Mapper, "after_mapper_constructed", self._grow)

    def _grow(self, *_: Any) -> None:
        self._stale = True

    def _refresh(self) -> None:
        if not self._stale:
            return
        configure_mappers()
        self._stale = False
        known = tuple(mappers())
        tables: dict[Table, Mapper[Any] | None] = {}
        roots: list[Mapper[Any]] = []
        for mapper in known:
            if tenant_key(mapper) is None:
                continue
            tables.update((table, mapper) for table in mapper.tables if isinstance(table, Table))
            for relationship in mapper.relationships:
                if isinstance(relationship.secondary, Table):
                    tables.setdefault(relationship.secondary, None)
            if mapper.inherits is None or tenant_key(mapper.inherits) is None:
                roots.append(mapper)
        self._tables, self._roots, self._mappers = tables, tuple(roots), known
        self._metadata = tuple({id(table.metadata): table.metadata for table in _tables_of(known)}.values())
        self._owners = _owners(known, tables, self._metadata)
        self._texts = frozenset(text for mapper in known for text in _texts_of(mapper))
        self._kinds = {}
        for column in map(tenant_column, roots):
            self._kinds.setdefault(kind_of(column), column)
        self.version += 1

    def current(self) -> int:
        """A number that changes when classes are mapped."""
        self._refresh()
        return self.version

    @property
    def roots(self) -> tuple[Mapper[Any], ...]:
        """The mappers that own a tenant column, the topmost of each inheritance tree."""
        self._refresh()
        return self._roots

    @property
    def kinds(self) -> dict[type, Column[Any]]:
        """The Python types of the tenants' names, and a column of each."""
        self._refresh()
        return self._kinds

    @property
    def texts(self) -> frozenset[str]:
        """The text fragments in the mappings, which are the programmer's own."""
        self._refresh()
        return self._texts

    def class_of(self, table: Any) -> Mapper[Any] | None:
        """The mapper of a tenants' table; None: it has none, or is no tenants' table."""
        self._refresh()
        return self._tables.get(_plain(table)) if isinstance(table, Table) else None

    def table(self, element: Any) -> Table | None:
        """The tenants' table that ``element`` is, or None."""
        self._refresh()
        plain = _plain(element) if isinstance(element, Table) else None
        return plain if plain in self._tables else None

    def owner(self, table: Table) -> Owner | None:
        """How the tenant of the table's rows is known; None: they belong to no tenant."""
        self._refresh()
        return self._owners.get(_plain(table))

    def knows(self, table: Table) -> bool:
        """Whether a table is the very one of its name in the metadata of a mapped class."""
        self._refresh()
        plain = _plain(table)
        return any(metadata.tables.get(plain.key) is plain for metadata in self._metadata)


def _tables_of(known: tuple[Mapper[Any], ...]) -> Iterator[Table]:
    for mapper in known:
        yield from (table for table in mapper.tables if isinstance(table, Table))


def _owners(
    known: tuple[Mapper[Any], ...], tables: dict[Table, Mapper[Any] | None], metadata: tuple[Any, ...]
) -> dict[Table, Owner]:
    """The owner of each tenants' table, and of each table with a ``tenant_id`` that no class maps."""
    owners: dict[Table, Owner] = {}
    for mapper in known:
        if tenant_key(mapper) is not None:
            _inherited_owners(mapper, owners)
    for mapper in known:
        for relationship in mapper.relationships:
            secondary = relationship.secondary
            if isinstance(secondary, Table) and secondary in tables and secondary not in owners:
                owners[secondary] = Owner(references=tuple(_ends(relationship)))
    mapped = set(_tables_of(known))
    for each in metadata:
        for table in each.tables.values():
            if table not in mapped and table not in owners and "tenant_id" in table.columns:
                owners[table] = Owner(column=table.columns["tenant_id"])
    return owners


def _inherited_owners(mapper: Mapper[Any], owners: dict[Table, Owner]) -> None:
    """Note the owners of the class's tables: the one that names the tenant, those below it and those above it."""
    levels = _levels(mapper)
    names: list[Any] = [level.local_table for level in levels]
    column = tenant_column(mapper)
    place = names.index(column.table) if column.table in names else 0
    owners[column.table] = Owner(column=column)
    for below in range(place):
        pairs = tuple(_joined(levels[below], names[below + 1]))
        if names[below] not in owners:
            owners[names[below]] = Owner(references=(Reference(names[below + 1], pairs),) if pairs else ())
    reached = [(each, each) for each in column.table.primary_key.columns]
    for above in range(place + 1, len(names)):
        up = dict(_joined(levels[above - 1], names[above]))
        reached = [(up[here], there) for here, there in reached if here in up]
        held = owners.get(names[above], Owner())
        if held.column is None and not held.references:
            extension = (Reference(column.table, tuple(reached)), column)
            owners[names[above]] = Owner(extensions=(*held.extensions, extension))


def _levels(mapper: Mapper[Any]) -> list[Mapper[Any]]:
    """The levels of an inheritance that have a table each, from the class up to its root."""
    levels: list[Mapper[Any]] = []
    for level in mapper.iterate_to_root():
        if not isinstance(level.local_table, Table) or level.local_table not in mapper.tables:
            break
        if levels and levels[-1].local_table is level.local_table:
            levels[-1] = level  # single-table inheritance: the topmost class has the condition to the next table
        else:
            levels.append(level)
        if level.concrete:
            break
    return levels


def inherited_from(table: Table) -> list[tuple[Table, Any]]:
    """The tables above an inherited class's, the nearest first, each with what ties it to the one below."""
    mapper = TABLES.class_of(table)
    while mapper is not None and mapper.local_table is not table:
        mapper = mapper.inherits
    levels = [] if mapper is None else _levels(mapper)
    return [
        (above.local_table, below.inherit_condition)
        for below, above in pairwise(levels)
        if isinstance(above.local_table, Table)
    ]


def _joined(level: Mapper[Any], parent: Any) -> list[tuple[Column[Any], Column[Any]]]:
    """The columns of a level's table, each with the one of its parent's table that it is joined to."""
    return [(own, there) for there, own in joined_columns(level).items() if there.table is parent]


def _ends(relationship: RelationshipProperty[Any]) -> Iterator[Reference]:
    """The rows of tenants that a row between many and many names."""
    ends = (
        (relationship.parent, relationship.synchronize_pairs),
        (relationship.mapper, relationship.secondary_synchronize_pairs),
    )
    for mapper, columns in ends:
        if tenant_key(mapper) is None:
            continue
        by_table: dict[Any, list[tuple[Any, Any]]] = {}
        for there, here in columns or ():
            by_table.setdefault(there.table, []).append((here, there))
        for table, pairs in by_table.items():
            yield Reference(table, tuple(pairs))


def _plain(table: Table) -> Table:
    return table._deannotate() if table._annotations else table  # type: ignore[no-any-return, unused-ignore]


def _texts_of(mapper: Mapper[Any]) -> Iterator[str]:
    expressions: list[Any] = [expression for prop in mapper.column_attrs for expression in prop.columns]
    for relationship in mapper.relationships:
        order = relationship.order_by
        expressions += [relationship.primaryjoin, relationship.secondaryjoin]
        expressions += order if isinstance(order, (list, tuple)) else ()
    expressions.append(mapper.polymorphic_on)
    for expression in expressions:
        if expression is None:
            continue
        for element in visitors.iterate(expression):
            if isinstance(element, TextClause):
                yield element.text
            elif isinstance(element, ColumnClause) and element.is_literal:
                yield str(element.name)


TABLES = TenantTables()
