"""A query string → filters, sorts and a page, every fault named at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, get_args

import pydantic
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

from dotmac_database import (
    CursorPaginationParams,
    FilterGroup,
    FilterOperator,
    PaginationParams,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    TotalKind,
    any_of,
    traits_of,
)

from .fields import LISTS, ClientField, fields_of
from .internals import declared_query, dependant_of, query_parameters, route_of
from .registry import plugins_of
from .tenants import TenantSource

MAX_PAGE_SIZE = 1000
MAX_PAGE = 10**15
"""The offset of a page must be a 64-bit integer."""

PAGE_PARAMETERS = frozenset({"page", "per_page", "total", "limit", "cursor"})

Values = Mapping[str, Sequence[str]]
_TRUTH = pydantic.TypeAdapter(bool)
_TOTALS: tuple[TotalKind, ...] = get_args(TotalKind)
_NULLS = (FilterOperator.IS_NULL, FilterOperator.IS_NOT_NULL)


@dataclass(slots=True)
class Faults:
    """What is wrong with a query string, to be told together as FastAPI tells it."""

    found: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, message: str, kind: str = "value_error", given: Any = None) -> None:
        """One fault of one parameter."""
        self.found.append({"type": kind, "loc": ("query", name), "msg": message, "input": given})

    def add_all(self, name: str, error: pydantic.ValidationError, given: Any) -> None:
        """What Pydantic found wrong with a parameter's value."""
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            self.add(name, each["msg"], each["type"], given)

    def refuse(self) -> None:
        """Raise `RequestValidationError` where there is any."""
        if self.found:
            raise RequestValidationError(self.found)


def values_of(connection: HTTPConnection) -> dict[str, list[str]]:
    """The query string's values by name, in their order."""
    values: dict[str, list[str]] = {}
    for name, value in connection.query_params.multi_items():
        values.setdefault(name, []).append(value)
    return values


