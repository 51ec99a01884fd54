"""The options of a query: filters, sorts and pages, as frozen values that are independent of any database.

Their constructors raise Pydantic's ``ValidationError`` (a ``ValueError``) for an invalid value. A dict with invalid
values that is passed to a repository raises the toolkit's `ValidationError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Required, TypeAlias, TypedDict, TypeVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, GetPydanticSchema, Tag
from pydantic.dataclasses import dataclass
from sqlalchemy.orm import Mapped
from typing_extensions import TypeVar as TypeVarWithDefault

from .errors import ValidationError
from .field_names import FieldName, Name, name_of, one_or_more
from .option_faults import faults_of

T = TypeVar("T")
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

MAX_PAGE_SIZE = 1000
"""The most rows of one page, numbered or between cursors."""

SortBy: TypeAlias = Literal["value", "folded", "relevance"]
"""The property of a field that a sort uses; see `SortField`."""

AggregateName: TypeAlias = Literal["count", "sum", "avg", "min", "max"]
"""The functions of `Aggregate`."""

TotalKind: TypeAlias = Literal["exact", "bounded", "estimate", "none"]
"""How the total of a numbered page is determined; see `PaginationParams`."""


class FilterOperator(StrEnum):
    """The operators of filters. The values are the suffixes in a query string (``score__gte=10``)."""

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


OperatorName: TypeAlias = Literal[
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "not_in",
    "between",
    "like",
    "not_like",
    "ilike",
    "not_ilike",
    "starts_with",
    "ends_with",
    "is_null",
    "is_not_null",
    "contains",
    "contained_by",
    "overlaps",
    "search",
]
"""The values of `FilterOperator`, any of which stands for its operator."""


class SortOrder(StrEnum):
    """The direction of a sort."""

    ASC = "asc"
    DESC = "desc"


@dataclass(frozen=True, config=_CONFIG)
class QueryFilter:
    """One condition on one field.

    ``field`` can be an attribute of the class (``User.name``), or a dotted path. A path through a relationship
    (``"author.name"``) matches a row if at least one related row matches. A path can also lead into a JSON column
    (``"settings.theme"``). ``operator`` can be its value (``"gte"``). ``value`` is converted to the column's Python
    type.
    """

    field: Name
    operator: FilterOperator = FilterOperator.EQ
    value: Any = None

    if TYPE_CHECKING:

        def __init__(
            self, field: FieldName, operator: FilterOperator | OperatorName = FilterOperator.EQ, value: object = None
        ) -> None: ...


@dataclass(frozen=True, config=_CONFIG)
class FilterGroup:
    """Filters combined by OR, AND or NOT: see `any_of`, `all_of`, `none_of`."""

    mode: Literal["any", "all", "none"]
    members: tuple[Filter, ...]


Filter: TypeAlias = Annotated[QueryFilter | FilterGroup, Field(union_mode="left_to_right")]


def any_of(*filters: Filter) -> FilterGroup:
    """Rows that match at least one of ``filters``; no rows if there are no filters."""
    return FilterGroup("any", filters)


def all_of(*filters: Filter) -> FilterGroup:
    """Rows that match all of ``filters``; all rows if there are no filters."""
    return FilterGroup("all", filters)


def none_of(*filters: Filter) -> FilterGroup:
    """Rows that match none of ``filters``; all rows if there are no filters.

    As with NOT in SQL, a row does not match if a filter compares a NULL.
    """
    return FilterGroup("none", filters)


@dataclass(frozen=True, config=_CONFIG)
class SortField:
    """Order by one field. ``nulls=None``: on all dialects, NULLs are last in ascending and first in descending order.

    ``by`` says how a text is sorted: by its ``"value"``; ``"folded"``, which ignores case; or by its ``"relevance"`` to
    the words of a SEARCH filter on the field. In descending order, the most relevant row comes first. Where sorts are
    taken, ``"name"`` is ``SortField("name")``, and ``"-name"`` is that in descending order.
    """

    field: Name
    order: SortOrder = SortOrder.ASC
    nulls: Literal["first", "last"] | None = None
    by: SortBy = "value"

    if TYPE_CHECKING:

        def __init__(
            self,
            field: FieldName,
            order: SortOrder | Literal["asc", "desc"] = SortOrder.ASC,
            nulls: Literal["first", "last"] | None = None,
            by: SortBy = "value",
        ) -> None: ...


@dataclass(frozen=True, config=_CONFIG)
class PaginationParams:
    """One numbered page. ``page`` counts from 1; ``per_page`` is 1 to 1000.

    ``total`` says how the matching rows are counted. ``"exact"`` counts every row. ``"bounded"`` stops counting at
    ``bound`` rows ("10,000+"). ``"estimate"`` does so too, and then takes the estimate of PostgreSQL's planner if that
    is greater; SQLite has no estimate. ``"none"`` does not count.
    """

    page: int = Field(default=1, ge=1)
    per_page: int = Field(default=20, ge=1, le=MAX_PAGE_SIZE)
    total: TotalKind = "exact"
    bound: int = Field(default=10_000, ge=1)

    @property
    def offset(self) -> int:
        """The number of rows before this page."""
        return (self.page - 1) * self.per_page

    @property
    def limit(self) -> int:
        """The most rows of this page: ``per_page``, by the name that `OffsetParams` has for it."""
        return self.per_page


@dataclass(frozen=True, config=_CONFIG)
class OffsetParams:
    """The rows after the first ``skip`` ones, at most ``limit``, which is 1 to 1000.

    Unlike `PaginationParams`, it can begin at any row. ``total`` and ``bound`` are as there.
    """

    skip: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=MAX_PAGE_SIZE)
    total: TotalKind = "exact"
    bound: int = Field(default=10_000, ge=1)

    @property
    def offset(self) -> int:
        """The number of rows before this page: ``skip``, by the name that `PaginationParams` has for it."""
        return self.skip


@dataclass(frozen=True, config=_CONFIG)
class CursorPaginationParams:
    """One page of ``limit`` rows after or before a cursor. ``cursor=None`` is the first page.

    The order is that of the options' sorts. Without sorts, it is that of ``cursor_field``, ascending or descending. The
    primary key is always the last part of the order.
    """

    limit: int = Field(default=20, ge=1, le=MAX_PAGE_SIZE)
    cursor: str | None = None
    cursor_field: Name = "id"
    ascending: bool = True

    if TYPE_CHECKING:

        def __init__(
            self, limit: int = 20, cursor: str | None = None, cursor_field: FieldName = "id", ascending: bool = True
        ) -> None: ...


def _as_tuple(value: object) -> object:
    """A single filter or group as a tuple; None as an empty one. Other values are returned unchanged."""
    if value is None:
        return ()
    return (value,) if isinstance(value, (QueryFilter, FilterGroup)) else value


def _as_sorts(value: object) -> object:
    """Sorts in a list, from names and attributes too (``"-name"``, ``User.name``); a mapping as one sort."""
    if isinstance(value, (SortField, Mapping)):
        return (value,)
    return [each if isinstance(each, (SortField, Mapping)) else _as_sort(each) for each in one_or_more(value)]


def _as_sort(field: FieldName) -> SortField:
    name = name_of(field)
    return SortField(name[1:], SortOrder.DESC) if name.startswith("-") else SortField(field)


def _as_names(value: object) -> object:
    """A single name as a tuple; None as an empty one. Other values are returned unchanged."""
    return value if isinstance(value, Mapping) else one_or_more(value)


def _page_kind(value: object) -> str:
    """The name of the class of a page: a dict with ``skip`` or ``limit`` is an `OffsetParams`."""
    names = value.keys() if isinstance(value, Mapping) else ()
    is_offset = isinstance(value, OffsetParams) or "skip" in names or "limit" in names
    return OffsetParams.__name__ if is_offset else PaginationParams.__name__


_PAGE_KINDS = frozenset((OffsetParams.__name__, PaginationParams.__name__))

_Pagination: TypeAlias = Annotated[
    Annotated[PaginationParams, Tag(PaginationParams.__name__)] | Annotated[OffsetParams, Tag(OffsetParams.__name__)],
    Discriminator(_page_kind),
]
PageT = TypeVarWithDefault(
    "PageT", bound=PaginationParams | OffsetParams | None, default=PaginationParams | None, covariant=True
)
"""The class of the options' ``pagination``, from which type checkers know the result of `page`."""


