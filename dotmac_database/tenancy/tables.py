"""The tables that contain tenants' rows, derived from the mapped classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

from sqlalchemy import Column, FromClause, MetaData, Table, event
from sqlalchemy.orm import Mapper, RelationshipProperty, configure_mappers
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, ColumnElement, TextClause

from ..history.tables import source_of, tenant_of
from ..models.inheritance import joined_columns
from ..models.traits import tenant_key, traits_of
from ..sqlalchemy_internals import all_mappers, without_annotations
from .values import kind_of


def tenant_column(mapper: Mapper[object]) -> Column[object]:
    """The tenant column of a tenant-scoped class, which can be in a parent's table.

    If the class is mapped to a select, it is the column of the table that the select reads; if it is mapped to a union,
    that of the first table by name.
    """
    return _tenant_columns(mapper)[0]


def _tenant_columns(mapper: Mapper[object]) -> list[Column[object]]:
    traits = traits_of(mapper.class_)
    column: Any = traits.columns[traits.tenant or ""]
    if isinstance(column.table, Table):
        return [column]
    columns = [each for each in column.base_columns if isinstance(getattr(each, "table", None), Table)]
    return sorted(columns, key=lambda each: each.table.fullname) or [column]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A reference to a row in ``table``. ``pairs`` are (referencing column, referenced column)."""

    table: Table
    pairs: tuple[tuple[Column[object], Column[object]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """How to find the tenant of a table's rows.

    There are three kinds of tables:

    - ``column`` is the tenant column, if the table has one.
    - With ``references``, the rows belong to the tenant of the referenced rows. In a joined child's table this is the
      parent's row; in an association table these are the rows at both ends.
    - With ``extensions``, the table is a parent's table without a tenant column, and tables of joined children have the
      tenant column. A row that a child's row extends belongs to the tenant of the child's row; all other rows are
      shared. An extension is the reference from a parent's row to the child's row, and the child's tenant column.
    """

    column: Column[object] | None = None
    references: tuple[Reference, ...] = ()
    extensions: tuple[tuple[Reference, Column[object]], ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether the table contains tenants' rows, but nothing tells which row belongs to which tenant."""
        return self.column is None and not self.references and not self.extensions


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    """Everything derived from the mapped classes at one time. It is immutable, so that no thread sees a partial state.

    ``change`` is the number of the state, ``tables`` are the tenants' tables with their mappers, and ``kinds`` are the
    Python types of the tenant columns. The other fields have the same names as the properties of `TenantTables`, which
    describe them.
    """

    change: int = -1
    tables: Mapping[Table, tuple[Mapper[object], ...]] = field(default_factory=dict)
    owners: Mapping[Table, Owner] = field(default_factory=dict)
    metadata: tuple[MetaData, ...] = ()
    roots: tuple[Mapper[object], ...] = ()
    kinds: Mapping[type, Column[object]] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()


class TenantTables:
    """The tables of tenant-scoped classes.

    After a class has been mapped, the next call derives everything again. If that fails, every method raises until it
    succeeds, because a guard with incomplete information would not confine some statements.
    """

    def __init__(self) -> None:
        self._changes = count()
        self._change = next(self._changes)
        self._snapshot = _Snapshot()
        event.listen(Mapper, "after_mapper_constructed", self._on_new_mapper)

    def _on_new_mapper(self, *_: object) -> None:
        self._change = next(self._changes)

    def _current_snapshot(self) -> _Snapshot:
        snapshot = self._snapshot
        while snapshot.change != self._change:
            configure_mappers()
            snapshot = self._snapshot = _derive(self._change)
        return snapshot

    def current(self) -> int:
        """A number that changes when classes are mapped."""
        return self._current_snapshot().change

    @property
    def version(self) -> int:
        """The number that `current` returned last, without an update."""
        return self._snapshot.change

    @property
    def roots(self) -> tuple[Mapper[object], ...]:
        """The topmost mapper with a tenant column in each inheritance tree."""
        return self._current_snapshot().roots

    @property
    def kinds(self) -> Mapping[type, Column[object]]:
        """The Python types of the tenant columns, each with one tenant column of this type."""
        return self._current_snapshot().kinds

    @property
    def texts(self) -> frozenset[str]:
        """The SQL texts in the mappings of the classes, which the programmer wrote and are therefore trusted."""
        return self._current_snapshot().texts

    def classes_of(self, table: Table) -> tuple[Mapper[object], ...]:
        """The mappers that use a tenants' table: first those with it as their own table, then those that inherit it."""
        return self._current_snapshot().tables.get(without_annotations(table), ())

    def table(self, element: object) -> Table | None:
        """``element`` without annotations, if it is a tenants' table; else None."""
        plain = without_annotations(element) if isinstance(element, Table) else None
        return plain if plain in self._current_snapshot().tables else None

    def owner(self, table: Table) -> Owner | None:
        """How to find the tenant of the table's rows; None: they belong to no tenant."""
        return self._current_snapshot().owners.get(without_annotations(table))

    def stored_owner(self, table: Table) -> Owner | None:
        """As `owner`, also for a table with a ``tenant_id`` that no class with a tenant maps."""
        owner = self.owner(table)
        if owner is None and "tenant_id" in table.columns:
            return Owner(column=table.columns["tenant_id"])
        return owner

    def knows(self, table: Table) -> bool:
        """Whether the metadata of a mapped class contains this table, and not another object with the same name."""
        plain = without_annotations(table)
        return any(metadata.tables.get(plain.key) is plain for metadata in self._current_snapshot().metadata)


def _derive(change: int) -> _Snapshot:
    every = tuple(sorted(all_mappers(), key=_rank))
    scoped = [mapper for mapper in every if tenant_key(mapper) is not None]
    tables: dict[Table, tuple[Mapper[object], ...]] = {}
    for mapper in scoped:
        has_table = isinstance(mapper.local_table, Table)
        for table in _tables_of((mapper,)):
            tables[table] = (*tables.get(table, ()), *([mapper] if has_table else []))
        for relationship in mapper.relationships:
            if isinstance(relationship.secondary, Table):
                tables.setdefault(relationship.secondary, ())
    for table, users in tables.items():
        tables[table] = tuple(sorted(users, key=lambda each: each.local_table is not table))
    roots = tuple(mapper for mapper in scoped if mapper.inherits is None or tenant_key(mapper.inherits) is None)
    metadata = tuple({id(table.metadata): table.metadata for table in _tables_of(every)}.values())
    kinds: dict[type, Column[object]] = {}
    for column in map(tenant_column, roots):
        kinds.setdefault(kind_of(column), column)
    return _Snapshot(
        change,
        tables,
        _owners(every, tables, metadata),
        metadata,
        roots,
        kinds,
        frozenset(text for mapper in every for text in _texts_of(mapper)),
    )


def _rank(mapper: Mapper[object]) -> tuple[int, str, str]:
    """A sort key that gives the same order in each process, because registries store their classes in sets."""
    return len(list(mapper.iterate_to_root())), mapper.class_.__module__, mapper.class_.__qualname__


def _tables_of(mappers_: tuple[Mapper[object], ...]) -> Iterator[Table]:
    for mapper in mappers_:
        yield from (table for table in mapper.tables if isinstance(table, Table))


def _owners(
    every: tuple[Mapper[object], ...], tables: Mapping[Table, object], metadata: tuple[MetaData, ...]
) -> dict[Table, Owner]:
    """The owner of each tenants' table, its history, and each table with a ``tenant_id`` that no class maps."""
    owners: dict[Table, Owner] = {}
    scoped = [mapper for mapper in every if tenant_key(mapper) is not None]
    for mapper in scoped:
        if isinstance(mapper.local_table, Table):
            _inherited_owners(mapper, owners)
    shared = {mapper.local_table for mapper in every if tenant_key(mapper) is None}
    for mapper in scoped:
        if not isinstance(mapper.local_table, Table):
            _selected_owners(mapper, shared, owners)
    for mapper in every:
        for relationship in mapper.relationships:
            secondary = relationship.secondary
            if isinstance(secondary, Table) and secondary in tables and secondary not in owners:
                owners[secondary] = Owner(references=tuple(_ends(relationship)))
    mapped = set(_tables_of(every))
    for each in metadata:
        for table in each.tables.values():
            source = source_of(table)
            tenant = None if source is None else tenant_of(source)
            if tenant is not None:
                owners[table] = Owner(column=table.columns[tenant.name])
            elif table not in mapped and table not in owners and "tenant_id" in table.columns:
                owners[table] = Owner(column=table.columns["tenant_id"])
    return owners


def _inherited_owners(mapper: Mapper[object], owners: dict[Table, Owner]) -> None:
    """Add the owners of a class's tables: the table with the tenant column, its children's tables and its parents'."""
    levels = _levels(mapper)
    names: list[Any] = [level.local_table for level in levels]
    column = tenant_column(mapper)
    place = names.index(column.table) if column.table in names else 0
    owners[column.table] = Owner(column=column)
    for below in range(place):
        pairs = tuple(_joined(levels[below], names[below + 1]))
        if names[below] not in owners:
            owners[names[below]] = Owner(references=(Reference(names[below + 1], pairs),) if pairs else ())
    pairs_above = [(each, each) for each in column.table.primary_key.columns]
    for above in range(place + 1, len(names)):
        up = dict(_joined(levels[above - 1], names[above]))
        pairs_above = [(up[here], there) for here, there in pairs_above if here in up]
        owner = owners.get(names[above], Owner())
        if owner.column is None and not owner.references:
            extension = (Reference(column.table, tuple(pairs_above)), column)
            owners[names[above]] = Owner(extensions=(*owner.extensions, extension))


def _selected_owners(mapper: Mapper[object], shared: set[FromClause], owners: dict[Table, Owner]) -> None:
    """Add the owners of the tables that a class mapped to a select or a join reads, if they are not known yet.

    First come the tables with the tenant column. Then the rows of each table that has a foreign key to a table with a
    known owner, and that no shared class maps, belong to the tenant of the referenced rows.
    """
    for column in _tenant_columns(mapper):
        owners.setdefault(column.table, Owner(column=column))
    pending = [table for table in _tables_of((mapper,)) if table not in owners and table not in shared]
    for _ in range(len(pending)):
        for table in [each for each in pending if each not in owners]:
            keys = sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns])
            key = next((each for each in keys if each.referred_table in owners), None)
            if key is not None and key.referred_table in mapper.tables:
                pairs = tuple((element.parent, element.column) for element in key.elements)
                owners[table] = Owner(references=(Reference(key.referred_table, pairs),))


def _levels(mapper: Mapper[object]) -> list[Mapper[object]]:
    """The classes of an inheritance that have their own table, from the class up to its root."""
    levels: list[Mapper[object]] = []
    for level in mapper.iterate_to_root():
        if not isinstance(level.local_table, Table) or level.local_table not in mapper.tables:
            break
        if levels and levels[-1].local_table is level.local_table:
            levels[-1] = level  # single-table inheritance: the topmost class has the join condition to the next table
        else:
            levels.append(level)
        if level.concrete:
            break
    return levels


def inherited_from(table: Table) -> list[list[tuple[Table, ColumnElement[bool]]]]:
    """The tables of the parent classes, each with the condition that joins it to its child's table, nearest first.

    It is a list of such chains: usually one, but several if classes with different parents are mapped to the table.
    """
    chains: list[list[tuple[Table, ColumnElement[bool]]]] = []
    for mapper in TABLES.classes_of(table):
        own: Mapper[object] | None = mapper
        while own is not None and own.local_table is not table:
            own = own.inherits
        levels = [] if own is None else _levels(own)
        chain: list[tuple[Table, ColumnElement[bool]]] = [
            (above.local_table, below.inherit_condition)  # type: ignore[misc]  # it joins a child's own table
            for below, above in pairwise(levels)
            if isinstance(above.local_table, Table)
        ]
        if chain and [each for each, _ in chain] not in [[each for each, _ in other] for other in chains]:
            chains.append(chain)
    return chains


def _joined(level: Mapper[object], parent: FromClause) -> list[tuple[Column[object], Column[object]]]:
    """The columns by which a class's table is joined to its parent's table, as pairs of (child's, parent's)."""
    return [(own, there) for there, own in joined_columns(level).items() if there.table is parent]


def _ends(relationship: RelationshipProperty[object]) -> Iterator[Reference]:
    """The references from an association table's row to tenants' rows."""
    ends = (
        (relationship.parent, relationship.synchronize_pairs),
        (relationship.mapper, relationship.secondary_synchronize_pairs),
    )
    for mapper, columns in ends:
        if tenant_key(mapper) is None:
            continue
        by_table: dict[Table, list[tuple[Any, Any]]] = {}
        for there, here in columns or ():
            by_table.setdefault(there.table, []).append((here, there))
        for table, pairs in by_table.items():
            yield Reference(table, tuple(pairs))


def _texts_of(mapper: Mapper[object]) -> Iterator[str]:
    """The SQL texts and literal columns in the mapping of a class."""
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
