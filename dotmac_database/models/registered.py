"""All classes that are mapped in this process."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.orm import configure_mappers

from ..sqlalchemy_internals import all_mappers


def mapped_classes() -> list[type]:
    """The mapped classes, by name."""
    configure_mappers()
    return sorted((mapper.class_ for mapper in all_mappers()), key=lambda each: (each.__name__, each.__module__))


def mapped_tables() -> list[Table]:
    """The distinct tables of all mapped classes, and the association tables of their relationships."""
    configure_mappers()
    tables: dict[Table, None] = {}
    for mapper in all_mappers():
        tables.update((table, None) for table in mapper.tables if isinstance(table, Table))
        for relationship in mapper.relationships:
            if isinstance(relationship.secondary, Table):
                tables[relationship.secondary] = None
    return sorted(tables, key=lambda table: table.fullname)