_NO_PAGE: Any = None
"""The default of ``pagination``. `Any`, because type checkers can't know that the default of `PageT` includes None."""


@dataclass(frozen=True, config=_CONFIG)
class QueryOptions(Generic[PageT]):
    """The filters, the order and the page of a read.

    ``relationships`` are loaded by additional statements: one for each, and for each 10,000 rows. Dotted paths name
    nested relationships. A dict from a path to options (or None) filters, sorts and, by ``pagination``, limits the
    related rows within each parent, by one statement for all parents. A flush writes only what is added to such a
    collection or removed from it, and `BaseRepository.delete` still finds all related rows. ``include_deleted``
    includes soft-deleted rows, but never rows of another tenant.

    A sort can be a name or an attribute (``"name"``, ``User.name``); ``"-name"`` is descending.
    """

    filters: Annotated[Sequence[Filter], BeforeValidator(_as_tuple)] = ()
    sorts: Annotated[Sequence[SortField], BeforeValidator(_as_sorts)] = ()
    pagination: Annotated[PageT, GetPydanticSchema(lambda _, handler: handler(_Pagination | None))] = _NO_PAGE
    cursor_pagination: CursorPaginationParams | None = None
    include_deleted: bool = False
    relationships: Annotated[Mapping[Name, QueryOptions | None] | Sequence[Name], BeforeValidator(_as_names)] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            filters: FiltersLike = (),
            sorts: SortsLike = (),
            pagination: PageT = _NO_PAGE,
            cursor_pagination: CursorPaginationParams | None = None,
            include_deleted: bool = False,
            relationships: RelationshipsLike = (),
        ) -> None: ...


