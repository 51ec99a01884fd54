"""Parses a query string into filters, sorts and a page. All errors are reported together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from enum import Enum
from functools import cached_property
from typing import Self, cast
from uuid import UUID

import pydantic
from starlette.requests import HTTPConnection

from dotmac_database import (
    FieldName,
    FilterGroup,
    FilterOperator,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    Traits,
    ValidationError,
    any_of,
    name_of,
    traits_of,
)

from .aliases import JsonObject
from .bounds import MAX_FILTER_VALUES, MAX_SEARCH, MAX_SORTS, QueryErrors, Values, shown, single, values_of
from .envelopes import enveloped, row_schema_in
from .facets import FacetParams
from .fields import LISTS, TEXT_PATTERN, ClientField, fields_of, sortable_fields
from .formats import MEDIA_TYPES, ExportFormat
from .hiding import Hidden
from .internals import accepted_query, dependant_of, query_parameters, route_of
from .options import ListOptions
from .pages import PageParams, ParameterDoc, allowed_totals, page_size_of
from .readable import relationships_in, shows
from .registry import sources_of
from .schemas import read_schema_of
from .selection import Selection, SelectionParams

_TRUTH = pydantic.TypeAdapter(bool)
_NULLS = (FilterOperator.IS_NULL, FilterOperator.IS_NOT_NULL)
_NO_COMMA = r"^[^,\u0000]*$"
"""The JSON Schema pattern of a text in a comma-separated list: no comma, no NUL.

