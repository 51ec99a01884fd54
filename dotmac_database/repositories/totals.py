"""The total number of rows of a page with a number or an offset: exact, bounded, estimated or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..dialects.explain import expected_rows
from ..dialects.features import estimates_rows
from ..paging.pages import Estimate
from ..query import Filter, OffsetParams, PaginationParams
from ..statements.reads import Bound, Reader


@dataclass(frozen=True, slots=True)
class PageTotal:
    """Computes the total of a page from the count that each of its rows has.

    A second statement is sent if the page has no rows because it is beyond the last row, and for an estimate.
    """

    page: PaginationParams | OffsetParams
    reader: Reader
    filters: Sequence[Filter]

    @property
    def looks_ahead(self) -> bool:
        """Whether one more row than the page has is read, to know whether there is a next page.

        With an exact total this is not needed.
        """
        return self.page.total != "exact"

    @property
    def count_limit(self) -> int:
        """How many rows the page's statement counts: at most this number. 0: all rows; -1: it does not count."""
        return {"exact": 0, "none": -1}.get(self.page.total, self.page.bound)

    def of(self, rows: Sequence[tuple[Any, ...]], ask: Callable[[Bound], Any]) -> int | None:
        """The total, from the page's rows, or by a second statement that ``ask`` sends."""
        if self.page.total == "none":
            return None
        counted = rows[0][1] if rows else 0
        if not rows and self.page.offset:
            counted = int(ask(self.reader.count(self.filters, self.count_limit)))
        if self.count_limit == 0 or counted <= self.count_limit:
            return int(counted) if self.count_limit == 0 else Estimate(counted, exact=True)
        rows_seen = self.page.offset + len(rows) if rows else 0
        if rows and len(rows) <= self.page.limit:
            return Estimate(rows_seen, exact=True)
        expected = 0
        # The planner's estimate would also be one of rows that a policy hides.
        if (
            self.page.total == "estimate"
            and self.reader.scope.rules is None
            and estimates_rows(self.reader.dialect.name)
        ):
            expected = expected_rows(ask(self.reader.planned(self.filters)))
        return Estimate(max(expected, self.count_limit, rows_seen), exact=False)
