"""The ``Link`` header (RFC 8288) of a page, with the URLs of the first, previous, next and last page."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any
from urllib.parse import quote, unquote_plus

from starlette.requests import Request

from dotmac_database import OffsetResult, PaginationResult

from .aliases import AnyPage
from .bounds import MAX_LINKS

_IN_PATH = "/:@!$&'()*+,;=~"
_IN_QUERY = _IN_PATH + "?%"


def link_header(
    request: Request,
    page: AnyPage,
    *,
    limit: int | None = None,
    max_offset: int | None = None,
) -> str | None:
    """The links ``first``, ``prev``, ``next`` and ``last`` that exist; None if there are none, or they are too long.

    Each is the request's own path and query string with another page, without the host. ``limit`` is the page size of a
    cursor page. Pages that would skip more than ``max_offset`` rows are omitted.
    """
    targets: dict[str, dict[str, str | None]]
    if isinstance(page, PaginationResult):
        targets = _numbered(page, max_offset)
    elif isinstance(page, OffsetResult):
        targets = _by_offset(page, max_offset)
    else:
        size = {} if limit is None else {"limit": str(limit)}
        cursors = {"first": None, "prev": page.prev_cursor, "next": page.next_cursor}
        targets = {rel: {**size, "cursor": to} for rel, to in cursors.items() if to is not None or rel == "first"}
    if len(request.scope["query_string"]) * len(targets) > MAX_LINKS:
        return None
    if not targets:
        return None
    path, remaining = _path(request), _remaining(request, next(iter(targets.values())))
    header = ", ".join(f'<{_url(path, remaining, change)}>; rel="{rel}"' for rel, change in targets.items())
    return header if len(header) <= MAX_LINKS else None


def _numbered(page: PaginationResult[Any], max_offset: int | None) -> dict[str, dict[str, str | None]]:
    numbers: dict[str, int] = {}
    last = page.pages if page.total_is_exact else None
    if page.items or last != 0:
        numbers["first"] = 1
        if page.has_prev:
            numbers["prev"] = page.page - 1 if last is None else min(page.page - 1, last)
        if page.has_next:
            numbers["next"] = page.page + 1
        if last is not None:
            numbers["last"] = last
    furthest = math.inf if max_offset is None else max_offset // page.per_page + 1
    return {
        rel: {"page": str(number), "per_page": str(page.per_page)}
        for rel, number in numbers.items()
        if number <= furthest
    }


def _by_offset(page: OffsetResult[Any], max_offset: int | None) -> dict[str, dict[str, str | None]]:
    offsets: dict[str, int] = {}
    last = (page.total - 1) // page.limit * page.limit if page.total and page.total_is_exact else None
    if page.items or page.total != 0:
        offsets["first"] = 0
        if page.has_prev:
            before = max(page.skip - page.limit, 0)
            offsets["prev"] = before if last is None else min(before, last)
        if page.has_next:
            offsets["next"] = page.skip + page.limit
        if last is not None:
            offsets["last"] = last
    furthest = math.inf if max_offset is None else max_offset
    return {
        rel: {"skip": str(offset), "limit": str(page.limit)} for rel, offset in offsets.items() if offset <= furthest
    }


def _path(request: Request) -> str:
    # A URL reference that begins with two slashes would name another host (RFC 3986, section 4.2).
    return "/" + quote(request.scope["path"].lstrip("/"), safe=_IN_PATH)


def _remaining(request: Request, changed: Container[str]) -> list[str]:
    """The parameters that the client sent, as they are in a query string, without those that are ``changed``."""
    return [
        quote(pair, safe=_IN_QUERY)
        for pair in request.scope["query_string"].split(b"&")
        if pair and unquote_plus(pair.partition(b"=")[0].decode("latin-1")) not in changed
    ]


def _url(path: str, remaining: list[str], change: dict[str, str | None]) -> str:
    """The path and query string that the client sent, with the parameters in ``change`` replaced or removed."""
    added = [f"{name}={quote(value, safe='')}" for name, value in change.items() if value is not None]
    query = "&".join(remaining + added)
    return f"{path}?{query}" if query else path