To pass a text that contains a comma, clients repeat the parameter.
"""


def refuse_unknown(
    connection: HTTPConnection,
    values: Values,
    known: frozenset[str],
    faults: QueryErrors,
    hidden: frozenset[str] = frozenset(),
    formats: Collection[ExportFormat] = (),
) -> None:
    """Report each parameter that is neither in ``known`` nor declared by the route.

    ``hidden`` parameters, which the route declares for other actors, are as unknown as those that nobody has. The
    message for a parameter whose value is one of the ``formats`` (``?format=csv``) says how an export is chosen.
    """
    unknown = values.keys() - known
    if not unknown:
        return
    declared = known | (query_parameters(connection) - hidden) | _of_plugins(connection)
    for name in sorted(unknown - declared):
        types = [MEDIA_TYPES[each] for each in formats if each in values[name][0].lower().split()]
        if types:
            hint = f"; for an export, send the header Accept: {types[0]}."
        else:
            near = faults.nearest(name, _of_its_kind(name, declared))
            hint = f"; did you mean {near!r}?" if near else "."
        message = f"There is no query parameter {shown(name)!r}{hint}"
        faults.add(name, message, "extra_forbidden", values[name][0])


def _of_its_kind(name: str, declared: frozenset[str]) -> list[str]:
    """The declared names that could be meant by the unknown ``name``.

    If ``name`` has an operator and its field is known, these are the names of that field with other operators. Else
    they are the names of the same form: dotted or not, and with an operator or without.
    """
    field, operator, _ = name.partition("__")
    known = sorted(declared)
    own = [each for each in known if each.startswith(f"{field}__")] if operator else []
    return own or [each for each in known if ("." in each, "__" in each) == ("." in name, bool(operator))]


def _of_plugins(connection: HTTPConnection) -> frozenset[str]:
    """The query parameters of the plugins' tenant and actor dependencies, which are not in the route's signature."""
    path, app = getattr(route_of(connection), "path_format", "") or "", connection.scope.get("app")
    names: set[str] = set()
    for source in sources_of(app).values():
        for dependency in (source.tenant, source.actor):
            if dependency is not None:
                names |= accepted_query(dependant_of(dependency, path), app)
    return frozenset(names)


class FilterParams:
    """The filter parameters, a field or a field and an operator: ``status=active``, ``score__gte=10``."""

    def __init__(
        self,
        model: type,
        names: Iterable[FieldName] = (),
        *,
        reserved: frozenset[str] = frozenset(),
        schema: type | None = None,
    ) -> None:
        self.fields = fields_of(model, names, schema)
        self.declared: dict[str, tuple[ClientField, FilterOperator]] = {}
        for each in self.fields.values():
            for operator in each.operators:
                name = each.name if operator is FilterOperator.EQ else f"{each.name}__{operator.value}"
                # A field with the name of another parameter, such as "page", is only available with an operator.
                self.declared[f"{name}__eq" if name in reserved else name] = each, operator
        equals = {f"{each.name}__eq": (each, FilterOperator.EQ) for each in self.fields.values()}
        self.accepted = {**{n: e for n, e in equals.items() if FilterOperator.EQ in e[0].operators}, **self.declared}

    def without(self, hides: Callable[[str], bool]) -> Self:
        """The same parameters, except those of the fields that ``hides`` names."""
        shorter = copy(self)
        shorter.__dict__.pop("known", None)
        shorter.fields = {name: each for name, each in self.fields.items() if not hides(name)}
        shorter.declared = {name: each for name, each in self.declared.items() if not hides(each[0].name)}
        shorter.accepted = {name: each for name, each in self.accepted.items() if not hides(each[0].name)}
        return shorter

    @cached_property
    def known(self) -> frozenset[str]:
        """The names of all accepted filter parameters."""
        return frozenset(self.accepted)

    def read(self, values: Values, faults: QueryErrors) -> list[QueryFilter]:
        """The filters of the query string, in its order."""
        counts = {
            name: sum(each.count(",") + 1 for each in texts) if self.accepted[name][1] in LISTS else len(texts)
            for name, texts in values.items()
            if name in self.accepted
        }
        many = sum(counts.values())
        if many > MAX_FILTER_VALUES:
            longest = max(counts, key=lambda name: counts[name])
            faults.add(longest, f"The filters have {many} values; at most {MAX_FILTER_VALUES} are allowed.", "too_long")
            return []
        return [
            QueryFilter(each.name, operator, value)
            for name, texts in values.items()
            if name in self.accepted
            for each, operator in (self.accepted[name],)
            for value in self._read(name, each, operator, texts, faults)
        ]

    def _read(
        self, name: str, each: ClientField, operator: FilterOperator, texts: Sequence[str], faults: QueryErrors
    ) -> Iterator[object]:
        """Yield the value, or nothing if it is invalid."""
        try:
            if operator in LISTS:
                yield from self._read_list(name, each, operator, texts, faults)
            elif len(texts) > 1:
                faults.add(name, "The parameter is given more than once.", value=list(texts))
            elif operator in _NULLS:
                yield _TRUTH.validate_python(texts[0])
            else:
                yield each.adapter.validate_python(texts[0])
        except pydantic.ValidationError as refused:
            faults.add_all(name, refused, texts[0] if len(texts) == 1 else list(texts))

    def _read_list(
        self, name: str, each: ClientField, operator: FilterOperator, texts: Sequence[str], faults: QueryErrors
    ) -> Iterator[list[object]]:
        # A repeated text parameter is not split: its values may contain commas.
        whole = each.is_text and len(texts) > 1
        parts = texts if whole else [part for value in texts if value for part in value.split(",")]
        if operator is FilterOperator.BETWEEN and len(parts) != 2:
            faults.add(name, "Two values are expected: the least and the greatest.", value=list(texts))
            return
        yield [each.adapter.validate_python(part) for part in parts]

    def openapi(self) -> Iterator[ParameterDoc]:
        """The name, schema and description of each documented parameter: the most common operators of each field."""
        for name, (each, operator) in self.declared.items():
            documented = each.documented
            if operator not in documented:
                continue
            schema: JsonObject = each.schema
            if operator in LISTS:
                schema = {"type": "array", "items": {**schema, "pattern": _NO_COMMA} if each.is_text else schema}
            elif operator in _NULLS:
                schema = {"type": "boolean"}
            others = ", ".join(f"__{other.value}" for other in each.operators if other not in documented)
            also = f". Other accepted operators: {others}." if others and operator is documented[0] else ""
            yield name, schema, f"{each.name}: {_WORDS[operator]}{also}"


_WORDS = {
    FilterOperator.EQ: "equal to this",
    FilterOperator.NE: "not equal to this",
    FilterOperator.GT: "greater than this",
    FilterOperator.GTE: "this or greater",
    FilterOperator.LT: "less than this",
    FilterOperator.LTE: "this or less",
    FilterOperator.IN: "one of these",
    FilterOperator.NOT_IN: "none of these",
    FilterOperator.BETWEEN: "between these two values, or equal to one of them",
    FilterOperator.LIKE: "contains this, or matches it as a pattern if it has a %; case-sensitive",
    FilterOperator.NOT_LIKE: "the opposite of like",
    FilterOperator.ILIKE: "contains this, or matches it as a pattern if it has a %; ignores upper and lower case",
    FilterOperator.NOT_ILIKE: "the opposite of ilike",
    FilterOperator.STARTS_WITH: "starts with this",
    FilterOperator.ENDS_WITH: "ends with this",
    FilterOperator.IS_NULL: "whether it has no value",
    FilterOperator.IS_NOT_NULL: "whether it has a value",
    FilterOperator.CONTAINS: "contains this",
    FilterOperator.CONTAINED_BY: "all of its elements are among these",
    FilterOperator.OVERLAPS: "at least one of its elements is among these",
    FilterOperator.SEARCH: "has these words",
}


_FOLDED = "__folded"
_RELEVANCE = "relevance"


class SortParams:
    """The parameter ``sort=-created_at,name``: field names, with a ``-`` for descending order."""

    known = frozenset({"sort"})

    def __init__(self, fields: Mapping[str, ClientField], searched: Sequence[FieldName] = ()) -> None:
        self.names = tuple(fields)
        self.fields, self.searched = fields, tuple(map(name_of, searched))
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

    def without(self, hides: Callable[[str], bool]) -> SortParams:
        """The same parameter, without the fields that ``hides`` names."""
        fields = {name: each for name, each in self.fields.items() if not hides(name)}
        return SortParams(fields, [name for name in self.searched if not hides(name)])

    def read(self, values: Values, faults: QueryErrors) -> list[SortField]:
        """The sorts of the query string, in its order. As in SQL, a field has no effect if it is named again."""
        chosen: dict[tuple[str, str], SortField] = {}
        many = sum(text.count(",") + 1 for text in values.get("sort", ()))
        if many > MAX_SORTS:
            faults.add("sort", f"There are {many} fields to sort by; at most {MAX_SORTS} are allowed.", "too_long")
            return []
        for text in values.get("sort", ()):
            for part in text.split(",") if text else ():
                sorts = self.choices.get(part.removeprefix("+").strip())
                if sorts is None:
                    near = faults.nearest(part, self.choices)
                    hint = f"did you mean {near!r}?" if near else f"choose {', '.join(self.names)}."
                    faults.add("sort", f"Rows can't be sorted by {shown(part)!r}; {hint}", "enum", part)
                elif sorts[0].by == "relevance" and not any(text.strip() for text in values.get("q", ())):
                    faults.add("sort", "To sort by relevance, give words to search for in q.", value=part)
                else:
                    for sort in sorts:
                        chosen.setdefault((sort.field, sort.by), sort)
        return list(chosen.values())

    def openapi(self) -> Iterator[ParameterDoc]:
        """Each parameter's name, schema and description."""
        if not self.choices:
            return
        choices = {"type": "string", "enum": list(self.choices), **self._member_names()}
        schema = {"type": "array", "items": choices, "maxItems": MAX_SORTS}
        yield (
            "sort",
            schema,
            (
                "The order: names of fields, separated by commas. A - before a name means descending order. "
                f"{_FOLDED} after the name of a text field ignores upper and lower case."
            ),
        )

    def _member_names(self) -> JsonObject:
        """Names for the members of an enum, as generators of clients read them: they can make none of ``-id``.

        Omitted if two of them would be one name for a generator that changes case and dots.
        """
        members = [f"{name[1:]}_desc" if name[0] == "-" else name for name in self.choices]
        distinct = {re.sub(r"[\W_]+", "_", name).upper() for name in members}
        return {"x-enum-varnames": members} if len(distinct) == len(members) else {}


