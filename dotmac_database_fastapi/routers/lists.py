"""`list_router`: lists the rows of a class in pages, filtered and sorted, and exports them as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Protocol, Unpack

from fastapi import APIRouter, Depends, Request, Response
from fastapi.params import Depends as Depended

from dotmac_database import DeclaredRead, QueryOptions, ValidationError, declare_read, traits_of

from ..aliases import AnyPage, Endpoint, Repository
from ..answers import IF_NONE_MATCH_OF_LIST, describe_endpoint, plural
from ..bodies import collection_path, router_of
from ..dependencies import get_repository
from ..exports import Exports
from ..formats import preferred_format
from ..heads import add_get, add_options
from ..hiding import NOTHING, Hidden, hidden_from, models_on
from ..internals import accept_query
from ..options import ListKeywords, ListOptions, showing, with_keywords
from ..page_forms import PageForm
from ..query_string import ListParams
from ..rendering import Renderer
from ..ruling import RULED
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

    ``get_rows`` is the dependency that gives the repository. ``view`` is what an actor sees from whom nothing is
    hidden.
    """

    def __init__(self, model: type, options: ListOptions) -> None:
        options.check_fields(model)
        self.model = model
        self.options = options
        get = get_repository if options.plugin is None else options.plugin.get_repository
        self.get_rows: Endpoint = get(options.repository or model, policy=options.policy)
        self.view = View(model, options, list_params(model, options))
        self._view_for = lru_cache(maxsize=MAX_VIEWS)(self._made_for)

    def view_of(self, repository: Repository) -> View:
        """What the policies of the repository let its actor see of the rows. Views with the same columns are kept."""
        hidden = hidden_from(repository, self._models)
        return self._view_for(hidden) if hidden else self.view

    @cached_property
    def _models(self) -> frozenset[type]:
        """The classes whose columns a request can name or see."""
        nested: Sequence[str] = getattr(self.options, "nested", ())
        return models_on(traits_of(self.model), [*self.view.params.paths, *nested])

    def _made_for(self, hidden: Hidden) -> View:
        return View(self.model, self.options, self.view.params.without(hidden), hidden)


MAX_VIEWS = 64
"""The most views of a router that are kept: one for each set of hidden columns."""


class View:
    """The parameters, rows and formats of a list, as an actor sees them from whom columns are ``hidden``.

    ``params`` are the parameters of the query string. ``renderer`` serializes rows of which a request selects nothing,
    and ``selects`` those of which it selects something; None: no request can.
    """

    def __init__(self, model: type, options: ListOptions, params: ListParams, hidden: Hidden = NOTHING) -> None:
        self.params, self.hidden = params, hidden
        self._model, self._options = model, options
        selection, schema = params.selection, options.read_schema
        self.selects = None if selection is None else SelectionRenderers(model, schema, selection, hidden)
        self.renderer = Renderer(model, schema, hidden) if self.selects is None else self.selects.base

    @cached_property
    def form(self) -> PageForm:
        """The form of a page."""
        return PageForm(self._model, self._options, self.params, self.renderer, self.hidden)

    @cached_property
    def exports(self) -> Exports:
        """The formats in which the whole list can be read."""
        return Exports(self._model, self._options, self.form.renderer)

    def shown(self, request: Request, renderer: Renderer) -> RowRenderer:
        """The renderer of a request's rows: ``renderer``, unless the request selects something."""
        return renderer if self.selects is None else self.selects.of(self.params.selected(request))


def add_list(router: APIRouter, listing: Listing, dependencies: Sequence[Depended] = ()) -> None:
    """Add the endpoint of the list to a router. ``dependencies`` are those of its routes, for GET and for HEAD."""
    whole, options = listing.view, listing.options
    formats, vary = whole.exports.formats, whole.exports.headers

    async def list_rows(request: Request, repository: Repository = Depends(listing.get_rows)) -> Response:
        view = listing.view_of(repository) if RULED in request.scope else whole
        params, form = view.params, view.form
        if formats and (chosen := preferred_format(request, formats)) is not None:
            return view.exports.response(request, repository, params, chosen, view.shown)
        query = params.read(request)
        shown = view.shown(request, form.renderer)
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

    params = whole.params
    params.formats = formats
    denied = {403} if options.policy is not None else set[int]()
    parameters = params.openapi_parameters()
    if options.list_etag:
        parameters.append(IF_NONE_MATCH_OF_LIST)
    accept_query(list_rows, params.known)
    declare_read(list_rows, DeclaredRead(listing.model, params.default_sort, options.filters, options.sorts))
    describe_endpoint(list_rows, f"list{plural(listing.model.__name__)}", {400, 422} | denied)
    add_get(
        router,
        collection_path(router, options.trailing_slash),
        list_rows,
        name=f"list_{listing.model.__name__.lower()}",
        summary=f"List {listing.model.__name__}",
        response_model=None,
        responses=whole.form.responses(whole.exports.openapi_response()),
        openapi_extra={"parameters": parameters},
        dependencies=dependencies,
    )


class _Pages(Protocol):
    """A repository, or its rows as dicts."""

    async def page(self, options: QueryOptions, /) -> AnyPage:
        """A page of the rows."""
        ...
