"""Unique indexes over rows that are not soft-deleted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, Table, false, true
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql import ColumnElement

from ..errors import MisuseError

_LIVING = "dotmac_living"


class LivingUnique(SchemaItem):
    """A unique index over the rows that are not soft-deleted, so that the e-mail of a deleted row can be used again.

    With ``__table_args__ = (LivingUnique("email"),)`` the e-mail is unique within the tenant, if the table has a tenant
    column. ``tenant`` and ``deleted`` name the columns if they differ from the mixins'. With ``tenant=None`` the e-mail
    is unique across tenants. `upsert` accepts the columns as ``conflict_fields``. Raises `ValidationError` if a column
    is missing.
    """

    __visit_name__ = "living_unique"

    def __init__(
        self, *columns: str, name: str | None = None, tenant: str | None = "tenant_id", deleted: str | None = None
    ) -> None:
        self.columns = columns
        self.name = name
        self.tenant = tenant
        self.deleted = deleted

    def _set_parent(self, parent: Any, **_: object) -> None:
        table: Table = parent
        adds_tenant = self.tenant is not None and self.tenant in table.c and self.tenant not in self.columns
        names = [*([self.tenant] if self.tenant is not None and adds_tenant else []), *self.columns]
        unknown = next((name for name in names if name not in table.c), None)
        if unknown is not None or not self.columns:
            raise MisuseError(f"{table.name} has no column {unknown!r} for LivingUnique.", field=unknown)
        alive = self._alive(table)
        name = self.name or f"uq_{table.name}_{'_'.join(self.columns)}_living"[:63]
        columns = [table.c[each] for each in names]
        index = Index(name, *columns, unique=True, postgresql_where=alive, sqlite_where=alive, _table=table)
        index.info[_LIVING] = alive
        if self.tenant is None:
            index.info["across_tenants"] = True  # `check_tenant_keys` skips this index

    def _alive(self, table: Table) -> ColumnElement[bool]:
        """The same condition as in the statements of repositories, so that the planner can use the index."""
        name = self.deleted or next((each for each in ("is_deleted", "deleted_at") if each in table.c), None)
        if name is None or name not in table.c:
            raise MisuseError(f"{table.name} has no column that marks a row as deleted.", field=self.deleted)
        mark = table.c[name]
        if mark.type.python_type is not bool:
            return mark.is_(None)
        return mark.is_not(true()) if mark.nullable else mark == false()


def living_condition(index: Index) -> ColumnElement[bool] | None:
    """The condition of an index that `LivingUnique` has created; None for other indexes."""
    condition: ColumnElement[bool] | None = index.info.get(_LIVING)
    return condition
