"""The tables that hold tenants' rows, as the mapped classes tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Table, event
from sqlalchemy.orm import Mapper, configure_mappers
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.selectable import TableClause

from ..models.registered import mappers
from ..models.traits import tenant_key, traits_of
from .values import kind_of


def tenant_column(mapper: Mapper[Any]) -> Column[Any]:
    """The column that names the tenant of a tenant-scoped class; a parent's table may have it."""
    traits = traits_of(mapper.class_)
    return traits.columns[traits.tenant or ""]


class TenantTables:
    """The tables of tenant-scoped classes, kept up to date as classes are mapped.

    ``tables`` names the class of each; the tables between many and many, which have none, have None.
    ``texts`` are the fragments of SQL that the classes themselves were written with.
    """

    def __init__(self) -> None:
        self._stale = True
        self._kinds: dict[type, Column[Any]] = {}
        self._mappers: tuple[Mapper[Any], ...] = ()
        self._tables: dict[Table, Mapper[Any] | None] = {}
        self._names: frozenset[str] = frozenset()
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
        self._names = frozenset(table.name.lower() for table in tables)
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

    def owns(self, element: Any) -> str | None:
        """The name of the tenants' table that ``element`` is, or stands for by its name; else None."""
        table = self.table(element)
        if table is not None:
            return str(table.name)
        if isinstance(element, TableClause) and element.name.lower() in self._names and not self._apart(element):
            return str(element.name)
        return None

    def _apart(self, element: TableClause) -> bool:
        """Whether a table is another than the tenants' of its name: one of a class that no tenant owns."""
        return isinstance(element, Table) and any(
            _plain(element) in mapper.tables for mapper in self._mappers if tenant_key(mapper) is None
        )


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
