"""What a repository tells about many rows without reading them one by one."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, TypeVar

from ..query import FiltersLike, MeasuresLike, aggregates_of, filters_of
from ..statements.aggregates import grouped
from .core import SyncDb
from .reading import ReadingRepository

M = TypeVar("M")


class AnalysingRepository(ReadingRepository[M, SyncDb]):
    """Measures and distinct values; each is one statement."""

    def aggregate(
        self,
        measures: MeasuresLike,
        filters: FiltersLike = None,
        *,
        group_by: str | Sequence[str] = (),
        include_deleted: bool = False,
    ) -> builtins.list[dict[str, Any]]:
        """Measures over the matching rows, for each group of them; without groups one dict for all. One statement.

        ``measures`` maps names to `Aggregate`, dicts of it or pairs: ``{"orders": "count", "mean": ("avg", "price")}``.
        Each dict has the group's fields, dotted paths among them, and the measures by their names. Groups come in the
        order of their fields, NULLs last. Sums and means of decimals are decimals, means of other numbers floats; of
        no value at all they are None, as in SQL. Raises `ValidationError` for fields that do not fit.
        """
        groups = (group_by,) if isinstance(group_by, str) else tuple(group_by)
        asked = grouped(self._reader(include_deleted), aggregates_of(measures), groups, filters_of(filters))
        return asked.rows(self._read(lambda execution_options: self._execute(asked.bound, execution_options).all()))

    def distinct_values(
        self, field_name: str, filters: FiltersLike = None, *, include_deleted: bool = False
    ) -> builtins.list[Any]:
        """The different values of a field among the matching rows, in their order; None, if any has it, is the last."""
        groups = self.aggregate({}, filters, group_by=field_name, include_deleted=include_deleted)
        return [group[field_name] for group in groups]
