"""The options of the generated routers, as frozen values and as keyword arguments.

A router function takes an options object, or its fields as keyword arguments, or both: a keyword argument replaces the
field of the object. The fields and their defaults are declared once, in `ListOptions` and `CrudOptions`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, get_args

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import BaseRoute

from dotmac_database import FieldName, Policy, QueryOptions, SortField, TotalKind, ValidationError, name_of, names_for

from .bounds import MAX_OFFSET
from .envelopes import Envelope
from .formats import ExportFormat, checked_formats
from .pages import MAX_ROUTER_PAGE_SIZE, TOTALS, Paging, checked_paging
from .source import Plugin
from .statuses import DeleteBody, DeleteBodyLike, WriteOperation, check_codes

_NAMES = ("filters", "sorts", "search", "fields", "include", "facets", "links", "nested")
"""The options that are names of fields and relationships: texts, or attributes such as ``User.name``."""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What the clients of a list may ask for, and where its rows come from (see `list_router`)."""

    read_schema: type | None = None
    """The schema of a row in responses. None: the derived schema, with all public columns."""
    filters: Sequence[FieldName] = ()
    """The fields that clients may filter by. Empty: those of ``read_schema``, except the tenant, soft-delete and
    private columns."""
    sorts: Sequence[FieldName] = ()
    """The fields that clients may sort by. Empty: as for ``filters``, without arrays."""
    search: Sequence[FieldName] = ()
    """The fields that ``q=`` searches. Empty: there is no parameter ``q``."""
    default_sort: str | SortField | Sequence[FieldName] = ""
    """The order if a client names none, such as ``"-created_at,name"``, or sorts as in `QueryOptions`. Empty: by the
    primary key."""
    paging: Paging | None = None
    """The kind of the pages: ``"page"``, ``"offset"``, ``"cursor"`` or ``"range"`` (see `Paging`). None: numbered
    pages and cursor pages, as the client requests."""
    envelope: Envelope | None = None
    """What makes the JSON of a page: a Pydantic class, or a function (see `list_router`). None: the page itself."""
    page_size: int | None = None
    """The rows of a page if a client names no number. None: 20, of a page by offset 100, of a range as many as
    ``max_page_size``; but at most ``max_page_size``."""
    max_page_size: int = MAX_ROUTER_PAGE_SIZE
    """The most rows of a page."""
    max_offset: int | None = MAX_OFFSET
    """The most rows that a numbered page may skip. None: any number."""
    total: TotalKind = "exact"
    """How the rows are counted if a client does not say (see `PaginationParams`)."""
    totals: Collection[TotalKind] = TOTALS
    """The kinds of total that clients may choose, besides ``total``."""
    fields: Sequence[FieldName] = ()
    """The fields that clients may select by ``?fields=id,name``. Empty: each row has all of its fields."""
    include: Sequence[FieldName] = ()
    """The relationships that clients may ask for by ``?include=author,author.team``. They are in no row otherwise."""
    list_etag: bool = False
    """Whether lists have a weak ``ETag``, so that a list that has not changed is a 304."""
    facets: Sequence[FieldName] = ()
    """The fields whose values clients may have counted, by ``facets=``. Empty: there is no parameter ``facets``."""
    exports: Collection[ExportFormat] | None = None
    """The formats in which clients may read all rows, by ``Accept``. Empty: none, so ``Accept`` has no effect. None:
    both, unless they could show what the list does not: see `list_router`."""
    csv_formulas: bool = False
    """Whether the texts of a CSV file may begin as a formula does. If not, an apostrophe precedes such texts."""
    trailing_slash: bool = False
    """Whether the path of the collection ends with a slash: ``/users/``."""
    repository: type | None = None
    """A repository class to use instead of the default."""
    plugin: Plugin | None = None
    """The `DatabasePlugin` to use. None: the only plugin of the app."""
    policy: Policy[Any] | None = None
    """The policy of the rows, in place of the plugin's for this class. It needs the plugin's ``actor``."""

    def __post_init__(self) -> None:
        # Equal options are one key of a cache, whether a field was given as a list or as a tuple.
        for name in filter(partial(hasattr, self), _NAMES):
            object.__setattr__(self, name, tuple(map(name_of, getattr(self, name))))
        if not isinstance(self.default_sort, str):
            object.__setattr__(self, "default_sort", tuple(QueryOptions(sorts=self.default_sort).sorts))
        object.__setattr__(self, "totals", frozenset(self.totals))
        if self.exports is not None:
            object.__setattr__(self, "exports", checked_formats(self.exports))
        checked_paging(self.paging)
        self._check_combinations()

    def names(self, option: str) -> tuple[str, ...]:
        """The names of fields that an option has."""
        return tuple(map(name_of, getattr(self, option)))

    def check_fields(self, model: type) -> None:
        """Raise `ValidationError` if an option names an attribute of a class that is not ``model``, or related to it.

        Whether the fields exist is found out when they are used.
        """
        for name in filter(partial(hasattr, self), _NAMES):
            names_for(model, getattr(self, name))

    def _check_combinations(self) -> None:
        """Raise `ValidationError` for options that contradict each other."""
        if self.paging == "range" and (self.envelope is not None or self.total == "none"):
            raise ValidationError(
                "paging='range' responds with an array of rows and the total in a header, so that it has no envelope, "
                "and total can't be 'none'.",
                field="paging",
            )
        fitted = "envelope" if self.envelope is not None else "paging='range'" if self.paging == "range" else None
        for name in ("fields", "include", "facets") if fitted else ():
            if getattr(self, name):
                raise ValidationError(f"{name}: a list with {fitted} has whole rows and no facets.", field=name)