class SearchParams:
    """The parameter ``q``: words that at least one of the searched fields must contain."""

    known = frozenset({"q"})

    def __init__(self, model: type, names: Sequence[FieldName]) -> None:
        self.names = tuple(fields_of(model, names))

    def without(self, hides: Callable[[str], bool]) -> SearchParams | None:
        """The same parameter, without the fields that ``hides`` names; None: no field is left."""
        shorter = copy(self)
        shorter.names = tuple(name for name in self.names if not hides(name))
        return shorter if shorter.names else None

    def read(self, values: Values, faults: QueryErrors) -> list[FilterGroup]:
        """A group of filters for the words; an empty list if there are none."""
        words = single(values, "q", faults)
        if words is not None and "\x00" in words:
            faults.add("q", "A search can't contain NUL.")
        elif words is not None and len(words) > MAX_SEARCH:
            faults.add("q", f"A search has at most {MAX_SEARCH} characters.", "string_too_long")
        elif words and words.strip():
            return [any_of(*(QueryFilter(name, FilterOperator.SEARCH, words) for name in self.names))]
        return []

    def openapi(self) -> Iterator[ParameterDoc]:
        """Each parameter's name, schema and description."""
        yield (
            "q",
            {"type": "string", "maxLength": MAX_SEARCH, "pattern": TEXT_PATTERN},
            f"Words to search for in {', '.join(self.names)}.",
        )


