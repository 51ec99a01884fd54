"""The forms of a list's response: its JSON and headers, and their descriptions in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .aliases import AnyPage, JsonObject
from .answers import ETAG_OF_LIST, LINK
from .envelopes import enveloped, row_schema_in, with_rows
from .etags import etag_of_body, is_unchanged
from .facets import with_facets
from .hiding import NOTHING, Hidden
from .links import link_header
from .options import ListOptions
from .page_schemas import page_schema_of
from .query_string import ListParams
from .rendering import Renderer
from .selected_rows import RowRenderer
from .simple_rest import CONTENT_RANGE, content_range


class PageForm:
    """The response to a list's request: the page as JSON, the router's envelope of it, or an array of its rows.

    ``renderer`` serializes the rows of which nothing is selected, by the schema that the envelope names, or else by the
    router's read schema.
    """

    def __init__(
        self, model: type, options: ListOptions, params: ListParams, renderer: Renderer, hidden: Hidden = NOTHING
    ) -> None:
        own = row_schema_in(options.envelope)
        self.renderer = renderer if own is None else Renderer(model, params.schema, hidden)
        self._model = model
        self._max_offset = params.page.max_offset
        self._is_array = options.paging == "range"
        self._has_etag = options.list_etag
        envelope = options.envelope
        if own is not None and hidden.columns:
            envelope = with_rows(envelope, self.renderer.schema)
        self._envelope = None if envelope is None else enveloped(envelope, self.renderer.schema)
        self._schema: object = self._documented(params)

    def _documented(self, params: ListParams) -> object:
        if self._is_array:
            rows: Any = list
            return rows[self.renderer.schema]
        if self._envelope is not None:
            return self._envelope.type
        facets = None if params.facets is None else params.facets.schema
        return page_schema_of(params.schema, self._model, params.page.paging, params.page.totals, facets)

    def response(
        self,
        request: Request,
        page: AnyPage,
        shown: RowRenderer,
        *,
        limit: int | None,
        facets: bytes | None,
        headers: Mapping[str, str],
    ) -> Response:
        """The response with a page, whose rows ``shown`` serializes, and with the JSON of the facets, if there are any.

        ``limit`` is the size of a cursor page. With ``list_etag`` it is a 304 if the client has this response already.
        """
        body = self._json(page, shown)
        if facets is not None:
            body = with_facets(body, facets)
        all_headers = {**headers, **self._headers(request, page, limit)}
        if self._has_etag:
            all_headers["ETag"] = tag = etag_of_body(body)
            if is_unchanged(request, tag):
                return Response(status_code=304, headers=all_headers)
        return Response(body, media_type="application/json", headers=all_headers)

    def _json(self, page: AnyPage, shown: RowRenderer) -> bytes:
        if self._envelope is not None:
            whole = page if self._envelope.reads_rows else self.renderer.with_objects(page)
            return self._envelope.json(whole)
        return self.renderer.many(page.items) if self._is_array else shown.page(page)

    def _headers(self, request: Request, page: AnyPage, limit: int | None) -> dict[str, str]:
        """The headers of a page: links to its neighbours, or the range of its rows."""
        if self._is_array:
            return {"Content-Range": content_range(self._model, page)}
        link = link_header(request, page, limit=limit, max_offset=self._max_offset)
        return {"Link": link} if link else {}

    def responses(self, exported: JsonObject) -> dict[int | str, JsonObject]:
        """The responses for OpenAPI. ``exported`` is what the list's exports add to them."""
        tag = {"ETag": ETAG_OF_LIST} if self._has_etag else {}
        place = {"Content-Range": CONTENT_RANGE} if self._is_array else {"Link": LINK}
        described: JsonObject = {"description": "A page.", **exported}
        described["headers"] = {**place, **tag, **exported.get("headers", {})}
        if self._schema is Any:
            described["content"] = {"application/json": {"schema": {}}, **exported.get("content", {})}
        else:
            described["model"] = self._schema
        unchanged = {"description": "The page still has this ETag.", "headers": tag}
        return {200: described, **({304: unchanged} if tag else {})}