@dataclass(frozen=True, config=_CONFIG)
class Aggregate:
    """One aggregate: the count, or the sum, average, minimum or maximum of a field.

    A count with ``field=None`` counts all rows; with a field, it counts the rows in which the field is not NULL.
    ``distinct`` uses each value only once.
    """

    function: AggregateName = "count"
    field: Name | None = None
    distinct: bool = False

    if TYPE_CHECKING:

        def __init__(
            self,
            function: AggregateName = "count",
            field: FieldName | None = None,
            distinct: bool = False,
        ) -> None: ...


@dataclass(frozen=True, config=_CONFIG)
class Count:
    """The number of an entity's related rows: ``values("name", posts=Count("posts"))``.

    Only rows within the repository's scope are counted, and with ``filters`` only those that match.
    """

    relationship: Name
    filters: Annotated[Sequence[Filter], BeforeValidator(_as_tuple)] = ()

    if TYPE_CHECKING:

        def __init__(self, relationship: FieldName, filters: FiltersLike = ()) -> None: ...


class FilterFields(TypedDict, total=False):
    """The fields of `QueryFilter`, as a dict has them."""

    field: Required[FieldName]
    operator: FilterOperator | OperatorName
    value: object


class GroupFields(TypedDict):
    """The fields of `FilterGroup`."""

    mode: Literal["any", "all", "none"]
    members: Sequence[Filter | FilterFields | GroupFields]


class SortFields(TypedDict, total=False):
    """The fields of `SortField`."""

    field: Required[FieldName]
    order: SortOrder | Literal["asc", "desc"]
    nulls: Literal["first", "last"] | None
    by: SortBy


class PageFields(TypedDict, total=False):
    """The fields of `PaginationParams`."""

    page: int
    per_page: int
    total: TotalKind
    bound: int


class OffsetFields(TypedDict, total=False):
    """The fields of `OffsetParams`."""

    skip: Required[int]
    limit: int
    total: TotalKind
    bound: int


class CursorFields(TypedDict, total=False):
    """The fields of `CursorPaginationParams`."""

    limit: int
    cursor: str | None
    cursor_field: FieldName
    ascending: bool


class AggregateFields(TypedDict, total=False):
    """The fields of `Aggregate`."""

    function: AggregateName
    field: FieldName | None
    distinct: bool


class _OptionsFields(TypedDict, total=False):
    filters: FiltersLike
    sorts: SortsLike
    include_deleted: bool
    relationships: RelationshipsLike


class OffsetOptions(_OptionsFields, total=False):
    """The fields of `QueryOptions` with an `OffsetParams`."""

    pagination: Required[OffsetParams | OffsetFields]


class NumberedFields(_OptionsFields, total=False):
    """The fields of `QueryOptions` with a numbered page, or none, or a cursor."""

    pagination: PaginationParams | PageFields | None
    cursor_pagination: CursorPaginationParams | CursorFields | None


