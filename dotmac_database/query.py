"""What to ask for: filters, sorts and pages, as frozen values.

Nothing here knows a database. Objects built by hand raise Pydantic's ``ValidationError`` (a
``ValueError``) for a bad value; a repository given a dict raises the toolkit's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from .errors import ValidationError

T = TypeVar("T")
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

MAX_PAGE_SIZE = 1000

SortBy: TypeAlias = Literal["value", "folded", "relevance"]
"""What of a field is sorted by; see `SortField`."""

TotalKind: TypeAlias = Literal["exact", "bounded", "estimate", "none"]
"""How a numbered page's total is come by; see `PaginationParams`."""


class FilterOperator(StrEnum):
    """How a field is compared; the values are what a query string carries (``score__gte=10``)."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NOT_IN = "not_in"
    BETWEEN = "between"
    LIKE = "like"
    NOT_LIKE = "not_like"
    ILIKE = "ilike"
    NOT_ILIKE = "not_ilike"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    IS_NULL = "is_null"
    IS_NOT_NULL = "is_not_null"
    CONTAINS = "contains"
    CONTAINED_BY = "contained_by"
    OVERLAPS = "overlaps"
    SEARCH = "search"


class SortOrder(StrEnum):
    """The direction of a sort."""

    ASC = "asc"
    DESC = "desc"


@dataclass(frozen=True, config=_CONFIG)
class QueryFilter:
    """One condition on one field.

    ``field`` may be a dotted path: through relationships (``"author.name"``: some related row matches)
    or into a JSON column (``"settings.theme"``). ``value`` is coerced to the column's Python type.
    """

    field: str
    operator: FilterOperator = FilterOperator.EQ
    value: Any = None


@dataclass(frozen=True, config=_CONFIG)
class FilterGroup:
    """Filters joined by one word: see `any_of`, `all_of`, `none_of`."""

    mode: Literal["any", "all", "none"]
    members: tuple[Filter, ...]


Filter: TypeAlias = Annotated[QueryFilter | FilterGroup, Field(union_mode="left_to_right")]


def any_of(*filters: Filter) -> FilterGroup:
    """Rows that match at least one of ``filters``; of none, no row."""
    return FilterGroup("any", filters)


def all_of(*filters: Filter) -> FilterGroup:
    """Rows that match every one of ``filters``; of none, every row."""
    return FilterGroup("all", filters)


def none_of(*filters: Filter) -> FilterGroup:
    """Rows that match not one of ``filters``; of none, every row. As NOT in SQL: a NULL matches neither way."""
    return FilterGroup("none", filters)


@dataclass(frozen=True, config=_CONFIG)
class SortField:
    """Order by one field. ``nulls=None``: NULLs come last ascending and first descending, on every dialect.

    ``by`` says by what of a text: its ``"value"``; ``"folded"``, the same in any case; or its ``"relevance"`` to the
    words that a SEARCH filter on the field asks for, the most relevant first where the order descends.
    """

    field: str
    order: SortOrder = SortOrder.ASC
    nulls: Literal["first", "last"] | None = None
    by: SortBy = "value"


@dataclass(frozen=True, config=_CONFIG)
class PaginationParams:
    """One numbered page: ``page`` counts from 1, ``per_page`` is 1 to 1000.

    ``total`` says what the number of all rows may cost. ``"exact"`` counts every one of them. ``"bounded"`` stops
    counting at ``bound`` rows ("10,000+"). ``"estimate"`` is exact up to ``bound``, and beyond it what PostgreSQL's
    planner expects; SQLite has no such estimate, and says ``bound``. ``"none"`` counts nothing.
    """

    page: int = Field(default=1, ge=1)
    per_page: int = Field(default=20, ge=1, le=MAX_PAGE_SIZE)
    total: TotalKind = "exact"
    bound: int = Field(default=10_000, ge=1)

    @property
    def offset(self) -> int:
        """How many rows come before this page."""
        return (self.page - 1) * self.per_page


@dataclass(frozen=True, config=_CONFIG)
class CursorPaginationParams:
    """One page after, or before, a cursor.

    ``cursor=None`` is the first page. Where the options carry sorts those are the order, else
    ``cursor_field`` in the direction ``ascending``; the primary key always ends the order.
    """

    limit: int = Field(default=20, ge=1, le=MAX_PAGE_SIZE)
    cursor: str | None = None
    cursor_field: str = "id"
    ascending: bool = True


def _listed(value: object) -> object:
    """One filter or group is accepted wherever a list of them is; None is an empty list."""
    if value is None:
        return ()
    return (value,) if isinstance(value, (QueryFilter, FilterGroup, SortField)) else value


def _named(value: object) -> object:
    """One relationship name is accepted wherever a list of them is; None is an empty list."""
    return () if value is None else (value,) if isinstance(value, str) else value


@dataclass(frozen=True, config=_CONFIG)
class QueryOptions:
    """What to read, in which order, and how much of it.

    ``relationships`` are loaded with the rows (dotted paths nest), one more statement for each.
    ``include_deleted`` shows soft-deleted rows too; it never widens the tenant.
    """

    filters: Annotated[Sequence[Filter], BeforeValidator(_listed)] = ()
    sorts: Annotated[Sequence[SortField], BeforeValidator(_listed)] = ()
    pagination: PaginationParams | None = None
    cursor_pagination: CursorPaginationParams | None = None
    include_deleted: bool = False
    relationships: Annotated[Sequence[str], BeforeValidator(_named)] = ()


@dataclass(frozen=True, config=_CONFIG)
class Aggregate:
    """One measure over rows: how many, or the sum, mean, least or greatest of a field.

    ``field=None`` counts rows; a field counts those in which it is not NULL. ``distinct`` takes each value once.
    """

    function: Literal["count", "sum", "avg", "min", "max"] = "count"
    field: str | None = None
    distinct: bool = False


OptionsLike: TypeAlias = QueryOptions | Mapping[str, Any] | None
MeasuresLike: TypeAlias = Mapping[str, Aggregate | str | tuple[str, str] | Mapping[str, Any]]
FiltersLike: TypeAlias = Filter | Iterable[Filter | Mapping[str, Any]] | None

_NO_OPTIONS = QueryOptions()
_OPTIONS = pydantic.TypeAdapter(QueryOptions)
_MEASURES: pydantic.TypeAdapter[dict[str, Aggregate]] = pydantic.TypeAdapter(dict[str, Aggregate])
_FILTERS: pydantic.TypeAdapter[list[Filter]] = pydantic.TypeAdapter(list[Filter])


def options_of(options: OptionsLike) -> QueryOptions:
    """``options`` as a `QueryOptions`: None and ``{}`` ask for everything; a dict is read by its keys."""
    if isinstance(options, QueryOptions):
        return options
    if not options:
        return _NO_OPTIONS
    return _validated(_OPTIONS, options, "options")


def filters_of(filters: FiltersLike) -> Sequence[Filter]:
    """``filters`` as a sequence: None, one filter, one group and dicts of them are accepted."""
    listed: Any = _listed(filters)
    if isinstance(listed, Iterable) and not isinstance(listed, (str, Mapping)):
        listed = list(listed)
        if all(isinstance(each, (QueryFilter, FilterGroup)) for each in listed):
            checked: list[Filter] = listed
            return checked
    return _validated(_FILTERS, listed, "filters")


def aggregates_of(measures: MeasuresLike) -> dict[str, Aggregate]:
    """``measures`` as `Aggregate` objects by name: their functions, pairs with a field, and dicts are accepted."""
    plain = {name: _aggregate(measure) for name, measure in measures.items()}
    return _validated(_MEASURES, plain, "measures")


def _aggregate(measure: Any) -> Any:
    if isinstance(measure, str):
        return {"function": measure}
    if isinstance(measure, tuple) and len(measure) == 2:
        return {"function": measure[0], "field": measure[1]}
    return measure


def _validated(adapter: pydantic.TypeAdapter[T], value: object, what: str) -> T:
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        raise ValidationError(f"{what}: {_error_text(error)}", field=_place(error)) from error


def _place(error: pydantic.ValidationError) -> str:
    return ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])


def _error_text(error: pydantic.ValidationError) -> str:
    """Each fault as ``place: what is wrong``, without the input."""
    faults = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)


@plain_dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a back-fill has come: ``done`` of ``total`` rows, counted before it began.

    ``position`` is the primary key of the last row done: where to go on ``after``. With others writing meanwhile
    ``done`` may end beside ``total``.
    """

    done: int
    total: int
    position: tuple[Any, ...]
