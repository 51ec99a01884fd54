"""The tables that hold tenants' rows, as the mapped classes tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

from sqlalchemy import Column, Table, event
from sqlalchemy.orm import Mapper, RelationshipProperty, configure_mappers
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause

from ..models.inheritance import joined_columns
from ..models.traits import tenant_key, traits_of
from ..sqlalchemy_internals import all_mappers
from .values import kind_of


def tenant_column(mapper: Mapper[Any]) -> Column[Any]:
    """The column that names the tenant of a tenant-scoped class; a parent's table may have it.

    Of a class that is mapped on a select it is the column of the table below; of a union, that of the first by name.
    """
    return _tenant_columns(mapper)[0]


def _tenant_columns(mapper: Mapper[Any]) -> list[Column[Any]]:
    traits = traits_of(mapper.class_)
    column: Any = traits.columns[traits.tenant or ""]
    if isinstance(column.table, Table):
        return [column]
    below = [each for each in column.base_columns if isinstance(getattr(each, "table", None), Table)]
    return sorted(below, key=lambda each: each.table.fullname) or [column]


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


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What the classes that are mapped at a moment tell: one object, so that no thread sees a part of it."""

    change: int = -1
    tables: Mapping[Table, tuple[Mapper[Any], ...]] = field(default_factory=dict)
    owners: Mapping[Table, Owner] = field(default_factory=dict)
    metadata: tuple[Any, ...] = ()
    roots: tuple[Mapper[Any], ...] = ()
    kinds: Mapping[type, Column[Any]] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()


class TenantTables:
    """The tables of tenant-scoped classes, kept up to date as classes are mapped.

    What is known is read anew, as a whole, after each change; until that has succeeded every question raises. A guard
    that went on with what it knows in part would let the rest through.
    """

    def __init__(self) -> None:
        self._changes = count()
        self._change = next(self._changes)
        self._known = _Known()
        event.listen(Mapper, "after_mapper_constructed", self._grow)

    def _grow(self, *_: Any) -> None:
        self._change = next(self._changes)

    def _now(self) -> _Known:
        known = self._known
        while known.change != self._change:
            configure_mappers()
            known = self._known = _read(self._change)
        return known

    def current(self) -> int:
        """A number that changes when classes are mapped."""
        return self._now().change

    @property
    def version(self) -> int:
        """As `current`, of what was last read."""
        return self._known.change

    @property
    def roots(self) -> tuple[Mapper[Any], ...]:
        """The mappers that own a tenant column, the topmost of each inheritance tree."""
        return self._now().roots

    @property
    def kinds(self) -> Mapping[type, Column[Any]]:
        """The Python types of the tenants' names, and a column of each."""
        return self._now().kinds

    @property
    def texts(self) -> frozenset[str]:
        """The fragments of SQL that the classes themselves were written with, which are the programmer's own."""
        return self._now().texts

    def classes_of(self, table: Table) -> tuple[Mapper[Any], ...]:
        """The mappers of a tenants' table, those whose own table it is before those that inherit it."""
        return self._now().tables.get(_plain(table), ())

    def table(self, element: Any) -> Table | None:
        """The tenants' table that ``element`` is, or None."""
        plain = _plain(element) if isinstance(element, Table) else None
        return plain if plain in self._now().tables else None

    def owner(self, table: Table) -> Owner | None:
        """How the tenant of the table's rows is known; None: they belong to no tenant."""
        return self._now().owners.get(_plain(table))

    def knows(self, table: Table) -> bool:
        """Whether a table is the very one of its name in the metadata of a mapped class."""
        plain = _plain(table)
        return any(metadata.tables.get(plain.key) is plain for metadata in self._now().metadata)


