"""In which order tables are written, so that a row's foreign keys find their rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ForeignKeyConstraint, Table

from .holdings import Holding, Holdings, resolves


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Parents before children; the reverse is the order of deletion.

    ``later`` are the columns, by table, that are NULL while rows are inserted, and set when all rows of the cycle are
    there. ``together`` are the cycles that have no such column: they need one transaction in which the database checks
    foreign keys at the commit. ``whole`` are the tables that reference themselves and have neither: one statement must
    write all rows. ``atomic`` are the tables that an import writes in one transaction: those of ``together``, and a
    parent's table with the children's tables that say whose its rows are, since they are nobody's without them.
    ``unbreakable`` are the cycles of several tables that have neither.
    """

    tables: tuple[Table, ...]
    later: Mapping[Table, frozenset[str]]
    together: tuple[frozenset[Table], ...]
    whole: frozenset[Table]
    atomic: tuple[frozenset[Table], ...]
    unbreakable: tuple[frozenset[Table], ...]


def order_of(holdings: Holdings, defers: Callable[[bool | None], bool]) -> Order:
    """The order of the tables. ``defers``: whether the database can defer the check of a foreign key."""
    keys = {table: _keys(holding, holdings) for table, holding in holdings.by_table.items()}
    fixed = {table: _fixed(holding, holdings) for table, holding in holdings.by_table.items()}
    later: dict[Table, set[str]] = {}
    together: list[frozenset[Table]] = []
    whole: set[Table] = set()
    unbreakable: list[frozenset[Table]] = []
    for table, own in keys.items():  # a table that references itself
        for key in [each for each in own if each.referred_table is table]:
            own.remove(key)
            nullable = _breakable(key, holdings.by_table[table])
            if nullable:
                later.setdefault(table, set()).update(nullable)
            elif defers(key.deferrable):
                together.append(frozenset((table,)))
            else:
                whole.add(table)
    ordered: list[Table] = []
    remaining = sorted(keys, key=lambda each: each.fullname)
    while remaining:
        parents = {each: _parents(each, keys, fixed) & set(remaining) for each in remaining}
        ready = [each for each in remaining if not parents[each]]
        if not ready:
            cycle = _cycle(parents)
            broken = _break(cycle, keys, holdings, later)
            if broken:
                continue
            inner = [key for each in cycle for key in keys[each] if key.referred_table in cycle]
            (together if all(defers(key.deferrable) for key in inner) else unbreakable).append(frozenset(cycle))
            ready = sorted(cycle, key=lambda each: each.fullname)
        ordered += ready
        remaining = [each for each in remaining if each not in ready]
    columns_later = {table: frozenset(names) for table, names in later.items()}
    atomic = _merged([*together, *_extended(holdings)])
    return Order(tuple(ordered), columns_later, tuple(together), frozenset(whole), atomic, tuple(unbreakable))


def _extended(holdings: Holdings) -> list[frozenset[Table]]:
    """The parents' tables whose rows belong to the tenant of a child's row, each with the children's tables."""
    return [
        frozenset((table, *(reference.table for reference, _ in holding.owner.extensions)))
        for table, holding in holdings.by_table.items()
        if holding.owner.extensions
    ]


def _merged(groups: Iterable[frozenset[Table]]) -> tuple[frozenset[Table], ...]:
    """The groups, those with a common table as one."""
    merged: list[frozenset[Table]] = []
    for group in groups:
        common = [each for each in merged if each & group]
        merged = [*(each for each in merged if each not in common), group.union(*common)]
    return tuple(merged)


def _keys(holding: Holding, holdings: Holdings) -> list[ForeignKeyConstraint]:
    keys = (each for each in holding.table.foreign_key_constraints if resolves(each))
    return [each for each in keys if each.referred_table in holdings.by_table]


def _fixed(holding: Holding, holdings: Holdings) -> frozenset[Table]:
    """The tables that come before, because the tenant of a row is found through them.

    The tenant of a parent's row can be found through a child's row that extends it. So what references the parent's row
    is written after the child's row, and deleted before it.
    """
    tables = {each.table for each in holding.owner.references}
    if holding.source is not None:
        tables.add(holding.source)
    referred = tables | {each.referred_table for each in _keys(holding, holdings)}
    for parent in [holdings.by_table[each] for each in referred if each in holdings.by_table]:
        extensions = {reference.table for reference, _ in parent.owner.extensions}
        if holding.table not in extensions:
            tables |= extensions
    return frozenset(each for each in tables if each in holdings.by_table and each is not holding.table)


def _parents(
    table: Table, keys: Mapping[Table, Collection[ForeignKeyConstraint]], fixed: Mapping[Table, frozenset[Table]]
) -> set[Table]:
    return {each.referred_table for each in keys[table]} | fixed[table]


def _breakable(key: ForeignKeyConstraint, holding: Holding) -> list[str]:
    """The columns of a foreign key that can be NULL for a while."""
    if not holding.key:
        return []
    columns = [each for each in key.columns if each.nullable and not each.primary_key]
    return [each.name for each in columns if each is not holding.owner.column and each.computed is None]


def _break(
    cycle: Iterable[Table],
    keys: Mapping[Table, list[ForeignKeyConstraint]],
    holdings: Holdings,
    later: dict[Table, set[str]],
) -> bool:
    """Take one foreign key out of a cycle, the first that can be NULL. Returns whether there was one."""
    inside = set(cycle)
    for table in sorted(inside, key=lambda each: each.fullname):
        owned = {each.table for each in holdings.by_table[table].owner.references}
        for key in sorted(keys[table], key=lambda each: [column.name for column in each.columns]):
            columns = _breakable(key, holdings.by_table[table])
            if key.referred_table in inside and columns and key.referred_table not in owned:
                keys[table].remove(key)
                later.setdefault(table, set()).update(columns)
                return True
    return False


def _cycle(parents: Mapping[Table, Collection[Table]]) -> set[Table]:
    """The tables of one cycle that depends on no other: each of them reaches each other."""
    reached = {table: _reach(table, parents) for table in parents}
    cycles = [
        {other for other in reached[table] if table in reached[other]} for table in parents if table in reached[table]
    ]
    return min(
        cycles, key=lambda each: (len(set().union(*(reached[table] for table in each))), min(t.fullname for t in each))
    )


def _reach(table: Table, parents: Mapping[Table, Collection[Table]]) -> set[Table]:
    reached: set[Table] = set()
    pending = list(parents[table])
    while pending:
        each = pending.pop()
        if each not in reached:
            reached.add(each)
            pending.extend(parents.get(each, ()))
    return reached
