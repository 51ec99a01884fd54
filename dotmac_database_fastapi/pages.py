"""Parses the page parameters of a query string: for a numbered page, or for a cursor page."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypedDict, get_args

from dotmac_database import MAX_PAGE_SIZE, CursorPaginationParams, PaginationParams, TotalKind, ValidationError

from .aliases import JsonObject
from .bounds import QueryErrors, Values, single

PAGE_SIZE = PaginationParams().per_page
"""The rows of a page if a client names no number: the default of `PaginationParams`."""

MAX_ROUTER_PAGE_SIZE = MAX_PAGE_SIZE // 10
"""The most rows of a page of a generated router, unless its options say more.

Every client can call a generated list, and it returns whole rows. So it allows a tenth of what the app's own code, and
its own endpoints with `PageQuery` and `options_query`, can read in one page.
"""

MAX_PAGE = 10**15
"""The highest page number: the offset must fit a 64-bit integer."""

PAGE_PARAMETERS = frozenset({"page", "per_page", "total", "limit", "cursor"})

_TOTALS: tuple[TotalKind, ...] = get_args(TotalKind)
TOTALS: frozenset[TotalKind] = frozenset({"exact", "bounded", "none"})
"""The kinds of total that clients may choose by default. An estimate would reveal the number of all tenants' rows."""


def allowed_totals(total: TotalKind, totals: Collection[TotalKind]) -> tuple[TotalKind, ...]:
    """The kinds of total that clients may choose, including the router's default ``total``."""
    unknown = next((kind for kind in (total, *totals) if kind not in _TOTALS), None)
    if unknown is not None:
        raise ValidationError(f"There is no kind of total {unknown!r}; choose {', '.join(_TOTALS)}.", field="totals")
    return tuple(kind for kind in _TOTALS if kind == total or kind in totals)


ParameterDoc: TypeAlias = tuple[str, JsonObject, str]
"""The name, the schema and the description of a query parameter in OpenAPI."""


class Page(TypedDict, total=False):
    """The page of `QueryOptions`: numbered, or between cursors."""

    pagination: PaginationParams
    cursor_pagination: CursorPaginationParams


@dataclass(frozen=True)
class PageParams:
    """The parameters ``page``, ``per_page`` and ``total``, or ``limit`` and ``cursor``, but never both kinds."""

    cursor_field: str
    size: int = PAGE_SIZE
    max_size: int = MAX_PAGE_SIZE
    total: TotalKind = "exact"
    totals: tuple[TotalKind, ...] = _TOTALS
    max_offset: int | None = None

    known = PAGE_PARAMETERS

    def read(self, values: Values, faults: QueryErrors) -> Page:
        """``pagination`` or ``cursor_pagination`` for `QueryOptions`; without parameters, the first numbered page."""
        numbered, seeking = values.keys() & {"page", "per_page", "total"}, values.keys() & {"limit", "cursor"}
        if numbered and seeking:
            name = min(seeking)
            faults.add(name, f"{name!r} can't be combined with {min(numbered)!r}: a page has a number or a cursor.")
            return {}
        if seeking:
            limit = self._number(values, "limit", self.size, self.max_size, faults)
            cursor = single(values, "cursor", faults)
            return {"cursor_pagination": CursorPaginationParams(limit, cursor, self.cursor_field)}
        page = self._number(values, "page", 1, MAX_PAGE, faults)
        per_page = self._number(values, "per_page", self.size, self.max_size, faults)
        if self.max_offset is not None and (page - 1) * per_page > self.max_offset:
            message = f"At most {self.max_offset} rows can be skipped by page; to read further, use limit and cursor."
            faults.add("page", message, "less_than_equal", page)
        return {"pagination": PaginationParams(page, per_page, self._total(values, faults))}

    def _total(self, values: Values, faults: QueryErrors) -> TotalKind:
        text = single(values, "total", faults)
        for kind in self.totals:
            if text == kind:
                return kind
        if text is not None:
            faults.add("total", f"Input should be one of: {', '.join(self.totals)}", "enum", text)
        return self.total

    def _number(self, values: Values, name: str, default: int, most: int, faults: QueryErrors) -> int:
        text = single(values, name, faults)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            faults.add(name, "Input should be a whole number, 1 or greater", "int_parsing", text)
        elif not 1 <= int(text) <= most:
            faults.add(name, f"Input should be between 1 and {most}", "less_than_equal", text)
        else:
            return int(text)
        return default

    def openapi(self) -> Iterator[ParameterDoc]:
        """Each parameter's name, schema and description."""
        sized = {"type": "integer", "minimum": 1, "maximum": self.max_size, "default": self.size}
        last = MAX_PAGE if self.max_offset is None else self.max_offset + 1
        yield "page", {"type": "integer", "minimum": 1, "maximum": last, "default": 1}, self._words_of_page()
        yield "per_page", sized, "The number of rows on a numbered page."
        counts = {"type": "string", "enum": list(self.totals), "default": self.total}
        yield "total", counts, f"How the rows are counted: {', '.join(_COUNTS[kind] for kind in self.totals)}."
        yield "limit", sized, "The number of rows on a cursor page; without a cursor it is the first page."
        yield "cursor", {"type": "string", "minLength": 1}, "The place of the page: a cursor from another page."

    def _words_of_page(self) -> str:
        limit = "" if self.max_offset is None else f" At most {self.max_offset:,} rows can be skipped."
        return f"The number of the page, counted from 1.{limit} It can't be combined with limit or cursor."


_COUNTS: dict[TotalKind, str] = {
    "exact": "exact counts all rows",
    "bounded": "bounded stops at a bound",
    "estimate": "estimate uses the planner's estimate beyond the bound",
    "none": "none counts no rows",
}
