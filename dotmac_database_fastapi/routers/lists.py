"""`list_router`: lists the rows of a class in pages, filtered and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, Unpack

from fastapi import APIRouter, Depends, Request, Response
from fastapi.params import Depends as Depended

from dotmac_database import QueryOptions, ValidationError

from ..aliases import Endpoint, JsonObject, Repository
from ..answers import ETAG_OF_LIST, IF_NONE_MATCH_OF_LIST, LINK, describe_endpoint, plural
from ..bodies import router_of
from ..dependencies import get_repository
from ..etags import etag_of_body, is_unchanged
from ..heads import add_get, add_options
from ..internals import accept_query
from ..links import link_header
from ..options import ListKeywords, ListOptions, showing, with_keywords
from ..query_string import ListParams
from ..rendering import Page, Renderer
from ..selected_rows import RowRenderer, SelectionRenderers, reads_plainly


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

    ``fields`` and ``include`` are the fields and the relationships (dotted paths) that clients may select by the
    parameters of these names. With ``fields``, only these columns are read, as far as ``read_schema`` permits. An
    included relationship takes one statement for each 10,000 rows, and is in no row otherwise. With ``list_etag``, a
    list has a weak ``ETag``, and is a 304 for a client that has it already.

    ``repository`` is a repository class to use instead of the default. ``plugin`` is needed if the app has several. The
    other keyword arguments are those of `APIRouter` (``tags``, …). Raises `ValidationError` for fields and
    relationships that are missing or private, and for an array in ``sorts``.
    """
    chosen, of_router = with_keywords(options or ListOptions(), keywords)
    router = router_of(prefix, of_router, tag=plural(model.__name__))
    params = ListParams(model, chosen)
    renderer, selects = renderers_of(model, chosen, params)
    add_list(router, model, params, rows_of(model, chosen), renderer, selects=selects, list_etag=chosen.list_etag)
    add_options(router)
    return router


def rows_of(model: type, options: ListOptions) -> Endpoint:
    """The dependency that gives the repository of a generated router."""
    get = get_repository if options.plugin is None else options.plugin.get_repository
    return get(options.repository or model)


def renderers_of(model: type, options: ListOptions, params: ListParams) -> tuple[Renderer, SelectionRenderers | None]:
    """The renderer of rows without a selection; and those of selected rows, if requests can select anything."""
    if params.selection is None:
        return Renderer(model, options.read_schema), None
    selects = SelectionRenderers(model, options.read_schema, params.selection)
    return selects.base, selects


def add_list(
    router: APIRouter,
    model: type,
    params: ListParams,
    get_rows: Endpoint,
    renderer: Renderer,
    dependencies: Sequence[Depended] = (),
    *,
    selects: SelectionRenderers | None = None,
    list_etag: bool = False,
) -> None:
    """Add the endpoint of the list to a router. ``dependencies`` are those of its routes, for GET and for HEAD.

    ``selects`` are the renderers of selected rows; None: a request can't select anything.
    """

    async def list_rows(request: Request, repository: Repository = Depends(get_rows)) -> Response:
        options = params.read(request)
        shown: RowRenderer = renderer if selects is None else selects.of(params.selected(request))
        if shown.relationships:
            options = replace(options, relationships=shown.relationships)
        if shown.columns is not None and reads_plainly(repository, "list_paginated", "cursor_paginate"):
            rows: _Pages = repository.values(*shown.columns)
        else:
            rows = shown.loading(repository)
        try:
            page = await rows.page(options)
        except ValidationError as refused:
            if type(refused) is ValidationError:
                params.refuse(request, refused)
            raise
        limit = None if options.cursor_pagination is None else options.cursor_pagination.limit
        link = link_header(request, page, limit=limit, max_offset=params.page.max_offset)
        body, headers = shown.page(page), {"Link": link} if link else {}
        if list_etag:
            headers["ETag"] = tag = etag_of_body(body)
            if is_unchanged(request, tag):
                return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    numbered, following = (renderer if selects is None else selects).page_models
    parameters, unchanged = params.openapi_parameters(), dict[int | str, JsonObject]()
    if list_etag:
        parameters.append(IF_NONE_MATCH_OF_LIST)
        unchanged[304] = {"description": "The page still has this ETag.", "headers": {"ETag": ETAG_OF_LIST}}
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
                "model": numbered | following,
                "description": "A page.",
                "headers": {"Link": LINK, **({"ETag": ETAG_OF_LIST} if list_etag else {})},
            },
            **unchanged,
        },
        openapi_extra={"parameters": parameters},
        dependencies=dependencies,
    )


class _Pages(Protocol):
    """A repository, or its rows as dicts."""

    async def page(self, options: QueryOptions, /) -> Page:
        """A page of the rows."""
        ...
