"""`list_router`: lists the rows of a class in pages, filtered and sorted, and exports them as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, Unpack

from fastapi import APIRouter, Depends, Request, Response
from fastapi.params import Depends as Depended

from dotmac_database import QueryOptions, ValidationError

from ..aliases import AnyPage, Endpoint, Repository
from ..answers import IF_NONE_MATCH_OF_LIST, describe_endpoint, plural
from ..bodies import collection_path, router_of
from ..dependencies import get_repository
from ..exports import Exports
from ..formats import preferred_format
from ..heads import add_get, add_options
from ..internals import accept_query
from ..options import ListKeywords, ListOptions, showing, with_keywords
from ..page_forms import PageForm
from ..rendering import Renderer
from ..selected_rows import RowRenderer, SelectionRenderers, reads_plainly
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

    ``fields`` and ``include`` are the fields and the relationships (dotted paths) that clients may select by the
    parameters of these names. With ``fields``, only these columns are read, as far as ``read_schema`` permits. An
    included relationship takes one statement for each 10,000 rows, and is in no row otherwise. With ``list_etag``, a
    list has a weak ``ETag``, and is a 304 for a client that has it already.

    With ``facets=("status",)`` clients may ask for the number of rows of each value, ``?facets=status``: under the
    page's own filters, most first, at most 100 values, in one more statement for each field.

    With ``Accept: text/csv`` or ``application/x-ndjson`` the response is a stream of all matching rows, in constant
    memory, unless ``exports`` leaves that format out. A repository class that overrides how pages are read has no
    exports, because they could show what it hides, until it overrides ``stream`` too or ``exports`` names formats.

    ``paging`` chooses one kind of page: ``"page"``, ``"offset"`` (``skip`` and ``limit`` give an `OffsetResult`),
    ``"cursor"``, or ``"range"``, the convention of React Admin's ``ra-data-simple-rest``: ``range``, ``sort`` and
    ``filter`` are JSON, and the response is an array with ``Content-Range``. ``envelope`` is what makes the JSON of a
    page: a Pydantic class, which is validated from the attributes of the result, and which, if it is generic, is
    parametrised with the read schema; or a function, which gets the result with rows that are objects of the read
    schema. It is tried on pages without rows when the router is made. Lists with an envelope or ranges have neither
    ``fields``, ``include`` nor ``facets``. ``trailing_slash`` ends the list's path with a slash.

    ``repository`` is a repository class to use instead of the default. ``plugin`` is needed if the app has several. The
    other keyword arguments are those of `APIRouter` (``tags``, …). Raises `ValidationError` for fields and
    relationships that are missing or private, for an array in ``sorts``, for JSON, an array or bytes in ``facets``, and
    for an envelope that can't be made of one of the list's pages.
    """
    chosen, of_router = with_keywords(options or ListOptions(), keywords)
    router = router_of(prefix, of_router, tag=plural(model.__name__))
    add_list(router, Listing(model, chosen))
    add_options(router)
    return router


class Listing:
    """The rows of a class as a generated router lists them.

    ``params`` are the parameters of the query string, and ``get_rows`` is the dependency that gives the repository.
    ``renderer`` serializes rows of which a request selects nothing, and ``selects`` those of which it selects
    something; None: no request can.
    """

    def __init__(self, model: type, options: ListOptions) -> None:
        self.model = model
        self.options = options
        self.params = list_params(model, options)
        get = get_repository if options.plugin is None else options.plugin.get_repository
        self.get_rows: Endpoint = get(options.repository or model, policy=options.policy)
        selection, schema = self.params.selection, options.read_schema
        self.selects = None if selection is None else SelectionRenderers(model, schema, selection)
        self.renderer = Renderer(model, schema) if self.selects is None else self.selects.base

    def shown(self, request: Request, renderer: Renderer) -> RowRenderer:
        """The renderer of a request's rows: ``renderer``, unless the request selects something."""
        return renderer if self.selects is None else self.selects.of(self.params.selected(request))


def add_list(router: APIRouter, listing: Listing, dependencies: Sequence[Depended] = ()) -> None:
    """Add the endpoint of the list to a router. ``dependencies`` are those of its routes, for GET and for HEAD."""
    params, options = listing.params, listing.options
    form = PageForm(listing.model, options, params, listing.renderer)
    exports = Exports(listing.model, options, form.renderer)
    formats = exports.formats
    vary = exports.headers

    async def list_rows(request: Request, repository: Repository = Depends(listing.get_rows)) -> Response:
        if formats and (chosen := preferred_format(request, formats)) is not None:
            return exports.response(request, repository, params, chosen, listing.shown)
        query = params.read(request)
        shown = listing.shown(request, form.renderer)
        if shown.relationships:
            query = replace(query, relationships=shown.relationships)
        if shown.columns is not None and reads_plainly(repository, "page", "list_paginated", "cursor_paginate"):
            rows: _Pages = repository.values(*shown.columns)
        else:
            rows = shown.loading(repository)
        try:
            page = await rows.page(query)
        except ValidationError as refused:
            if type(refused) is ValidationError:
                params.refuse(request, refused)
            raise
        names = () if params.facets is None else params.facets_of(request)
        facets = await params.facets.counted(repository, query, names) if params.facets is not None and names else None
        limit = None if query.cursor_pagination is None else query.cursor_pagination.limit
        return form.response(request, page, shown, limit=limit, facets=facets, headers=vary)

    parameters = params.openapi_parameters()
    if options.list_etag:
        parameters.append(IF_NONE_MATCH_OF_LIST)
    accept_query(list_rows, params.known)
    describe_endpoint(list_rows, f"list{plural(listing.model.__name__)}", {400, 422})
    add_get(
        router,
        collection_path(router, options.trailing_slash),
        list_rows,
        name=f"list_{listing.model.__name__.lower()}",
        summary=f"List {listing.model.__name__}",
        response_model=None,
        responses=form.responses(exports.openapi_response()),
        openapi_extra={"parameters": parameters},
        dependencies=dependencies,
    )


class _Pages(Protocol):
    """A repository, or its rows as dicts."""

    async def page(self, options: QueryOptions, /) -> AnyPage:
        """A page of the rows."""
        ...