Operation: TypeAlias = Literal[
    "list", "read", "create", "update", "delete", "restore", "bulk_create", "bulk_update", "link"
]
"""What a generated router can do with rows."""

OPERATIONS: tuple[Operation, ...] = ("list", "read", "create", "update", "delete", "restore")
"""The operations that a generated router has by default."""

_SIMILAR: Mapping[Operation, Operation] = {"bulk_create": "create", "bulk_update": "update", "link": "update"}
"""The operation whose permission another one needs if it has none of its own."""


@dataclass(frozen=True, kw_only=True)
class CrudOptions(ListOptions):
    """The options of a list, and those of writing its rows (see `crud_router`)."""

    create_schema: type[BaseModel] | None = None
    """The schema of a new row. None: the derived schema."""
    update_schema: type[BaseModel] | None = None
    """The schema of a change. None: the derived schema."""
    idempotency: bool = False
    """Whether a POST that is repeated with the same ``Idempotency-Key`` gets the first response."""
    idempotency_ttl: float | timedelta | None = None
    """How long the keys are kept, in seconds or as a timedelta. None: as long as the plugin says."""
    operations: Collection[Operation] = OPERATIONS
    """The operations that the router has. ``restore`` needs a class with soft deletion, and ``link`` needs ``links``.
    ``bulk_create``, ``bulk_update`` and ``link`` are not in the default."""
    permissions: Mapping[Operation, params.Depends] | params.Depends | None = field(default=None, hash=False)
    """A dependency for each operation, which refuses a request by an exception, or one for all. ``bulk_create`` falls
    back on ``create``, ``bulk_update`` and ``link`` on ``update``. Another operation that is not in the mapping needs
    no permission. None: no operation does."""
    hooks: object | None = field(default=None, hash=False)
    """An object whose methods are called before and after each row that is written (see `Hooks`). None: no hooks."""
    links: Sequence[FieldName] = ()
    """The to-many relationships by which rows can be linked. They need the operation ``link``."""
    nested: Sequence[FieldName] = ()
    """The one-to-many relationships whose rows the body of a POST may contain."""
    update_method: Literal["PATCH", "PUT"] = "PATCH"
    """The method of an update. A PUT changes the same as a PATCH: the fields that are in the body."""
    read_only_fields: Literal["refuse", "ignore"] = "refuse"
    """What an update does with fields that ``read_schema`` shows and ``update_schema`` does not have, such as the
    primary key: refuse them (422), or ignore them, because some clients send back the whole row."""
    status_codes: Mapping[WriteOperation, int] | None = field(default=None, hash=False)
    """The statuses of successful writes that differ from the usual ones: 201 of ``create``, 204 of ``delete``, 200 of
    ``update`` and ``restore``. A 204 has no body."""
    delete_body: DeleteBodyLike = field(default=None, hash=False)
    """The body of the response to a DELETE: a Pydantic object or a JSON value, or `DeleteBody.ROW`. The status is then
    200. None: there is no body, and the status is 204."""

    def __post_init__(self) -> None:
        for option in ("links", "nested"):
            if isinstance(getattr(self, option), str):
                raise ValidationError(f"{option}: a sequence of names was expected, not a text.", field=option)
        super().__post_init__()
        object.__setattr__(self, "operations", frozenset(self.operations))
        check_codes(self.status_codes)
        named = self.permissions if isinstance(self.permissions, Mapping) else {}
        for option, names in (("operations", self.operations), ("permissions", named)):
            for name in names:
                if name not in get_args(Operation):
                    known = ", ".join(get_args(Operation))
                    raise ValidationError(
                        f"{option}: there is no operation {name!r}. There are: {known}.", field=option
                    )
        for option in ("links", "nested"):
            object.__setattr__(self, option, tuple(dict.fromkeys(getattr(self, option))))
        if self.links and "link" not in self.operations:
            raise ValidationError("links: name 'link' in operations, too.", field="links")
        if "link" in self.operations and not self.links:
            raise ValidationError("operations: 'link' needs links, the relationships to link by.", field="operations")
        if self.nested and "create" not in self.operations:
            raise ValidationError("nested: name 'create' in operations, too.", field="nested")
        if self.nested and "bulk_create" in self.operations:
            raise ValidationError("nested: rows with children can't be created in bulk.", field="nested")

    def dependencies_of(self, operation: Operation) -> list[params.Depends]:
        """The dependency that an operation's permission is, as ``dependencies`` of its route."""
        permissions = self.permissions
        if isinstance(permissions, Mapping):
            permission = permissions.get(operation) or permissions.get(_SIMILAR.get(operation, operation))
        else:
            permission = permissions
        return [] if permission is None else [permission]


