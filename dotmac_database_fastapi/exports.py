"""All rows of a list, as a stream of CSV or of NDJSON."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, replace
from urllib.parse import quote

from fastapi import HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import AsyncRepository, QueryOptions, Traits, ValidationError, traits_of

from .accepting import VARY
from .aliases import JsonObject, Repository
from .answers import header as documented_header
from .answers import plural
from .bounds import QueryErrors, values_of
from .csv_rows import CsvRows, columns_of
from .facets import FacetParams
from .formats import FORMATS, MEDIA_TYPES, ExportFormat
from .identity import identity_of
from .options import ListOptions
from .query_string import ListParams
from .registry import PluginError, only_source, source_of
from .rendering import Renderer
from .repository_factory import builder
from .selected_rows import RowRenderer
from .sessions import later_session
from .streams import CheckedStream
from .tenant_directory import states_for

ROWS_PER_STATEMENT = 1000
ROWS_PER_CHUNK = 250
"""How many rows are serialized at once. Other requests of the process wait for so long."""


@dataclass(frozen=True)
class Lines:
    """How the rows of a request are read and written. ``csv`` has their columns."""

    renderer: RowRenderer
    csv: CsvRows

    def streamed(self, rows: Repository, options: QueryOptions) -> AsyncIterator[object]:
        """The matching rows: as dicts if the schema is derived and nothing of the user's needs entities."""
        plain = type(rows).stream is AsyncRepository.stream and not rows.traits.listens_to_loads
        if self.renderer.columns is not None and plain:
            return rows.values(*self.renderer.columns).stream(options, ROWS_PER_STATEMENT)
        return self.renderer.loading(rows).stream(options, ROWS_PER_STATEMENT)

    def in_csv(self, rows: list[object]) -> bytes:
        """The lines of some rows as CSV."""
        return self.csv.lines(map(self.renderer.values, rows))

    def in_json(self, rows: list[object]) -> bytes:
        """The lines of some rows as NDJSON."""
        return b"".join(self.renderer.one(row) + b"\n" for row in rows)


class Exports:
    """The formats in which a router's list can be read as a whole, and the responses in these formats.

    ``formats`` are those of the options. If these name none, they are all formats; but none if the repository class
    overrides how pages are read and not how a stream is read, because the override may hide rows; and no CSV if the
    fields of ``read_schema`` are unknown. Raises `ValidationError` if the options name CSV in that case.
    """

    def __init__(self, model: type, options: ListOptions, renderer: Renderer) -> None:
        self._traits: Traits[object] = traits_of(model)
        columns = columns_of(self._traits, renderer.schema)
        self.formats = _offered(options, has_columns=bool(columns))
        self.headers = VARY if self.formats else {}
        """The headers of the list's other responses."""
        self._renderer = renderer
        self._rows = CsvRows(columns, formulas=options.csv_formulas)
        self._formulas = options.csv_formulas
        self._plugin = options.plugin
        self._model = model
        self._build = builder(options.repository or model, AsyncRepository, options.policy)
        self._name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plural(model.__name__)).lower()

    def response(
        self,
        request: Request,
        repository: Repository,
        params: ListParams,
        chosen: ExportFormat,
        shown: Callable[[Request, Renderer], RowRenderer],
    ) -> CheckedStream:
        """The stream of all rows that match the request's filters and search, in its order.

        ``repository`` is the request's, and ``shown`` gives the renderer of the rows as the request selects them. The
        rows are read in a unit of work of their own, for the same tenant and actor, which begins when the request's
        session has ended. One statement is sent for every `ROWS_PER_STATEMENT` rows, and the connection returns to the
        pool after each. With row-level security each is a transaction. (A repository class that overrides ``stream``
        keeps the connection while it has a transaction, and a session of the app's is not released.) A plugin's
        `TenantDirectory` is asked before each chunk.
        """
        _refuse_others(request, params, chosen)
        options = params.read(request)
        _refuse_old_http(request)
        lines = self._lines(request, params, shown(request, self._renderer))
        header, write = (lines.csv.header, lines.in_csv) if chosen == "csv" else (b"", lines.in_json)
        loads = lines.renderer.relationships
        options = replace(options, pagination=None, cursor_pagination=None, relationships=loads)
        source = only_source(request) if self._plugin is None else self._plugin.source
        states = None if source is None else states_for(source)
        confined = source is not None and source.rls is not None

        async def chunks(later: AbstractAsyncContextManager[AsyncSession]) -> AsyncGenerator[bytes, None]:
            """The chunks of the body. The first one has the first rows."""
            first = header
            try:
                async with later as session:
                    is_own = session is not repository.db
                    rows = await self._again(request, repository, session) if is_own else repository
                    # Row-level security reads in transactions, in which the connection waits for a slow client.
                    # A stream of the user's may have a cursor, which ends with its transaction.
                    ends_each = is_own and confined and type(rows).stream is AsyncRepository.stream
                    async for some in _batched(lines.streamed(rows, options)):
                        part, first = first + write(some), b""
                        if ends_each and session.in_transaction():
                            await session.commit()
                        if states is not None:
                            await states.check(rows.tenant_id)
                        yield part
            except ValidationError as refused:
                if type(refused) is ValidationError:
                    params.refuse(request, refused)
                raise
            if first:
                yield first

        return CheckedStream(
            None if request.method == "HEAD" else chunks(later_session(request, repository.db)),
            media_type="text/csv; header=present" if chosen == "csv" else MEDIA_TYPES[chosen],
            headers={"Content-Disposition": _attachment(f"{self._name}.{chosen}"), **VARY},
        )

    def _lines(self, request: Request, params: ListParams, renderer: RowRenderer) -> Lines:
        names = params.selected(request).fields
        if params.selection is None or not names:
            return Lines(renderer, self._rows)
        columns = columns_of(self._traits, self._renderer.schema, [params.selection.fields[name] for name in names])
        return Lines(renderer, CsvRows(columns, formulas=self._formulas))

    async def _again(self, request: Request, repository: Repository, session: AsyncSession) -> Repository:
        """A repository like the request's on another session, for the same tenant."""
        source = source_of(request) if self._plugin is None else self._plugin.source
        identity = await identity_of(source, request)  # the one that the request's repository has: it is kept
        rows = self._build(session, identity, source.cursor_key)
        like = type(rows) is type(repository) and rows.tenant_id == repository.tenant_id
        if not like or not isinstance(rows, AsyncRepository):
            raise PluginError(
                f"The app overrides the repository of {self._model.__name__} by a {type(repository).__name__} on the "
                "request's session, which ends before an export is sent. Name that class as repository= of the router."
            )
        return rows

    def openapi_response(self) -> JsonObject:
        """The content and the headers that the exports add to the list's response in OpenAPI."""
        if not self.formats:
            return {}
        content = {
            MEDIA_TYPES[each]: {"schema": {"type": "string", "description": _DESCRIPTIONS[each]}}
            for each in self.formats
        }
        return {"content": content, "headers": {"Content-Disposition": DISPOSITION, "Vary": VARIES}}


