"""Confines the subselects in a user's condition to the tenant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Alias, Join, Select, Table, literal
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.visitors import replacement_traverse

from ..sqlalchemy_internals import without_annotations
from ..tenancy.context import ALL_TENANTS
from ..tenancy.tables import TABLES
from ..tenancy.values import column_value


def confined_subselects(condition: ColumnElement[bool], tenant: object) -> ColumnElement[bool]:
    """A user's condition whose subselects read only rows of the tenant, also in a session that is not guarded."""
    if tenant is None or tenant is ALL_TENANTS:
        return condition

    traverse: Any = replacement_traverse  # its overloads take none of SQLAlchemy's own base classes

    def confined(select_: Any) -> Any:
        def below(part: Any, **_: object) -> Any:
            return confined(part) if isinstance(part, Select) and part is not select_ else None

        inner: Any = traverse(select_, {}, below)
        return inner.where(*_owned(inner.get_final_froms(), tenant))

    def replaced(part: Any, **_: object) -> Any:
        return confined(part) if isinstance(part, Select) else None

    changed: ColumnElement[bool] = traverse(condition, {}, replaced)
    return changed


def _owned(sources: Iterable[Any], tenant: object) -> Iterator[ColumnElement[bool]]:
    """The conditions that the rows of these tables, aliases and joins are the tenant's."""
    for source in sources:
        if isinstance(source, Join):
            yield from _owned((source.left, source.right), tenant)
            continue
        table = without_annotations(source.element if isinstance(source, Alias) else source)
        owner = TABLES.owner(table) if isinstance(table, Table) else None
        if owner is not None and owner.column is not None:
            yield source.c[owner.column.key] == literal(column_value(tenant, owner.column), owner.column.type)