def refuse_unknown(connection: HTTPConnection, values: Values, known: frozenset[str], faults: Faults) -> None:
    """Name each parameter that neither ``known`` nor the route declares."""
    unknown = values.keys() - known
    if not unknown:
        return
    declared = known | query_parameters(connection) | _of_plugins(connection)
    for name in sorted(unknown - declared):
        near = get_close_matches(name, declared, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        faults.add(name, f"There is no query parameter {name!r}{hint}", "extra_forbidden", values[name][0])


def _of_plugins(connection: HTTPConnection) -> frozenset[str]:
    """The parameters of the dependencies that tell the plugins who calls, which the route does not show."""
    path = getattr(route_of(connection), "path_format", "") or ""
    names: set[str] = set()
    for plugin in plugins_of(connection.scope.get("app")).values():
        for dependency in (plugin.tenant, plugin.actor):
            if dependency is not None and not isinstance(dependency, TenantSource):
                names |= declared_query(dependant_of(dependency, path))
    return frozenset(names)


def single(values: Values, name: str, faults: Faults) -> str | None:
    """A parameter that may be given once."""
    given = values.get(name)
    if given is None:
        return None
    if len(given) > 1:
        faults.add(name, "It is given more than once.", given=list(given))
    return given[0]


class FilterParams:
    """``status=active``, ``score__gte=10``, ``status__in=a,b``: a field, or a field and an operator."""

    def __init__(self, model: type, names: Iterable[str] = (), *, reserved: frozenset[str] = frozenset()) -> None:
        self.fields = fields_of(model, names)
        self.declared: dict[str, tuple[ClientField, FilterOperator]] = {}
        for each in self.fields.values():
            for operator in each.operators:
                name = each.name if operator is FilterOperator.EQ else f"{each.name}__{operator.value}"
                # A field of the name of another parameter is asked for with its operator.
                self.declared[f"{name}__eq" if name in reserved else name] = each, operator
        equals = {f"{each.name}__eq": (each, FilterOperator.EQ) for each in self.fields.values()}
        self.accepted = {**{n: e for n, e in equals.items() if FilterOperator.EQ in e[0].operators}, **self.declared}

    @cached_property
    def known(self) -> frozenset[str]:
        """The names of its parameters."""
        return frozenset(self.accepted)

    def read(self, values: Values, faults: Faults) -> list[QueryFilter]:
        """The filters that the values ask for, in their order."""
        return [
            QueryFilter(each.name, operator, value)
            for name, given in values.items()
            if name in self.accepted
            for each, operator in (self.accepted[name],)
            for value in self._read(name, each, operator, given, faults)
        ]

    def _read(
        self, name: str, each: ClientField, operator: FilterOperator, given: Sequence[str], faults: Faults
    ) -> Iterator[Any]:
        """The value, or nothing where it is refused."""
        try:
            if operator in LISTS:
                yield from self._read_list(name, each, operator, given, faults)
            elif len(given) > 1:
                faults.add(name, "It is given more than once.", given=list(given))
            elif operator in _NULLS:
                yield _TRUTH.validate_python(given[0])
            else:
                yield each.adapter.validate_python(given[0])
        except pydantic.ValidationError as refused:
            faults.add_all(name, refused, given[0] if len(given) == 1 else list(given))

    def _read_list(
        self, name: str, each: ClientField, operator: FilterOperator, given: Sequence[str], faults: Faults
    ) -> Iterator[list[Any]]:
        # A text that has a comma of its own is given by repeating the parameter.
        whole = each.is_text and len(given) > 1
        parts = given if whole else [part for value in given if value for part in value.split(",")]
        if operator is FilterOperator.BETWEEN and len(parts) != 2:
            faults.add(name, "Two values are expected: the least and the greatest.", given=list(given))
            return
        yield [each.adapter.validate_python(part) for part in parts]

    def openapi(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Each parameter's name, schema and description."""
        for name, (each, operator) in self.declared.items():
            schema: dict[str, Any] = each.schema
            if operator in LISTS:
                ends = {"minItems": 2, "maxItems": 2} if operator is FilterOperator.BETWEEN else {}
                schema = {"type": "array", "items": schema, **ends}
            elif operator in _NULLS:
                schema = {"type": "boolean"}
            yield name, schema, f"{each.name}: {_WORDS[operator]}"


_WORDS = {
    FilterOperator.EQ: "equal to this",
    FilterOperator.NE: "not equal to this",
    FilterOperator.GT: "greater than this",
    FilterOperator.GTE: "this or greater",
    FilterOperator.LT: "less than this",
    FilterOperator.LTE: "this or less",
    FilterOperator.IN: "one of these",
    FilterOperator.NOT_IN: "none of these",
    FilterOperator.BETWEEN: "between these two, both included",
    FilterOperator.LIKE: "contains this, or matches it where it has a %; minds case",
    FilterOperator.NOT_LIKE: "the opposite of like",
    FilterOperator.ILIKE: "contains this, or matches it where it has a %; in any case",
    FilterOperator.NOT_ILIKE: "the opposite of ilike",
    FilterOperator.STARTS_WITH: "starts with this",
    FilterOperator.ENDS_WITH: "ends with this",
    FilterOperator.IS_NULL: "whether it has no value",
    FilterOperator.IS_NOT_NULL: "whether it has a value",
    FilterOperator.CONTAINS: "contains this",
    FilterOperator.CONTAINED_BY: "all of it is among these",
    FilterOperator.OVERLAPS: "some of it is among these",
    FilterOperator.SEARCH: "has these words",
}


_FOLDED = "__folded"
_RELEVANCE = "relevance"


class SortParams:
    """``sort=-created_at,name``: fields, a ``-`` before those that descend."""

    known = frozenset({"sort"})

    def __init__(self, model: type, names: Iterable[str] = (), searched: Sequence[str] = ()) -> None:
        fields = fields_of(model, names)
        self.names = tuple(fields)
        ascending: dict[str, tuple[SortField, ...]] = {}
        for name, each in fields.items():
            ascending[name] = (SortField(name),)
            if each.is_text:
                ascending[f"{name}{_FOLDED}"] = (SortField(name, by="folded"),)
        if searched:
            ascending.setdefault(_RELEVANCE, tuple(SortField(name, by="relevance") for name in searched))
        self.choices = ascending | {
            f"-{name}": tuple(SortField(sort.field, SortOrder.DESC, by=sort.by) for sort in sorts)
            for name, sorts in ascending.items()
        }

    def read(self, values: Values, faults: Faults) -> list[SortField]:
        """The sorts that the values ask for, in their order."""
        chosen: dict[tuple[str, str], SortField] = {}
        for given in values.get("sort", ()):
            for part in given.split(",") if given else ():
                sorts = self.choices.get(part.removeprefix("+").strip())
                if sorts is None:
                    near = get_close_matches(part, self.choices, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"it can be {', '.join(self.names)}."
                    faults.add("sort", f"Nothing can be sorted by {part!r}; {hint}", "enum", part)
                elif any((sort.field, sort.by) in chosen for sort in sorts):
                    faults.add("sort", f"{sorts[0].field!r} is given more than once.", given=part)
                elif sorts[0].by == "relevance" and not any(text.strip() for text in values.get("q", ())):
                    faults.add("sort", "Relevance is that to the words of q, which are missing.", given=part)
                else:
                    chosen.update({(sort.field, sort.by): sort for sort in sorts})
        return list(chosen.values())

    def openapi(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Each parameter's name, schema and description."""
        schema = {"type": "array", "items": {"type": "string", "enum": list(self.choices)}}
        yield (
            "sort",
            schema,
            (
                "The order: fields with commas between them, a - before one that descends, "
                f"{_FOLDED} after a text whose upper and lower case are the same."
            ),
        )


@dataclass(frozen=True)
class PageParams:
    """``page``, ``per_page`` and ``total``, or ``limit`` and ``cursor``; never both kinds."""

    cursor_field: str
    size: int = 20
    max_size: int = MAX_PAGE_SIZE
    total: TotalKind = "exact"

    known = PAGE_PARAMETERS

    def read(self, values: Values, faults: Faults) -> dict[str, Any]:
        """``pagination`` or ``cursor_pagination`` for `QueryOptions`; the first page where nothing is asked for."""
        numbered, seeking = values.keys() & {"page", "per_page", "total"}, values.keys() & {"limit", "cursor"}
        if numbered and seeking:
            name = min(seeking)
            faults.add(name, f"{name!r} does not go with {min(numbered)!r}: a page has a number or a cursor.")
            return {}
        if seeking:
            limit = self._number(values, "limit", self.size, self.max_size, faults)
            cursor = single(values, "cursor", faults)
            return {"cursor_pagination": CursorPaginationParams(limit, cursor, self.cursor_field)}
        page = self._number(values, "page", 1, MAX_PAGE, faults)
        per_page = self._number(values, "per_page", self.size, self.max_size, faults)
        return {"pagination": PaginationParams(page, per_page, self._total(values, faults))}

    def _total(self, values: Values, faults: Faults) -> TotalKind:
        given = single(values, "total", faults)
        for kind in _TOTALS:
            if given == kind:
                return kind
        if given is not None:
            faults.add("total", f"Input should be {', '.join(_TOTALS[:-1])} or {_TOTALS[-1]}", "enum", given)
        return self.total

    def _number(self, values: Values, name: str, default: int, most: int, faults: Faults) -> int:
        given = single(values, name, faults)
        if given is None:
            return default
        if not (given.isascii() and given.isdecimal() and len(given) < 20):
            faults.add(name, "Input should be a whole number, 1 or greater", "int_parsing", given)
        elif not 1 <= int(given) <= most:
            faults.add(name, f"Input should be between 1 and {most}", "less_than_equal", given)
        else:
            return int(given)
        return default

    def openapi(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Each parameter's name, schema and description."""
        sized = {"type": "integer", "minimum": 1, "maximum": self.max_size, "default": self.size}
        yield "page", {"type": "integer", "minimum": 1, "default": 1}, "The page, counted from 1."
        yield "per_page", sized, "Rows on a numbered page."
        counts = {"type": "string", "enum": list(_TOTALS), "default": self.total}
        yield "total", counts, "How all the rows are counted: to the end, up to a bound, by an estimate, or not at all."
        yield "limit", sized, "Rows on a page between cursors; without a cursor the first one."
        yield "cursor", {"type": "string"}, "Where the page begins: a cursor that another page gave."


class SearchParams:
    """``q=``: words that one of some fields must have."""

    known = frozenset({"q"})

    def __init__(self, model: type, names: Sequence[str]) -> None:
        self.names = tuple(fields_of(model, names))

    def read(self, values: Values, faults: Faults) -> list[FilterGroup]:
        """The group of filters for the words; none where none are given."""
        words = single(values, "q", faults)
        if words is not None and "\x00" in words:
            faults.add("q", "NUL is no character of a text")
        elif words and words.strip():
            return [any_of(*(QueryFilter(name, FilterOperator.SEARCH, words) for name in self.names))]
        return []

    def openapi(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Each parameter's name, schema and description."""
        yield "q", {"type": "string"}, f"Words to search for in {', '.join(self.names)}."


class ListParams:
    """All that a list can be asked for: filters, a search, the order and the page."""

    def __init__(
        self,
        model: type,
        *,
        filters: Iterable[str] = (),
        sorts: Iterable[str] = (),
        search: Sequence[str] = (),
        default_sort: Sequence[SortField] = (),
        page_size: int = 20,
        max_page_size: int = MAX_PAGE_SIZE,
        total: TotalKind = "exact",
    ) -> None:
        own = PAGE_PARAMETERS | SortParams.known | (SearchParams.known if search else frozenset())
        self.filters = FilterParams(model, filters, reserved=own)
        self.sorts = SortParams(model, sorts, search)
        self.search = SearchParams(model, search) if search else None
        self.page = PageParams(traits_of(model).primary_key[0], min(page_size, max_page_size), max_page_size, total)
        self.default_sort = tuple(default_sort)
        self.known = own | self.filters.known

    def read(self, connection: HTTPConnection) -> QueryOptions:
        """What the request asks for. Raises `RequestValidationError` that names every fault."""
        values, faults = values_of(connection), Faults()
        filters: list[Any] = []
        if values:
            refuse_unknown(connection, values, self.known, faults)
            filters += self.filters.read(values, faults)
            if self.search is not None:
                filters += self.search.read(values, faults)
        sorts = self.sorts.read(values, faults) or self.default_sort
        page = self.page.read(values, faults)
        faults.refuse()
        return QueryOptions(filters=filters, sorts=sorts, **page)

    def openapi(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Each parameter's name, schema and description."""
        yield from self.page.openapi()
        yield from self.sorts.openapi()
        if self.search is not None:
            yield from self.search.openapi()
        yield from self.filters.openapi()

    def openapi_parameters(self) -> list[dict[str, Any]]:
        """All of it as OpenAPI's parameters. Lists are written with commas."""
        return [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
            | ({"style": "form", "explode": False} if schema.get("type") == "array" else {})
            for name, schema, description in self.openapi()
        ]