REACT_ADMIN = CrudOptions(paging="range", update_method="PUT", read_only_fields="ignore", delete_body=DeleteBody.ROW)
"""The options with which React Admin's data provider ``ra-data-simple-rest`` works: ``options=REACT_ADMIN``."""


class RouterKeywords(TypedDict, total=False):
    """The keyword arguments of `APIRouter` that the router functions pass on to it."""

    tags: list[str | Enum] | None
    dependencies: Sequence[params.Depends] | None
    default_response_class: type[Response]
    responses: dict[int | str, dict[str, Any]] | None
    callbacks: list[BaseRoute] | None
    redirect_slashes: bool
    route_class: type[APIRoute]
    deprecated: bool | None
    include_in_schema: bool
    generate_unique_id_function: Callable[[APIRoute], str]


class _Keywords(RouterKeywords, total=False):
    filters: Sequence[FieldName]
    sorts: Sequence[FieldName]
    search: Sequence[FieldName]
    default_sort: str | SortField | Sequence[FieldName]
    paging: Paging | None
    envelope: Envelope | None
    page_size: int | None
    max_page_size: int
    max_offset: int | None
    total: TotalKind
    totals: Collection[TotalKind]
    fields: Sequence[FieldName]
    include: Sequence[FieldName]
    list_etag: bool
    facets: Sequence[FieldName]
    exports: Collection[ExportFormat] | None
    csv_formulas: bool
    trailing_slash: bool
    repository: type | None
    plugin: Plugin | None
    policy: Policy[Any] | None


class ListKeywords(_Keywords, total=False):
    """The fields of `ListOptions`, and the options of `APIRouter`, as keyword arguments of `list_router`."""

    read_schema: type | None


class CrudKeywords(_Keywords, total=False):
    """As `ListKeywords`, for the fields of `CrudOptions` that are no parameters of `crud_router` by themselves."""

    idempotency: bool
    idempotency_ttl: float | timedelta | None
    operations: Collection[Operation]
    permissions: Mapping[Operation, params.Depends] | params.Depends | None
    hooks: object | None
    links: Sequence[FieldName]
    nested: Sequence[FieldName]
    update_method: Literal["PATCH", "PUT"]
    read_only_fields: Literal["refuse", "ignore"]
    status_codes: Mapping[WriteOperation, int] | None
    delete_body: DeleteBodyLike


O = TypeVar("O", bound=ListOptions)  # noqa: E741 - not read as a zero here
F = TypeVar("F", bound=Callable[..., object])


def with_keywords(options: O, keywords: Mapping[str, object]) -> tuple[O, dict[str, Any]]:
    """The options with the fields that ``keywords`` name replaced, and the other keywords, which are `APIRouter`'s."""
    names = {each.name for each in fields(options)}
    own: dict[str, Any] = {name: value for name, value in keywords.items() if name in names}
    return replace(options, **own), {name: value for name, value in keywords.items() if name not in names}


def showing(options: type[ListOptions]) -> Callable[[F], F]:
    """Decorate a router function so that ``help()`` shows each option as a keyword argument with its default."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        shown = {each.name: each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD}
        for each in fields(options):
            keyword = inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
            )
            shown.setdefault(each.name, keyword)
        router = inspect.Parameter("router", inspect.Parameter.VAR_KEYWORD, annotation=RouterKeywords.__name__)
        function.__signature__ = signature.replace(parameters=[*shown.values(), router])  # type: ignore[attr-defined]  # read by inspect.signature
        return function

    return decorate
