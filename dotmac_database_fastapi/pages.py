"""Parses the page parameters of a query string: of a numbered page, of a page by offset, or of a cursor page."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias, TypedDict, get_args

from dotmac_database import (
    MAX_PAGE_SIZE,
    CursorPaginationParams,
    OffsetParams,
    PaginationParams,
    TotalKind,
    ValidationError,
)

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

Paging: TypeAlias = Literal["page", "offset", "cursor", "range"]
"""The kind of a list's pages.

``"page"``: numbered pages, by ``page`` and ``per_page``. ``"offset"``: any offset, by ``skip`` and ``limit``.
``"cursor"``: between two cursors, by ``limit`` and ``cursor``. ``"range"``: any offset, in the convention of the npm
package ``ra-data-simple-rest``.
"""

PAGINGS: tuple[Paging, ...] = get_args(Paging)

_NUMBERED = frozenset({"page", "per_page", "total"})
_SEEKING = frozenset({"limit", "cursor"})
_SKIPPING = frozenset({"skip", "limit", "total"})
_PARAMETERS: dict[Paging | None, frozenset[str]] = {
    None: _NUMBERED | _SEEKING,
    "page": _NUMBERED,
    "offset": _SKIPPING,
    "cursor": _SEEKING,
    "range": frozenset({"skip", "limit"}),
}


def checked_paging(paging: Paging | None) -> Paging | None:
    """The kind of a list's pages. Raises `ValidationError` for an unknown one."""
    if paging is not None and paging not in PAGINGS:
        raise ValidationError(f"There is no paging {paging!r}; choose {', '.join(PAGINGS)}.", field="paging")
    return paging


def page_size_of(paging: Paging | None, size: int | None, most: int) -> int:
    """The rows of a page if a client names no number: ``size``, or the default of its kind, but at most ``most``.

    A range without bounds has ``most`` rows.
    """
    if size is None:
        size = {"offset": OffsetParams().limit, "range": most}.get(paging or "page", PAGE_SIZE)
    return min(size, most)


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
    """The page of `QueryOptions`: numbered, by offset, or between cursors."""

    pagination: PaginationParams | OffsetParams
    cursor_pagination: CursorPaginationParams


@dataclass(frozen=True)
class PageParams:
    """The page parameters of one kind. ``paging`` None: those of a numbered page or of a cursor page, but never both.

    ``max_offset`` is the most rows that a page may skip (None: any number).
    """

    cursor_field: str
    size: int = PAGE_SIZE
    max_size: int = MAX_PAGE_SIZE
    total: TotalKind = "exact"
    totals: tuple[TotalKind, ...] = _TOTALS
    max_offset: int | None = None
    paging: Paging | None = None

    @cached_property
    def known(self) -> frozenset[str]:
        """The names of the parameters."""
        return _PARAMETERS[self.paging]

    def without_estimates(self) -> PageParams:
        """The same parameters, without the planner's estimate, which is one of all rows."""
        totals = tuple(kind for kind in self.totals if kind != "estimate")
        return replace(self, totals=totals, total="bounded" if self.total == "estimate" else self.total)

    def read(self, values: Values, faults: QueryErrors) -> Page:
        """The page for `QueryOptions`; without parameters, the first page."""
        if self.paging == "cursor":
            return self._cursor(values, faults)
        if self.paging in ("offset", "range"):
            return self._offset(values, faults)
        numbered, seeking = values.keys() & _NUMBERED, values.keys() & _SEEKING
        if self.paging is None and numbered and seeking:
            name = min(seeking)
            faults.add(name, f"{name!r} can't be combined with {min(numbered)!r}: a page has a number or a cursor.")
            return {}
        return self._cursor(values, faults) if self.paging is None and seeking else self._numbered(values, faults)

    def _numbered(self, values: Values, faults: QueryErrors) -> Page:
        page = self._number(values, "page", 1, MAX_PAGE, faults)
        per_page = self._number(values, "per_page", self.size, self.max_size, faults)
        if self.max_offset is not None and (page - 1) * per_page > self.max_offset:
            faults.add("page", self._too_far(), "less_than_equal", page)
        return {"pagination": PaginationParams(page, per_page, self._total(values, faults))}

    def _offset(self, values: Values, faults: QueryErrors) -> Page:
        skip = self._number(values, "skip", 0, MAX_PAGE, faults, least=0)
        limit = self._number(values, "limit", self.size, self.max_size, faults)
        if self.max_offset is not None and skip > self.max_offset:
            faults.add("skip", self._too_far(), "less_than_equal", skip)
        return {"pagination": OffsetParams(skip, limit, self._total(values, faults))}

    def _cursor(self, values: Values, faults: QueryErrors) -> Page:
        limit = self._number(values, "limit", self.size, self.max_size, faults)
        return {"cursor_pagination": CursorPaginationParams(limit, single(values, "cursor", faults), self.cursor_field)}

    def _too_far(self) -> str:
        if self.paging is None:
            return f"At most {self.max_offset} rows can be skipped by page; to read further, use limit and cursor."
        return f"At most {self.max_offset} rows can be skipped; to read further, filter the rows."

    def _total(self, values: Values, faults: QueryErrors) -> TotalKind:
        text = single(values, "total", faults)
        for kind in self.totals:
            if text == kind:
                return kind
        if text is not None:
            faults.add("total", f"Input should be one of: {', '.join(self.totals)}", "enum", text)
        return self.total

    def _number(
        self, values: Values, name: str, default: int, most: int, faults: QueryErrors, *, least: int = 1
    ) -> int:
        text = single(values, name, faults)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            faults.add(name, f"Input should be a whole number, {least} or greater", "int_parsing", text)
        elif not least <= int(text) <= most:
            faults.add(name, f"Input should be between {least} and {most}", "less_than_equal", text)
        else:
            return int(text)
        return default

    def openapi(self) -> Iterator[ParameterDoc]:
        """Each parameter's name, schema and description."""
        sized = {"type": "integer", "minimum": 1, "maximum": self.max_size, "default": self.size}
        furthest = MAX_PAGE if self.max_offset is None else self.max_offset
        if "page" in self.known:
            last = furthest if self.max_offset is None else furthest + 1
            yield "page", {"type": "integer", "minimum": 1, "maximum": last, "default": 1}, self._words_of_page()
            yield "per_page", sized, "The number of rows on a numbered page."
        if "skip" in self.known:
            skipped = {"type": "integer", "minimum": 0, "maximum": furthest, "default": 0}
            yield "skip", skipped, "The number of rows before the page."
        if "total" in self.known:
            counts = {"type": "string", "enum": list(self.totals), "default": self.total}
            yield "total", counts, f"How the rows are counted: {', '.join(_COUNTS[kind] for kind in self.totals)}."
        if "cursor" in self.known:
            yield "limit", sized, "The number of rows on a cursor page; without a cursor it is the first page."
            yield "cursor", {"type": "string", "minLength": 1}, "The place of the page: a cursor from another page."
        elif "limit" in self.known:
            yield "limit", sized, "The number of rows on the page."

    def _words_of_page(self) -> str:
        limit = "" if self.max_offset is None else f" At most {self.max_offset:,} rows can be skipped."
        other = " It can't be combined with limit or cursor." if self.paging is None else ""
        return f"The number of the page, counted from 1.{limit}{other}"


_COUNTS: dict[TotalKind, str] = {
    "exact": "exact counts all rows",
    "bounded": "bounded stops at a bound",
    "estimate": "estimate uses the planner's estimate beyond the bound",
    "none": "none counts no rows",
}