_DEFAULTS = ListOptions()


_MAX_PARSED, _MAX_LENGTH = 256, 512
"""The most query strings of a list whose options are cached, and the most bytes of one of them."""

_FIXED = (bool, int, str, Enum, UUID)
"""The types of values that the same text always gives, and that nobody can change."""


def _are_fixed(filters: Iterable[QueryFilter | FilterGroup]) -> bool:
    return all(isinstance(each, QueryFilter) and isinstance(each.value, _FIXED) for each in filters)


class ListParams:
    """All query parameters of a list: filters, a search, the order and the page.

    If the options name no ``sorts``, clients may sort by those of ``sorts_among`` that have an order, or, without
    these, by the columns of the read schema. A cursor, whose values every client can read, is sorted only by fields of
    the read schema. Raises `ValidationError` for a field that is missing or private, for a sort by an array, and for an
    unknown kind of total.
    """

    def __init__(self, model: type, options: ListOptions = _DEFAULTS, *, sorts_among: Iterable[FieldName] = ()) -> None:
        search, schema = options.search, row_schema_in(options.envelope) or options.read_schema
        fields, included = options.names("fields"), options.names("include")
        self.selection = SelectionParams(model, schema, fields, included) if fields or included else None
        self.facets = FacetParams(model, options.names("facets"), schema) if options.facets else None
        self.schema: type = schema or read_schema_of(model) if self.selection is None else self.selection.documented
        totals = allowed_totals(options.total, options.totals)
        if options.envelope is not None:
            totals = enveloped(options.envelope, self.schema).possible_totals(options.paging, options.total, totals)
        self.page = PageParams(
            traits_of(model).primary_key[0],
            page_size_of(options.paging, options.page_size, options.max_page_size),
            options.max_page_size,
            options.total,
            totals,
            options.max_offset,
            options.paging,
        )
        own = self.page.known | SortParams.known | (SearchParams.known if search else frozenset())
        for each in (self.selection, self.facets):
            own |= frozenset() if each is None else each.known
        self.filters = FilterParams(model, options.filters, reserved=own, schema=schema)
        self.sorts = SortParams(sortable_fields(model, options.sorts, sorts_among, schema), search)
        self.search = SearchParams(model, search) if search else None
        self.default_sort = _sorts_of(options.default_sort)
        if self.default_sort:
            sortable_fields(model, [each.field for each in self.default_sort])
        self.known = own | self.filters.known
        self.of_page = self.page.known
        """The parameters of a page, which an export of all rows can't have."""
        self.hidden: frozenset[str] = frozenset()
        """The parameters that this actor does not have, and that the route declares for others."""
        self.formats: Collection[ExportFormat] = ()
        """The formats of the list's exports, as far as the router has any."""
        self._traits: Traits[object] = traits_of(model)
        self._keys = frozenset(self._traits.primary_key)
        self._parsed: dict[bytes, QueryOptions] = {}
        hidden = next((each.field for each in self.default_sort if not self._may_carry(each)), None)
        if options.paging == "cursor" and hidden is not None:
            raise ValidationError(
                f"default_sort: a cursor contains the values of its sort fields, and clients can't see {hidden!r}.",
                field="default_sort",
            )

    def without(self, hidden: Hidden) -> Self:
        """The parameters for an actor from whom columns are hidden: their names are unknown, as if there were none."""
        shorter, traits = copy(self), self._traits

        def hides(path: str) -> bool:
            return hidden.hides(traits, path)

        shorter.filters, shorter.sorts = self.filters.without(hides), self.sorts.without(hides)
        shorter.search = None if self.search is None else self.search.without(hides)
        shorter.facets = None if self.facets is None else self.facets.without(hides)
        shorter.selection = None if self.selection is None else self.selection.without(hides)
        shorter.default_sort = tuple(each for each in self.default_sort if not hides(each.field))
        if hidden.is_ruled:
            shorter.page = self.page.without_estimates()
        gone = self.filters.known - shorter.filters.known
        for name, before, after in (("q", self.search, shorter.search), ("facets", self.facets, shorter.facets)):
            gone |= {name} if before is not None and after is None else frozenset()
        if self.selection is not None and shorter.selection is not None:
            gone |= self.selection.known - shorter.selection.known
        shorter.hidden = gone & self.known
        shorter.known = self.known - gone
        shorter._parsed = {}
        return shorter

    @property
    def paths(self) -> Iterator[str]:
        """The dotted paths of everything that clients can name, or that the rows contain."""
        yield from self.filters.fields
        yield from self.sorts.fields
        yield from (each.field for each in self.default_sort)
        yield from () if self.search is None else self.search.names
        yield from () if self.selection is None else self.selection.include
        yield from relationships_in(self._traits, self.schema)

    def read(self, connection: HTTPConnection) -> QueryOptions:
        """The options in the request's query string. Raises `RequestValidationError` with all errors."""
        written: bytes = connection.scope.get("query_string", b"")
        parsed = self._parsed.get(written)
        return parsed if parsed is not None else self._read(connection, written)

    def _read(self, connection: HTTPConnection, written: bytes) -> QueryOptions:
        faults = QueryErrors()
        values = self._values(connection, faults)
        filters: list[QueryFilter | FilterGroup] = []
        if values:
            filters += self.filters.read(values, faults)
            if self.search is not None:
                filters += self.search.read(values, faults)
        sorts = self.sorts.read(values, faults)
        page = self.page.read(values, faults)
        if self.selection is not None:
            self.selection.read(values, faults)
        if self.facets is not None:
            self.facets.read(values, faults)
        if "cursor_pagination" in page:
            self._check_carried(sorts, values, faults)
        faults.refuse()
        # The type of the page depends on the router's options.
        options = cast("QueryOptions", QueryOptions(filters=filters, sorts=sorts or self.default_sort, **page))
        if (
            len(written) <= _MAX_LENGTH
            and "cursor" not in values
            and values.keys() <= self.known
            and _are_fixed(filters)
        ):
            if len(self._parsed) >= _MAX_PARSED:
                self._parsed.clear()
            self._parsed[written] = options
        return options

    def selected(self, connection: HTTPConnection) -> Selection:
        """The selection in a query string without errors: `read` has checked it."""
        return Selection() if self.selection is None else self.selection.read(values_of(connection), QueryErrors())

    def facets_of(self, connection: HTTPConnection) -> Sequence[str]:
        """The facets in the query string of a request whose options were read."""
        return () if self.facets is None else self.facets.read(values_of(connection), QueryErrors())

    def _values(self, connection: HTTPConnection, faults: QueryErrors) -> Values:
        """The values of the query string by parameter; each unknown parameter is reported."""
        values = values_of(connection)
        if values:
            refuse_unknown(connection, values, self.known, faults, self.hidden, self.formats)
        return values

    def refuse(self, connection: HTTPConnection, refused: ValidationError) -> None:
        """Raise `RequestValidationError` for the parameter whose value a repository refused, if there is one."""
        faults = QueryErrors()
        values = self._values(connection, faults)
        for name, texts in values.items():
            field, operator = self.filters.accepted.get(name, (None, None))
            if field is not None and (field.name, operator) == (refused.field, refused.operator):
                faults.add(name, str(refused), value=texts[0] if len(texts) == 1 else list(texts))
        faults.refuse()

    def _check_carried(self, sorts: Sequence[SortField], values: Values, faults: QueryErrors) -> None:
        """Refuse a cursor page sorted by a field that the list does not show, because a cursor contains its values."""
        name = "sort" if sorts else min(values.keys() & {"limit", "cursor"}, default="sort")
        for each in sorts or self.default_sort:
            if not self._may_carry(each):
                faults.add(
                    name,
                    f"A cursor contains the values of its sort fields, and clients can't see {each.field!r}; "
                    "read numbered pages, or sort by a field that is shown.",
                )

    def _may_carry(self, sort: SortField) -> bool:
        """Whether a cursor may contain the values of a sort field."""
        return sort.field in self._keys or shows(self.schema, sort.field)

    def openapi(self) -> Iterator[ParameterDoc]:
        """Each parameter's name, schema and description."""
        yield from self.page.openapi()
        yield from self.sorts.openapi()
        if self.selection is not None:
            yield from self.selection.openapi()
        if self.search is not None:
            yield from self.search.openapi()
        if self.facets is not None:
            yield from self.facets.openapi()
        yield from self.filters.openapi()

    def openapi_parameters(self) -> list[JsonObject]:
        """The OpenAPI parameter objects."""
        return openapi_parameters(self.openapi())


def openapi_parameters(documented: Iterable[ParameterDoc]) -> list[JsonObject]:
    """The OpenAPI objects of query parameters. A parameter that is a list is one comma-separated value."""
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
        | ({"style": "form", "explode": False} if schema.get("type") == "array" else {})
        for name, schema, description in documented
    ]


def selection_of(connection: HTTPConnection, params: SelectionParams) -> Selection:
    """The selection of a request whose query string has nothing else.

    Raises `RequestValidationError` with all errors, also for unknown parameters.
    """
    values, faults = values_of(connection), QueryErrors()
    refuse_unknown(connection, values, params.known, faults, params.hidden)
    selection = params.read(values, faults)
    faults.refuse()
    return selection


def _sorts_of(sorts: object) -> tuple[SortField, ...]:
    """The default order of `ListOptions`, from a text such as ``"-created_at,name"``."""
    if isinstance(sorts, tuple):
        return sorts
    parts = [part.strip() for part in str(sorts).split(",") if part.strip()]
    return tuple(
        SortField(part.removeprefix("-"), SortOrder.DESC if part.startswith("-") else SortOrder.ASC) for part in parts
    )
