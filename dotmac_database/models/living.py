"""Which rows are not soft-deleted, and unique indexes over these rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Column, Index, Integer, Table, false, literal_column, true
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql import ColumnElement

from ..errors import MisuseError
from ..types import undecorated
from .table_columns import ColumnName, column_in

_LIVING = "dotmac_living"


class _Living(NamedTuple):
    """What `LivingUnique` notes about its index: the column that marks deleted rows, and the index's condition."""

    mark: Column[Any]
    condition: ColumnElement[bool]


def not_deleted(mark: ColumnElement[Any], *, nullable: bool) -> ColumnElement[bool]:
    """The condition that a row is not soft-deleted. ``mark`` is the column or attribute that marks deleted rows.

    A Boolean marks a row by being true, an integer by being 1. A column of another type, such as a time, marks a row by
    not being NULL. All statements and all indexes have the same condition, so that the planner can use the indexes.
    """
    kind = undecorated(mark.type)
    if isinstance(kind, Boolean):
        return mark.is_not(true()) if nullable else mark == false()
    if isinstance(kind, Integer):
        # Literals, since a planner does not compare a parameter with the condition of an index.
        return mark.is_distinct_from(literal_column("1")) if nullable else mark == literal_column("0")
    return mark.is_(None)


def flag_value(mark: Column[Any], *, deleted: bool) -> bool | int:
    """The value of the column ``is_deleted``. For an integer it is 0 or 1, since psycopg sends a bool as a BOOLEAN."""
    return int(deleted) if isinstance(mark.type, Integer) else deleted


class LivingUnique(SchemaItem):
    """A unique index over the rows that are not soft-deleted, so that the e-mail of a deleted row can be used again.

    With ``__table_args__ = (LivingUnique("email"),)`` the e-mail is unique within the tenant, if the table has a tenant
    column. In the body of a declarative class, a column can also be given itself (``LivingUnique(email)``). ``tenant``
    and ``deleted`` name the columns if they differ from the mixins'. With ``tenant=None`` the e-mail is unique across
    tenants. `upsert` accepts the columns as ``conflict_fields``. Raises `ValidationError` if a column is missing or no
    column is named. The first use of the mapped class raises it if its reads look at another column.
    """

    __visit_name__ = "living_unique"

    def __init__(
        self,
        *columns: ColumnName,
        name: str | None = None,
        tenant: ColumnName | None = "tenant_id",
        deleted: ColumnName | None = None,
    ) -> None:
        self.columns = columns
        self.name = name
        self.tenant = tenant
        self.deleted = deleted

    def _set_parent(self, parent: Any, **_: object) -> None:
        table: Table = parent
        if not self.columns:
            raise MisuseError(f"{table.name}: LivingUnique needs the name of a column.")
        columns = [column_in(table, each, "LivingUnique") for each in self.columns]
        names = [each.name for each in columns]
        if self.tenant is not None and (not isinstance(self.tenant, str) or self.tenant in table.c):
            owner = column_in(table, self.tenant, "LivingUnique")
            columns = columns if owner.name in names else [owner, *columns]
        mark = self._mark(table)
        condition = not_deleted(mark, nullable=bool(mark.nullable))
        name = self.name or f"uq_{table.name}_{'_'.join(names)}_living"[:63]
        index = Index(name, *columns, unique=True, postgresql_where=condition, sqlite_where=condition, _table=table)
        index.info[_LIVING] = _Living(mark, condition)
        if self.tenant is None:
            index.info["across_tenants"] = True  # `check_tenant_keys` skips this index

    def _mark(self, table: Table) -> Column[Any]:
        """The column that marks deleted rows. `check_living` compares it with the column of the mapped class."""
        if self.deleted is not None and not isinstance(self.deleted, str):
            return column_in(table, self.deleted, "LivingUnique")
        name = self.deleted or next((each for each in ("is_deleted", "deleted_at") if each in table.c), None)
        if name is None or name not in table.c:
            raise MisuseError(f"{table.name} has no column that marks a row as deleted.", field=self.deleted)
        return table.c[name]


def living_condition(index: Index) -> ColumnElement[bool] | None:
    """The condition of an index that `LivingUnique` has created; None for other indexes."""
    living: _Living | None = index.info.get(_LIVING)
    return None if living is None else living.condition


def check_living(name: str, tables: Iterable[Table], mark: str) -> None:
    """Raise `ValidationError` if an index of `LivingUnique` looks at another column than the reads of the class.

    ``name`` is that of the class, and ``mark`` that of its column that marks deleted rows. Two columns could disagree
    on a row, which then would be deleted for reads, but not for the index.
    """
    for index in (index for table in tables for index in table.indexes):
        living: _Living | None = index.info.get(_LIVING)
        if living is not None and living.mark.name != mark:
            raise MisuseError(
                f"The LivingUnique {index.name} looks at {living.mark.name!r}, but reads of {name} look at {mark!r}: "
                f"pass deleted={mark!r}.",
                field=mark,
            )