class OptionsFields(_OptionsFields, total=False):
    """The fields of `QueryOptions`, as a dict has them: ``{"sorts": "-name", "pagination": {"page": 2}}``."""

    pagination: PaginationParams | PageFields | OffsetParams | OffsetFields | None
    cursor_pagination: CursorPaginationParams | CursorFields | None


NumberedOptions: TypeAlias = QueryOptions | NumberedFields | Sequence[Filter] | None
OptionsLike: TypeAlias = QueryOptions[Any] | OptionsFields | Sequence[Filter] | None
RelationshipsLike: TypeAlias = str | Mapped[Any] | Sequence[FieldName] | Mapping[Any, OptionsLike] | None
SortsLike: TypeAlias = SortField | SortFields | str | Mapped[Any] | Sequence[FieldName] | None
MeasuresLike: TypeAlias = Mapping[str, Aggregate | AggregateName | tuple[AggregateName, FieldName] | AggregateFields]
FiltersLike: TypeAlias = Filter | Iterable[Filter | FilterFields | GroupFields] | None

_NO_OPTIONS = QueryOptions()
_OPTIONS = pydantic.TypeAdapter(QueryOptions)
_MEASURES: pydantic.TypeAdapter[dict[str, Aggregate]] = pydantic.TypeAdapter(dict[str, Aggregate])
_FILTERS: pydantic.TypeAdapter[list[Filter]] = pydantic.TypeAdapter(list[Filter])
_SORTS: pydantic.TypeAdapter[Sequence[SortField]] = pydantic.TypeAdapter(list[SortField])


def options_of(options: OptionsLike | OffsetOptions | NumberedOptions) -> QueryOptions[Any]:
    """``options`` as a `QueryOptions`, from a dict, a list of filters, or None. Without any, they select all rows."""
    if isinstance(options, QueryOptions):
        return options
    if not options:
        return _NO_OPTIONS
    if isinstance(options, (list, tuple)):
        return QueryOptions(filters=filters_of(options))
    return _validated(_OPTIONS, options, "options")


def plain_relationships(relationships: RelationshipsLike) -> Mapping[str, QueryOptions | None] | Sequence[str]:
    """``relationships`` as `QueryOptions` has them, from dicts of options, one name, or None."""
    if isinstance(relationships, Mapping):
        return {name_of(path): None if each is None else options_of(each) for path, each in relationships.items()}
    return () if relationships is None else [name_of(each) for each in one_or_more(relationships)]


def filters_of(filters: FiltersLike) -> Sequence[Filter]:
    """``filters`` as a sequence, from None, one filter or group, or an iterable of filters, groups and dicts."""
    members: Any = _as_tuple(filters)
    if isinstance(members, Iterable) and not isinstance(members, (str, Mapping)):
        members = list(members)
        if all(isinstance(each, (QueryFilter, FilterGroup)) for each in members):
            checked: list[Filter] = members
            return checked
    return _validated(_FILTERS, members, "filters")


def sorts_of(sorts: SortsLike) -> Sequence[SortField]:
    """``sorts`` as a sequence, from None, one sort, or a sequence of sorts and dicts."""
    return () if sorts is None else _validated(_SORTS, _as_sorts(sorts), "sorts")


def aggregates_of(measures: MeasuresLike) -> dict[str, Aggregate]:
    """``measures`` as `Aggregate` objects by name, from names of functions, pairs of function and field, or dicts."""
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
        place = _faults(error)[0][0]
        raise ValidationError(f"{what}: {error_text(error)}", field=place) from error


def _faults(error: pydantic.ValidationError) -> list[tuple[str, str]]:
    return faults_of(error, _PAGE_KINDS, [each.value for each in FilterOperator])


def error_text(error: pydantic.ValidationError) -> str:
    """The errors as ``place: message``, without the input."""
    return "; ".join(f"{place}: {message}" for place, message in _faults(error))


@plain_dataclass(frozen=True, slots=True)
class BatchProgress:
    """The progress of `in_batches`: ``done`` of ``total`` rows. The total is counted before the first batch.

    ``position`` is the primary key of the last processed row; pass it as ``after`` to resume. The final ``done`` can
    differ from ``total`` if rows are inserted or deleted meanwhile.
    """

    done: int
    total: int
    position: tuple[Any, ...]
