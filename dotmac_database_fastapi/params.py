"""Query parameters as dependencies: pages, cursors, filters, sorts, and all of them at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from dotmac_database import CursorPaginationParams, PaginationParams, QueryFilter, SortField, TotalKind

from .bounds import MAX_OFFSET, QueryErrors, values_of
from .fields import fields_of, sortable_fields
from .internals import accept_query
from .pages import MAX_PAGE, MAX_PAGE_SIZE, TOTALS
from .query_string import FilterParams, ListParams, SortParams, refuse_unknown
from .refusals import REFUSALS, raise_identity


async def _page_query(
    page: Annotated[int, Query(ge=1, le=MAX_PAGE, description="The page, counted from 1.")] = 1,
    per_page: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Rows on a page.")] = 20,
) -> PaginationParams:
    return PaginationParams(page=page, per_page=per_page)


async def _cursor_query(
    cursor: Annotated[str | None, Query(description="Where the page begins: a cursor that another page gave.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Rows on a page.")] = 20,
) -> CursorPaginationParams:
    return CursorPaginationParams(limit=limit, cursor=cursor)


PageQuery: TypeAlias = Annotated[PaginationParams, Depends(_page_query)]
"""``page`` and ``per_page`` as `PaginationParams`."""

CursorQuery: TypeAlias = Annotated[CursorPaginationParams, Depends(_cursor_query)]
"""``cursor`` and ``limit`` as `CursorPaginationParams`."""


@lru_cache(maxsize=1024)
def filter_query(model: type, *fields: str) -> Callable[..., Any]:
    """A dependency that gives ``list[QueryFilter]`` from ``status=active``, ``score__gte=10``, ``status__in=a,b``.

    ``fields`` are those that may be named, dotted paths among them; none: those that the derived read schema shows,
    never the tenant's, soft-delete and private columns. A query parameter that the endpoint does not know is a 422 that
    names it, and so is a value that does not fit. At most 100 query parameters and 1,000 values are taken, and an
    answer names ten faults. Raises `ValidationError` at once for a field that ``model`` does not have, and for a
    private one.
    """
    params = FilterParams(model, fields)

    def filters(connection: HTTPConnection) -> list[QueryFilter]:
        values, faults = values_of(connection), QueryErrors()
        refuse_unknown(connection, values, params.known, faults)
        found = params.read(values, faults)
        faults.refuse()
        return found

    return _declaring(_identified(filters), params)


@lru_cache(maxsize=1024)
def sort_query(model: type, *fields: str) -> Callable[..., Any]:
    """A dependency that gives ``list[SortField]`` from ``sort=-created_at,name``, 20 at most; as `filter_query`.

    An array can't be named: rows aren't sorted by it.
    """
    params = SortParams(sortable_fields(model, fields or None))

    def sorts(connection: HTTPConnection) -> list[SortField]:
        values, faults = values_of(connection), QueryErrors()
        refuse_unknown(connection, values, params.known, faults)
        found = params.read(values, faults)
        faults.refuse()
        return found

    return _declaring(_identified(sorts), params)


def options_query(
    model: type,
    *fields: str,
    sorts: Sequence[str] = (),
    search: Sequence[str] = (),
    page_size: int = 20,
    max_page_size: int = MAX_PAGE_SIZE,
    max_offset: int | None = MAX_OFFSET,
    totals: Collection[TotalKind] = TOTALS,
    read_schema: Any = None,
) -> Callable[..., Any]:
    """A dependency that gives `QueryOptions`: filters, sorts and a page.

    ``fields`` may be filtered by and, unless ``sorts`` names others, sorted by. ``search`` names the fields that ``q=``
    searches. ``page`` and ``per_page`` give ``pagination``, ``limit`` or ``cursor`` give ``cursor_pagination``, nothing
    the first numbered page of ``page_size`` rows; both kinds are a 422. A numbered page skips at most ``max_offset``
    rows (None: any number); ``totals`` are the kinds of total that a client may ask for. ``read_schema`` is what the
    endpoint shows of a row, None the derived one: it is what may be filtered and sorted by where no ``fields`` are
    named, and a cursor is sorted by nothing else.
    """
    return _options_query(
        model,
        fields,
        tuple(sorts),
        tuple(search),
        page_size,
        max_page_size,
        max_offset,
        frozenset(totals),
        read_schema,
    )


def _ordered(model: type, fields: Sequence[str]) -> list[str] | None:
    """Those of the fields that rows can be sorted by; None where no fields are named."""
    return [name for name, field in fields_of(model, fields).items() if field.has_order] if fields else None


@lru_cache(maxsize=1024)
def _options_query(
    model: type,
    fields: tuple[str, ...],
    sorts: tuple[str, ...],
    search: tuple[str, ...],
    page_size: int,
    max_page_size: int,
    max_offset: int | None,
    totals: frozenset[TotalKind],
    read_schema: Any,
) -> Callable[..., Any]:
    params = ListParams(
        model,
        filters=fields,
        sorts=sorts or _ordered(model, fields),
        search=search,
        page_size=page_size,
        max_page_size=max_page_size,
        max_offset=max_offset,
        totals=totals,
        schema=read_schema,
    )

    return _declaring(_identified(params.read), params)


def _identified(read: Callable[[HTTPConnection], Any]) -> Callable[..., Any]:
    """A dependency that reads the query string; a caller who is not known hears of that, not of the faults in it."""

    async def dependency(connection: HTTPConnection, **_: Any) -> Any:
        try:
            return read(connection)
        except REFUSALS as refused:
            await raise_identity(connection, dependency, refused)
            raise

    return dependency


def _declaring(dependency: Callable[..., Any], params: FilterParams | SortParams | ListParams) -> Callable[..., Any]:
    """Let FastAPI see the parameters, for OpenAPI alone: the dependency reads the query string itself."""
    declared = [
        inspect.Parameter("connection", inspect.Parameter.KEYWORD_ONLY, annotation=HTTPConnection),
        *(
            inspect.Parameter(
                f"parameter_{index}",
                inspect.Parameter.KEYWORD_ONLY,
                default=Query(None, alias=name, title=name, description=description, json_schema_extra=schema),
                annotation=Any,
            )
            for index, (name, schema, description) in enumerate(params.openapi())
        ),
    ]
    accept_query(dependency, params.known)
    dependency.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]  # read by inspect.signature
    return dependency
