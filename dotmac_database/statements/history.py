"""The statements that read and delete the history of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Delete, Dialect, Select, Table, bindparam, delete, select

from ..dialects.history_reading import HistoryValues, history_values
from ..errors import MisuseError
from ..history.entries import HistoryEntry
from ..history.tables import history_of, tenant_of
from ..models.traits import Traits

M = TypeVar("M")


def history_table(traits: Traits[M]) -> Table:
    """The history table of a class. Raises `MisuseError` if it has none."""
    table = traits.mapper.local_table
    history = history_of(table) if isinstance(table, Table) else None
    if history is None:
        raise MisuseError(f"{traits.name} has no history: derive it from HistoryMixin.")
    return history


class HistoryReader:
    """The SELECT of the entries of one row, and the entries that its rows are."""

    def __init__(self, traits: Traits[M], dialect: Dialect) -> None:
        self._history = history_table(traits)
        self._table: Table = traits.tables[0]
        self._keys = {column.name: key for key, column in traits.columns.items() if key not in traits.private}
        columns = {column.name: column for key, column in traits.columns.items() if column.name in self._keys}
        self._values: HistoryValues = history_values(dialect, self._history, columns)

    def entries_of(self, key: Sequence[object], tenant: object, readable: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """The entries of the row with this key, the oldest first. ``tenant`` None: of any tenant.

        ``readable``: further conditions on the entries.
        """
        history = self._history
        of_row = [history.c[each.name] == value for each, value in zip(self._table.primary_key, key, strict=True)]
        owner = tenant_of(self._table)
        if owner is not None and tenant is not None:
            of_row.append(history.c[owner.name] == tenant)
        columns = (history.c.at, history.c.actor, history.c.operation, *self._values.columns)
        statement = select(*columns).select_from(self._values.source).where(*of_row, *readable)
        return statement.order_by(history.c.history_id)

    def entries(self, rows: Iterable[Sequence[Any]], hidden: frozenset[str]) -> list[HistoryEntry]:
        """The entries of rows of `entries_of`, without the ``hidden`` attributes and without updates of these alone."""
        entries = [self._entry(row, hidden) for row in rows]
        return [each for each in entries if not hidden or each.operation != "update" or each.before or each.after]

    def _entry(self, row: Sequence[Any], hidden: frozenset[str]) -> HistoryEntry:
        at, actor, operation, *values = row
        before, after = (self._by_attribute(side, hidden) for side in self._values.sides(values))
        return HistoryEntry(at, actor, operation, before, after)

    def _by_attribute(self, side: Mapping[str, object] | None, hidden: frozenset[str]) -> dict[str, object] | None:
        """The values by attribute. Columns that the table has, but the class has not, are omitted."""
        if side is None:
            return None
        known = {key: side[name] for name, key in self._keys.items() if name in side}
        former = {name: value for name, value in side.items() if name not in self._table.columns}
        return {key: value for key, value in {**known, **former}.items() if key not in hidden}


def delete_old(history: Table, tenant: ColumnElement[bool] | None, before: datetime, batch: int) -> Delete:
    """The DELETE of at most ``batch`` of the entries from before a time."""
    conditions = [history.c.at < bindparam("dotmac_before", before, type_=history.c.at.type)]
    if tenant is not None:
        conditions.append(tenant)
    old = select(history.c.history_id).where(*conditions).order_by(history.c.history_id).limit(batch)
    return delete(history).where(history.c.history_id.in_(old))
