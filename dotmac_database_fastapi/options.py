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
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, get_args

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import BaseRoute

from dotmac_database import FieldName, TotalKind, ValidationError, name_of

from .bounds import MAX_OFFSET
from .pages import MAX_ROUTER_PAGE_SIZE, PAGE_SIZE, TOTALS
from .source import Plugin


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
    default_sort: str = ""
    """The order if a client names none, such as ``"-created_at,name"``. Empty: by the primary key."""
    page_size: int = PAGE_SIZE
    """The rows of a page if a client names no number."""
    max_page_size: int = MAX_ROUTER_PAGE_SIZE
    """The most rows of a page."""
    max_offset: int | None = MAX_OFFSET
    """The most rows that a numbered page may skip. None: any number."""
    total: TotalKind = "exact"
    """How the rows are counted if a client does not say (see `PaginationParams`)."""
    totals: Collection[TotalKind] = TOTALS
    """The kinds of total that clients may choose, besides ``total``."""
    repository: type | None = None
    """A repository class to use instead of the default."""
    plugin: Plugin | None = None
    """The `DatabasePlugin` to use. None: the only plugin of the app."""

    def __post_init__(self) -> None:
        # Equal options are one key of a cache, whether a field was given as a list or as a tuple.
        for name in ("filters", "sorts", "search"):
            object.__setattr__(self, name, tuple(map(name_of, getattr(self, name))))
        object.__setattr__(self, "totals", frozenset(self.totals))


Operation: TypeAlias = Literal["list", "read", "create", "update", "delete", "restore"]
"""What a generated router can do with rows."""

OPERATIONS: tuple[Operation, ...] = get_args(Operation)


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
    """The operations that the router has. ``restore`` needs a class with soft deletion."""
    permissions: Mapping[Operation, params.Depends] | params.Depends | None = field(default=None, hash=False)
    """A dependency for each operation, which refuses a request by an exception, or one for all. An operation that is
    not in the mapping needs no permission. None: no operation does."""
    update_method: Literal["PATCH", "PUT"] = "PATCH"
    """The method of an update. A PUT changes the same as a PATCH: the fields that are in the body."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "operations", frozenset(self.operations))
        named = self.permissions if isinstance(self.permissions, Mapping) else {}
        for option, names in (("operations", self.operations), ("permissions", named)):
            for name in names:
                if name not in OPERATIONS:
                    known = ", ".join(OPERATIONS)
                    raise ValidationError(
                        f"{option}: there is no operation {name!r}. There are: {known}.", field=option
                    )

    def dependencies_of(self, operation: Operation) -> list[params.Depends]:
        """The dependency that an operation's permission is, as ``dependencies`` of its route."""
        permissions = self.permissions
        permission = permissions.get(operation) if isinstance(permissions, Mapping) else permissions
        return [] if permission is None else [permission]


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
    default_sort: str
    page_size: int
    max_page_size: int
    max_offset: int | None
    total: TotalKind
    totals: Collection[TotalKind]
    repository: type | None
    plugin: Plugin | None


class ListKeywords(_Keywords, total=False):
    """The fields of `ListOptions`, and the options of `APIRouter`, as keyword arguments of `list_router`."""

    read_schema: type | None


class CrudKeywords(_Keywords, total=False):
    """As `ListKeywords`, for the fields of `CrudOptions` that are no parameters of `crud_router` by themselves."""

    idempotency: bool
    idempotency_ttl: float | timedelta | None
    operations: Collection[Operation]
    permissions: Mapping[Operation, params.Depends] | params.Depends | None
    update_method: Literal["PATCH", "PUT"]


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
