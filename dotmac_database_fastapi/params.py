"""Dependencies that parse query parameters: pages, cursors, filters, sorts, and all of them together."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from dotmac_database import (
    MAX_PAGE_SIZE,
    CursorPaginationParams,
    FieldName,
    PaginationParams,
    QueryFilter,
    QueryOptions,
    SortField,
    TotalKind,
    names_for,
)

from .bounds import MAX_OFFSET, QueryErrors, values_of
from .fields import sortable_fields
from .internals import accept_query
from .options import ListOptions
from .pages import MAX_PAGE, PAGE_SIZE, TOTALS
from .query_string import FilterParams, ListParams, SortParams, refuse_unknown
from .refusals import REFUSALS, raise_identity

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


async def _page_query(
    page: Annotated[int, Query(ge=1, le=MAX_PAGE, description="The number of the page, counted from 1.")] = 1,
    per_page: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Rows on a page.")] = PAGE_SIZE,
) -> PaginationParams:
    return PaginationParams(page=page, per_page=per_page)


async def _cursor_query(
    cursor: Annotated[str | None, Query(description="The place of the page: a cursor from another page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Rows on a page.")] = PAGE_SIZE,
) -> CursorPaginationParams:
    return CursorPaginationParams(limit=limit, cursor=cursor)


PageQuery: TypeAlias = Annotated[PaginationParams, Depends(_page_query)]
"""``page`` and ``per_page`` as `PaginationParams`."""

CursorQuery: TypeAlias = Annotated[CursorPaginationParams, Depends(_cursor_query)]
"""``cursor`` and ``limit`` as `CursorPaginationParams`."""


def filter_query(model: type, *fields: FieldName) -> Callable[..., Awaitable[list[QueryFilter]]]:
    """A dependency that parses ``status=active``, ``score__gte=10``, ``status__in=a,b`` into ``list[QueryFilter]``.

    ``fields`` are the fields that clients may filter by: names, including dotted paths, or attributes (``User.name``).
    Without them, clients may filter by the fields of the derived read schema, except the tenant, soft-delete and
    private columns. An unknown query parameter is a 422 that names it, and so is an invalid value. At most 100 query
    parameters and 1,000 values are accepted, and a problem lists ten errors. Raises `ValidationError` at once for a
    field that ``model`` does not have, and for a private one.
    """
    return _filter_query(model, tuple(names_for(model, fields)))


@lru_cache(maxsize=1024)
def _filter_query(model: type, fields: tuple[str, ...]) -> Callable[..., Awaitable[list[QueryFilter]]]:
    params = FilterParams(model, fields)

    def filters(connection: HTTPConnection) -> list[QueryFilter]:
        values, faults = values_of(connection), QueryErrors()
        refuse_unknown(connection, values, params.known, faults)
        filters_of_query = params.read(values, faults)
        faults.refuse()
        return filters_of_query

    return _declaring(_identified(filters), params)


def sort_query(model: type, *fields: FieldName) -> Callable[..., Awaitable[list[SortField]]]:
    """A dependency that parses ``sort=-created_at,name``, at most 20 fields, into ``list[SortField]``.

    ``fields`` and errors are as in `filter_query`; a field that is an array is a `ValidationError` too.
    """
    return _sort_query(model, tuple(names_for(model, fields)))


@lru_cache(maxsize=1024)
def _sort_query(model: type, fields: tuple[str, ...]) -> Callable[..., Awaitable[list[SortField]]]:
    params = SortParams(sortable_fields(model, fields))

    def sorts(connection: HTTPConnection) -> list[SortField]:
        values, faults = values_of(connection), QueryErrors()
        refuse_unknown(connection, values, params.known, faults)
        sorts_of_query = params.read(values, faults)
        faults.refuse()
        return sorts_of_query

    return _declaring(_identified(sorts), params)


def options_query(
    model: type,
    *fields: FieldName,
    sorts: Sequence[FieldName] = (),
    search: Sequence[FieldName] = (),
    page_size: int = PAGE_SIZE,
    max_page_size: int = MAX_PAGE_SIZE,
    max_offset: int | None = MAX_OFFSET,
    totals: Collection[TotalKind] = TOTALS,
    read_schema: type | None = None,
) -> Callable[..., Awaitable[QueryOptions]]:
    """A dependency that parses filters, sorts and a page into `QueryOptions`.

    Clients may filter by ``fields`` and sort by ``sorts`` (empty: by ``fields``). ``search`` names the fields that
    ``q=`` searches. The parameters ``page`` and ``per_page`` give ``pagination``; ``limit`` and ``cursor`` give
    ``cursor_pagination``; both kinds together are a 422; without any of them it is the first numbered page, with
    ``page_size`` rows. A numbered page skips at most ``max_offset`` rows (None: any number). ``totals`` are the kinds
    of total that clients may choose. ``read_schema`` is the schema of the endpoint's rows (None: the derived one).
    Without ``fields``, clients may filter and sort by the fields of ``read_schema``. A cursor page can be sorted only
    by fields of ``read_schema``.
    """
    # Names without their class are equal keys of the cache, so the class is compared before.
    options = ListOptions(
        filters=names_for(model, fields),
        sorts=names_for(model, sorts),
        search=names_for(model, search),
        page_size=page_size,
        max_page_size=max_page_size,
        max_offset=max_offset,
        totals=totals,
        read_schema=read_schema,
    )
    return _options_query(model, options)


@lru_cache(maxsize=1024)
def _options_query(model: type, options: ListOptions) -> Callable[..., Awaitable[QueryOptions]]:
    params = ListParams(model, options, sorts_among=options.filters)
    return _declaring(_identified(params.read), params)


def _identified(read: Callable[[HTTPConnection], T]) -> Callable[..., Awaitable[T]]:
    """A dependency that parses the query string. A 401 or 403 takes precedence over errors in the query string."""

    async def dependency(connection: HTTPConnection, **_: object) -> T:
        try:
            return read(connection)
        except REFUSALS as refused:
            await raise_identity(connection, dependency, refused)
            raise

    return dependency


def _declaring(dependency: F, params: FilterParams | SortParams | ListParams) -> F:
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
