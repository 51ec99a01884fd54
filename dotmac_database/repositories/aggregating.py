"""Aggregates over the rows of a repository."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, TypeVar

from ..errors import MisuseError
from ..field_names import FieldName, name_for, names_for
from ..query import FiltersLike, MeasuresLike, SortsLike, aggregates_of, filters_of, sorts_of
from ..statements.aggregates import grouped
from .core import SyncDb
from .running import StatementRunner

M = TypeVar("M")


class AggregateMethods(StatementRunner[M, SyncDb]):
    """Aggregates and distinct values, in one statement each."""

    def aggregate(
        self,
        measures: MeasuresLike,
        filters: FiltersLike = None,
        *,
        group_by: FieldName | Sequence[FieldName] = (),
        include_deleted: bool = False,
        sorts: SortsLike = (),
        limit: int | None = None,
    ) -> builtins.list[dict[str, Any]]:
        """Aggregates over the matching rows, by group; without groups, one dict for all rows. One statement.

        ``measures`` maps names to `Aggregate`, dicts of it or pairs: ``{"orders": "count", "mean": ("avg", "price")}``.
        Each dict has the group's fields, which may be dotted paths, and the measures by name. Groups are ordered by
        ``sorts``, which name measures and fields of the group, then by their fields, NULLs last; at most ``limit`` of
        them are returned (None: all). Sums and averages of decimals are decimals, averages of other numbers are floats;
        both are None if there are no values, as in SQL. Raises `ValidationError` for a field that
        the function can't take, and for a sort that is neither a measure nor a group.
        """
        if limit is not None and limit < 1:
            raise MisuseError("limit must be at least 1, or None.", field="limit")
        groups = names_for(self.model_class, group_by)
        reader, order = self._reader(include_deleted), sorts_of(sorts)
        query = grouped(reader, aggregates_of(measures), groups, filters_of(filters), order, limit)
        return query.rows(self._read(lambda execution_options: self._execute(query.bound, execution_options).all()))

    def distinct_values(
        self, field_name: FieldName, filters: FiltersLike = None, *, include_deleted: bool = False
    ) -> builtins.list[Any]:
        """The distinct values of a field among the matching rows, in ascending order; None, if present, is last."""
        groups = self.aggregate({}, filters, group_by=field_name, include_deleted=include_deleted)
        name = name_for(self.model_class, field_name)
        return [group[name] for group in groups]
