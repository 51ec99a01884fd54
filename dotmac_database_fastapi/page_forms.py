"""The forms of a list's response: its JSON and headers, and their descriptions in OpenAPI."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from .aliases import AnyPage, JsonObject
from .answers import LINK
from .envelopes import enveloped, row_schema_in
from .links import link_header
from .options import ListOptions
from .page_schemas import page_schema_of
from .query_string import ListParams
from .rendering import Renderer
from .simple_rest import CONTENT_RANGE, content_range


class PageForm:
    """The response to a list's request: the page as JSON, the router's envelope of it, or an array of its rows.

    ``renderer`` serializes the rows, by the schema that the envelope names, or else by the router's read schema.
    """

    def __init__(self, model: type, options: ListOptions, params: ListParams, renderer: Renderer) -> None:
        self.renderer = renderer if row_schema_in(options.envelope) is None else Renderer(model, params.schema)
        self._model = model
        self._max_offset = params.page.max_offset
        self._is_array = options.paging == "range"
        self._envelope = None if options.envelope is None else enveloped(options.envelope, self.renderer.schema)
        self._schema: object = self._documented(params)

    def _documented(self, params: ListParams) -> object:
        if self._is_array:
            rows: Any = list
            return rows[self.renderer.schema]
        if self._envelope is not None:
            return self._envelope.type
        return page_schema_of(self.renderer.schema, self._model, params.page.paging, params.page.totals)

    def json(self, page: AnyPage) -> bytes:
        """The JSON of a page."""
        if self._envelope is not None:
            whole = page if self._envelope.reads_rows else self.renderer.with_objects(page)
            return self._envelope.json(whole)
        return self.renderer.rows(page.items) if self._is_array else self.renderer.page(page)

    def headers(self, request: Request, page: AnyPage, limit: int | None) -> dict[str, str] | None:
        """The headers of a page: links to its neighbours, or the range of its rows."""
        if self._is_array:
            return {"Content-Range": content_range(self._model, page)}
        link = link_header(request, page, limit=limit, max_offset=self._max_offset)
        return {"Link": link} if link else None

    def responses(self) -> dict[int | str, JsonObject]:
        """The response for OpenAPI."""
        headers = {"Content-Range": CONTENT_RANGE} if self._is_array else {"Link": LINK}
        described: JsonObject = {"description": "A page.", "headers": headers}
        if self._schema is Any:
            return {200: {**described, "content": {"application/json": {"schema": {}}}}}
        return {200: {"model": self._schema, **described}}
