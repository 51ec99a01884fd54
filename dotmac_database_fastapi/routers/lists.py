"""`list_router`: lists the rows of a class in pages, filtered and sorted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from dotmac_database import AsyncRepository, QueryOptions, SortField, SortOrder, TotalKind, ValidationError

from ..answers import LINK, describe_endpoint, plural
from ..bodies import bounded
from ..bounds import MAX_OFFSET
from ..dependencies import get_repository
from ..heads import add_get, add_options
from ..internals import accept_query
from ..links import link_header
from ..pages import TOTALS
from ..query_string import ListParams
from ..rendering import Renderer
from ..source import Plugin

PAGE_SIZE, MAX_PAGE_SIZE = 20, 100


def list_router(
    model: type,
    prefix: str = "",
    *,
    read_schema: type[Any] | None = None,
    filters: Sequence[str] = (),
    sorts: Sequence[str] = (),
    search: Sequence[str] = (),
    default_sort: str = "",
    page_size: int = PAGE_SIZE,
    max_page_size: int = MAX_PAGE_SIZE,
    max_offset: int | None = MAX_OFFSET,
    total: TotalKind = "exact",
    totals: Collection[TotalKind] = TOTALS,
    repository: type | None = None,
    plugin: Plugin | None = None,
    **router: Any,
) -> APIRouter:
    """A router whose ``GET`` lists the rows of ``model``, for the request's tenant.

    The parameters ``page`` and ``per_page`` give a `PaginationResult` as JSON, ``limit`` and ``cursor`` give a
    `CursorPaginationResult`; both kinds together are a 422. A ``Link`` header has the URLs of the neighbouring pages,
    unless it would be too long. ``filters`` and ``sorts`` are the fields that clients may filter and sort by (empty:
    those of ``read_schema``, except the tenant, soft-delete and private columns), ``search`` those that ``q=``
    searches, and ``default_sort`` (``"-created_at,name"``) is the order if a client names none. A cursor can be sorted
    only by fields of ``read_schema``, because it contains their values.

    A page has at most ``max_page_size`` rows, and a numbered page skips at most ``max_offset`` rows (None: any number);
    beyond that it is a 422 that recommends the cursor. Clients choose with ``total=``, among ``totals``, how the rows
    are counted (see `PaginationParams`); the default is ``total``. An estimate comes from statistics of the whole
    table, so it reveals the number of other tenants' rows: clients may choose it only if it is in ``totals``.

    ``repository`` is a repository class to use instead of the default. ``plugin`` is needed if the app has several.
    ``router`` is passed to `APIRouter` (``tags``, …). Raises `ValidationError` for fields that are missing or private,
    and for an array in ``sorts``.
    """
    made = router_of(model, prefix, router)
    params = ListParams(
        model,
        filters=filters,
        sorts=sorts or None,
        search=search,
        default_sort=sorts_of(default_sort),
        page_size=page_size,
        max_page_size=max_page_size,
        max_offset=max_offset,
        total=total,
        totals=totals,
        schema=read_schema,
    )
    dependency: Callable[..., Any] = (get_repository if plugin is None else plugin.get_repository)(repository or model)
    add_list(made, model, params, dependency, Renderer(model, read_schema))
    add_options(made)
    return made


def router_of(model: type, prefix: str, options: dict[str, Any]) -> APIRouter:
    """A router for the generated endpoints of a class. The default tag is the plural of the class's name."""
    tags = options.get("tags") or [plural(model.__name__)]
    route_class = bounded(options.get("route_class", APIRoute))
    return APIRouter(prefix=prefix, **{**options, "tags": tags, "route_class": route_class})


def add_list(
    router: APIRouter, model: type, params: ListParams, get_rows: Callable[..., Any], renderer: Renderer
) -> None:
    """Add the endpoint of the list to a router."""
    loads = renderer.relationships

    async def list_rows(request: Request, repository: Any = Depends(get_rows)) -> Response:
        options = params.read(request)
        if loads:
            options = QueryOptions(
                filters=options.filters,
                sorts=options.sorts,
                pagination=options.pagination,
                cursor_pagination=options.cursor_pagination,
                relationships=loads,
            )
        if renderer.columns is not None and _reads_plainly(repository):
            repository = repository.values(*renderer.columns)
        else:
            repository = renderer.loading(repository)
        try:
            page = await repository.page(options)
        except ValidationError as refused:
            if type(refused) is ValidationError:
                params.refuse(request, refused)
            raise
        limit = None if options.cursor_pagination is None else options.cursor_pagination.limit
        link = link_header(request, page, limit=limit, max_offset=params.page.max_offset)
        return Response(renderer.page(page), media_type="application/json", headers={"Link": link} if link else None)

    accept_query(list_rows, params.known)
    describe_endpoint(list_rows, f"list{plural(model.__name__)}", {400, 422})
    add_get(
        router,
        "" if router.prefix else "/",
        list_rows,
        name=f"list_{model.__name__.lower()}",
        summary=f"List {model.__name__}",
        response_model=None,
        responses={
            200: {
                "model": renderer.page_models[0] | renderer.page_models[1],
                "description": "A page.",
                "headers": {"Link": LINK},
            }
        },
        openapi_extra={"parameters": params.openapi_parameters()},
    )


def _reads_plainly(repository: Any) -> bool:
    """Whether the rows can be read as dicts: no override or listener of the user's needs entities."""
    return (
        isinstance(repository, AsyncRepository)
        and type(repository).list_paginated is AsyncRepository.list_paginated
        and type(repository).cursor_paginate is AsyncRepository.cursor_paginate
        and not repository.traits.listens_to_loads
    )


def sorts_of(text: str) -> list[SortField]:
    """Parse sorts such as ``"-created_at,name"``."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [
        SortField(part.removeprefix("-"), SortOrder.DESC if part.startswith("-") else SortOrder.ASC) for part in parts
    ]