_DESCRIPTIONS: dict[ExportFormat, str] = {
    "csv": "All matching rows, with a header line (RFC 4180). Relationships are omitted.",
    "ndjson": "All matching rows, each as JSON in a line.",
}
DISPOSITION = documented_header("The name of the file, in an export.")
VARIES = documented_header("The response depends on the Accept header.")


async def _batched(rows: AsyncIterator[object]) -> AsyncGenerator[list[object], None]:
    """The rows in lists of `ROWS_PER_CHUNK`."""
    async with aclosing(rows) if isinstance(rows, AsyncGenerator) else nullcontext():
        some: list[object] = []
        async for row in rows:
            some.append(row)
            if len(some) == ROWS_PER_CHUNK:
                yield some
                some = []
        if some:
            yield some


def _offered(options: ListOptions, *, has_columns: bool) -> tuple[ExportFormat, ...]:
    if options.exports is None:
        has_none = options.paging == "range" or _may_hide_rows(options.repository)
        return () if has_none else FORMATS if has_columns else ("ndjson",)
    if "csv" in options.exports and not has_columns:
        raise ValidationError(
            "exports: the fields of read_schema are unknown, so the rows can't be CSV; name other formats.",
            field="exports",
        )
    return tuple(each for each in FORMATS if each in options.exports)


def _may_hide_rows(repository: type | None) -> bool:
    """Whether a repository class of the user's overrides how pages are read, and not how a stream is read."""
    if repository is None or not issubclass(repository, AsyncRepository):
        return False
    pages = ("page", "list_paginated", "cursor_paginate")
    return repository.stream is AsyncRepository.stream and any(
        getattr(repository, name) is not getattr(AsyncRepository, name) for name in pages
    )


def _refuse_others(request: Request, params: ListParams, chosen: ExportFormat) -> None:
    """Raise `RequestValidationError` for parameters that an export can't have: those of a page, and CSV ``include``."""
    values, faults = values_of(request), QueryErrors()
    if chosen == "csv" and "include" in values and "include" in params.known:
        faults.add("include", "CSV can't contain related rows; leave include out, or accept application/x-ndjson.")
    for name in sorted(values.keys() & (params.of_page | FacetParams.known) & params.known):
        faults.add(name, f"An export has all matching rows, so {name!r} has no meaning; leave it out.")
    faults.refuse()


def _refuse_old_http(request: Request) -> None:
    """Raise a 426 for HTTP/1.0, in which the end of a broken stream looks like that of a complete one."""
    if request.scope.get("http_version") == "1.0":
        raise HTTPException(
            426,
            "An export needs HTTP/1.1 or later: with HTTP/1.0 a broken file looks like a complete one. "
            "(nginx: proxy_http_version 1.1.)",
            headers={"Upgrade": "HTTP/1.1", "Connection": "Upgrade"},
        )


def _attachment(name: str) -> str:
    """The value of Content-Disposition (RFC 6266)."""
    if name.isascii():
        return f'attachment; filename="{name}"'
    return f"attachment; filename*=UTF-8''{quote(name)}"