def _read(change: int) -> _Known:
    known = tuple(sorted(all_mappers(), key=_rank))
    scoped = [mapper for mapper in known if tenant_key(mapper) is not None]
    tables: dict[Table, tuple[Mapper[Any], ...]] = {}
    for mapper in scoped:
        of_tables = isinstance(mapper.local_table, Table)
        for table in _tables_of((mapper,)):
            tables[table] = (*tables.get(table, ()), *([mapper] if of_tables else []))
        for relationship in mapper.relationships:
            if isinstance(relationship.secondary, Table):
                tables.setdefault(relationship.secondary, ())
    for table, of in tables.items():
        tables[table] = tuple(sorted(of, key=lambda each: each.local_table is not table))
    roots = tuple(mapper for mapper in scoped if mapper.inherits is None or tenant_key(mapper.inherits) is None)
    metadata = tuple({id(table.metadata): table.metadata for table in _tables_of(known)}.values())
    kinds: dict[type, Column[Any]] = {}
    for column in map(tenant_column, roots):
        kinds.setdefault(kind_of(column), column)
    return _Known(
        change,
        tables,
        _owners(known, tables, metadata),
        metadata,
        roots,
        kinds,
        frozenset(text for mapper in known for text in _texts_of(mapper)),
    )


def _rank(mapper: Mapper[Any]) -> tuple[int, str, str]:
    """An order that is the same in each process: registries hold their classes in sets."""
    return len(list(mapper.iterate_to_root())), mapper.class_.__module__, mapper.class_.__qualname__


def _tables_of(known: tuple[Mapper[Any], ...]) -> Iterator[Table]:
    for mapper in known:
        yield from (table for table in mapper.tables if isinstance(table, Table))


def _owners(
    known: tuple[Mapper[Any], ...], tables: Mapping[Table, Any], metadata: tuple[Any, ...]
) -> dict[Table, Owner]:
    """The owner of each tenants' table, and of each table with a ``tenant_id`` that no class maps."""
    owners: dict[Table, Owner] = {}
    scoped = [mapper for mapper in known if tenant_key(mapper) is not None]
    for mapper in scoped:
        if isinstance(mapper.local_table, Table):
            _inherited_owners(mapper, owners)
    shared = {mapper.local_table for mapper in known if tenant_key(mapper) is None}
    for mapper in scoped:
        if not isinstance(mapper.local_table, Table):
            _selected_owners(mapper, shared, owners)
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


def _selected_owners(mapper: Mapper[Any], shared: set[Any], owners: dict[Table, Owner]) -> None:
    """Note the owners of the tables below a class that is mapped on a select or a join, where no other class tells.

    A table that names the tenant is so owned; one that refers to such a table, and is no other class's, belongs to
    whom the rows belong that it names.
    """
    for column in _tenant_columns(mapper):
        owners.setdefault(column.table, Owner(column=column))
    waiting = [table for table in _tables_of((mapper,)) if table not in owners and table not in shared]
    for _ in range(len(waiting)):
        for table in [each for each in waiting if each not in owners]:
            keys = sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns])
            key = next((each for each in keys if each.referred_table in owners), None)
            if key is not None and key.referred_table in mapper.tables:
                pairs = tuple((element.parent, element.column) for element in key.elements)
                owners[table] = Owner(references=(Reference(key.referred_table, pairs),))


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


def inherited_from(table: Table) -> list[list[tuple[Table, Any]]]:
    """The ways up from a table: of each the tables above, the nearest first, with what ties it to the one below.

    There is one where one inheritance has the table, and several where other classes are mapped on it besides.
    """
    ways: list[list[tuple[Table, Any]]] = []
    for mapper in TABLES.classes_of(table):
        own: Mapper[Any] | None = mapper
        while own is not None and own.local_table is not table:
            own = own.inherits
        levels = [] if own is None else _levels(own)
        way = [
            (above.local_table, below.inherit_condition)
            for below, above in pairwise(levels)
            if isinstance(above.local_table, Table)
        ]
        if way and [each for each, _ in way] not in [[each for each, _ in other] for other in ways]:
            ways.append(way)
    return ways


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
