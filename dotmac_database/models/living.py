"""Uniqueness among the rows that are not soft-deleted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, Table, false, true
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql import ColumnElement

from ..errors import MisuseError

_LIVING = "dotmac_living"


class LivingUnique(SchemaItem):
    """A unique index on columns of the rows that are not deleted, so that a deleted e-mail can be used again.

    ``__table_args__ = (LivingUnique("email"),)``: within the tenant, where the table has one. ``tenant`` and
    ``deleted`` name the columns where they are not the mixins'; ``tenant=None`` makes it unique across tenants.
    `upsert` takes the columns as its ``conflict_fields``. Raises `ValidationError` where a column is missing.
    """

    __visit_name__ = "living_unique"

    def __init__(
        self, *columns: str, name: str | None = None, tenant: str | None = "tenant_id", deleted: str | None = None
    ) -> None:
        self.columns = columns
        self.name = name
        self.tenant = tenant
        self.deleted = deleted

    def _set_parent(self, parent: Any, **_: Any) -> None:
        table: Table = parent
        within = self.tenant is not None and self.tenant in table.c and self.tenant not in self.columns
        names = [*([self.tenant] if self.tenant is not None and within else []), *self.columns]
        unknown = next((name for name in names if name not in table.c), None)
        if unknown is not None or not self.columns:
            raise MisuseError(f"{table.name} has no column {unknown!r} to be unique.", field=unknown)
        alive = self._alive(table)
        name = self.name or f"uq_{table.name}_{'_'.join(self.columns)}_living"[:63]
        columns = [table.c[each] for each in names]
        made = Index(name, *columns, unique=True, postgresql_where=alive, sqlite_where=alive, _table=table)
        made.info[_LIVING] = alive
        if self.tenant is None:
            made.info["across_tenants"] = True  # the check of tenants' keys need not ask

    def _alive(self, table: Table) -> ColumnElement[bool]:
        """What repositories ask of the rows that they read, so that the planner knows the index by it."""
        name = self.deleted or next((each for each in ("is_deleted", "deleted_at") if each in table.c), None)
        if name is None or name not in table.c:
            raise MisuseError(f"{table.name} has no column that says whether a row is deleted.", field=self.deleted)
        mark = table.c[name]
        if mark.type.python_type is not bool:
            return mark.is_(None)
        return mark.is_not(true()) if mark.nullable else mark == false()


def living_condition(index: Index) -> ColumnElement[bool] | None:
    """The condition of an index that `LivingUnique` has made; None for any other."""
    condition: ColumnElement[bool] | None = index.info.get(_LIVING)
    return condition
