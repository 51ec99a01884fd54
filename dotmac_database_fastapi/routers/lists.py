"""`list_router`: lists the rows of a class in pages, filtered and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, Unpack

from fastapi import APIRouter, Depends, Request, Response
from fastapi.params import Depends as Depended

from dotmac_database import AsyncRepository, QueryOptions, ValidationError

from ..aliases import AnyPage, Endpoint, Repository
from ..answers import describe_endpoint, plural
from ..bodies import collection_path, router_of
from ..dependencies import get_repository
from ..heads import add_get, add_options
from ..internals import accept_query
from ..options import ListKeywords, ListOptions, showing, with_keywords
from ..page_forms import PageForm
from ..query_string import ListParams
from ..rendering import Renderer
from ..simple_rest import list_params


@showing(ListOptions)
def list_router(
    model: type, prefix: str = "", *, options: ListOptions | None = None, **keywords: Unpack[ListKeywords]
) -> APIRouter:
    """A router whose ``GET`` lists the rows of ``model``, for the request's tenant.

    The options are given as keyword arguments, or as ``options``; a keyword argument replaces the field of ``options``.

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

    ``paging`` chooses one kind of page: ``"page"``, ``"offset"`` (``skip`` and ``limit`` give an `OffsetResult`),
    ``"cursor"``, or ``"range"``, the convention of React Admin's ``ra-data-simple-rest``: ``range``, ``sort`` and
    ``filter`` are JSON, and the response is an array with ``Content-Range``. ``envelope`` is what makes the JSON of a
    page: a Pydantic class, which is validated from the attributes of the result, and which, if it is generic, is
    parametrised with the read schema; or a function, which gets the result with rows that are objects of the read
    schema. It is tried on pages without rows when the router is made. ``trailing_slash`` ends the list's path with a
    slash.

    ``repository`` is a repository class to use instead of the default. ``plugin`` is needed if the app has several. The
    other keyword arguments are those of `APIRouter` (``tags``, …). Raises `ValidationError` for fields that are missing
    or private, for an array in ``sorts``, and for an envelope that can't be made of one of the list's pages.
    """
    chosen, of_router = with_keywords(options or ListOptions(), keywords)
    router = router_of(prefix, of_router, tag=plural(model.__name__))
    params, renderer = list_params(model, chosen), Renderer(model, chosen.read_schema)
    form = PageForm(model, chosen, params, renderer)
    add_list(router, model, params, rows_of(model, chosen), form, collection_path(router, chosen.trailing_slash))
    add_options(router)
    return router


def rows_of(model: type, options: ListOptions) -> Endpoint:
    """The dependency that gives the repository of a generated router."""
    get = get_repository if options.plugin is None else options.plugin.get_repository
    return get(options.repository or model)


def add_list(
    router: APIRouter,
    model: type,
    params: ListParams,
    get_rows: Endpoint,
    form: PageForm,
    path: str,
    dependencies: Sequence[Depended] = (),
) -> None:
    """Add the endpoint of the list to a router. ``dependencies`` are those of its routes, for GET and for HEAD."""
    renderer = form.renderer
    loads = renderer.relationships

    async def list_rows(request: Request, repository: Repository = Depends(get_rows)) -> Response:
        options = params.read(request)
        if loads:
            options = replace(options, relationships=loads)
        if renderer.columns is not None and _reads_plainly(repository):
            rows: _Pages = repository.values(*renderer.columns)
        else:
            rows = renderer.loading(repository)
        try:
            page = await rows.page(options)
        except ValidationError as refused:
            if type(refused) is ValidationError:
                params.refuse(request, refused)
            raise
        limit = None if options.cursor_pagination is None else options.cursor_pagination.limit
        return Response(form.json(page), media_type="application/json", headers=form.headers(request, page, limit))

    accept_query(list_rows, params.known)
    describe_endpoint(list_rows, f"list{plural(model.__name__)}", {400, 422})
    add_get(
        router,
        path,
        list_rows,
        name=f"list_{model.__name__.lower()}",
        summary=f"List {model.__name__}",
        response_model=None,
        responses=form.responses(),
        openapi_extra={"parameters": params.openapi_parameters()},
        dependencies=dependencies,
    )


class _Pages(Protocol):
    """A repository, or its rows as dicts."""

    async def page(self, options: QueryOptions, /) -> AnyPage:
        """A page of the rows."""
        ...


def _reads_plainly(repository: Repository) -> bool:
    """Whether the rows can be read as dicts: no override or listener of the user's needs entities."""
    return (
        isinstance(repository, AsyncRepository)
        and type(repository).page is AsyncRepository.page
        and type(repository).list_paginated is AsyncRepository.list_paginated
        and type(repository).cursor_paginate is AsyncRepository.cursor_paginate
        and not repository.traits.listens_to_loads
    )
