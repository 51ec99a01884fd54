"""All classes that are mapped in this process."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.orm import Mapper, configure_mappers
from sqlalchemy.orm.mapper import _all_registries


def mappers() -> list[Mapper[Any]]:
    """The mappers of all registries."""
    return [mapper for registry in _all_registries() for mapper in registry.mappers]


def mapped_tables() -> list[Table]:
    """The distinct tables of all mapped classes, and the association tables of their relationships."""
    configure_mappers()
    tables: dict[Table, None] = {}
    for mapper in mappers():
        tables.update((table, None) for table in mapper.tables if isinstance(table, Table))
        for relationship in mapper.relationships:
            if isinstance(relationship.secondary, Table):
                tables[relationship.secondary] = None
    return sorted(tables, key=lambda table: table.fullname)
