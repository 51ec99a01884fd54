"""Lists in the convention of ``ra-data-simple-rest``, a data provider for React Admin.

``GET /users?sort=["name","ASC"]&range=[0,24]&filter={"status":"active"}`` responds with an array of rows, and with
``Content-Range: users 0-24/319``. The members of ``filter`` are the filters of an ordinary list: ``"score__gte": 10``,
``"id": [1, 2]`` (one of these), ``"email": null``, ``"author": {"name": "Ann"}`` (the filter ``author.name``), and
``"q"``. See https://github.com/marmelab/react-admin/tree/master/packages/ra-data-simple-rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NoReturn

from pydantic import JsonValue
from starlette.requests import HTTPConnection

from dotmac_database import FilterOperator

from .aliases import AnyPage, JsonObject
from .answers import header, plural
from .bounds import MAX_PARAMETERS, QueryErrors, Values, shown, single, values_of
from .fields import LISTS
from .options import ListOptions
from .pages import ParameterDoc
from .query_string import ListParams, refuse_unknown

_PARAMETERS = frozenset({"range", "sort", "filter"})
_MAX_DEPTH = 8
"""The most levels of a filter's nested objects."""

CONTENT_RANGE = header("The range of the rows and the number of all matching rows, such as `users 0-24/319`.")


class SimpleRestParams(ListParams):
    """The parameters ``range``, ``sort`` and ``filter``, whose values are JSON.

    They are translated to the parameters of a list by offset, so the same fields, values and bounds are allowed. An
    error names the parameter, and the member of ``filter``.
    """

    def __init__(self, model: type, options: ListOptions) -> None:
        super().__init__(model, options)
        self.known = _PARAMETERS
        self.of_page = frozenset({"range"})

    def _values(self, connection: HTTPConnection, faults: QueryErrors) -> Values:
        written = values_of(connection)
        refuse_unknown(connection, written, self.known, faults, self.hidden, self.formats)
        values: dict[str, list[str]] = {}
        faults.within.update({"skip": "range", "limit": "range"})
        for name, texts in (("range", self._range), ("sort", self._sort), ("filter", self._filter)):
            text = single(written, name, faults)
            if text is not None:
                try:
                    values |= texts(_parsed(text), faults)
                except ValueError as refused:
                    faults.add(name, str(refused), "json_invalid", text)
        longest = max(map(len, (texts for name, texts in values.items() if name not in ("skip", "limit"))), default=0)
        if "limit" not in values and longest > self.page.max_size:
            message = f"A list without a range has at most {self.page.max_size} values, as many as a response has rows."
            faults.add("filter", message, "too_long")
        return {"skip": ["0"], **values}  # never cached by ListParams: the values are no parameters of their own

    def _range(self, value: JsonValue, _faults: QueryErrors) -> dict[str, list[str]]:
        match value:
            case [str(first), str(last)] if first.isdecimal() and last.isdecimal() and len(first + last) < 40:
                return {"skip": [first], "limit": [str(int(last) - int(first) + 1)]}
        raise ValueError("Input should be the numbers of the first and the last row, counted from 0, such as [0, 24].")

    def _sort(self, value: JsonValue, _faults: QueryErrors) -> dict[str, list[str]]:
        match value:
            case [str(field), str(order)] if order.upper() in ("ASC", "DESC") and not field.startswith(("-", "+")):
                if "," not in field:
                    return {"sort": [f"-{field}" if order.upper() == "DESC" else field]}
        raise ValueError('Input should be a field and a direction, such as ["name", "ASC"].')

    def _filter(self, value: JsonValue, faults: QueryErrors) -> dict[str, list[str]]:
        if not isinstance(value, dict):
            raise ValueError('Input should be an object, such as {"status": "active"}.')
        members = dict(_flattened(value))
        if len(members) > MAX_PARAMETERS:
            raise ValueError(f"There are {len(members)} filters; at most {MAX_PARAMETERS} are allowed.")
        values: dict[str, list[str]] = {}
        for member, each in members.items():
            name, texts = self._translated(member, each)
            faults.within[name] = "filter"
            if name in self.filters.accepted or (name == "q" and self.search is not None):
                values[name] = texts
            else:
                near = faults.nearest(member, self.filters.known)
                hint = f"; did you mean {near!r}?" if near else "."
                faults.add(name, f"There is no filter {shown(member)!r}{hint}", "extra_forbidden", str(each))
        return values

    def _translated(self, member: str, value: JsonValue) -> tuple[str, list[str]]:
        """A member of ``filter`` as a parameter of an ordinary list, and its texts."""
        _, operator = self.filters.accepted.get(member, (None, None))
        plain = operator is FilterOperator.EQ
        if value is None and plain:
            return f"{member.removesuffix('__eq')}__{FilterOperator.IS_NULL.value}", ["true"]
        if not isinstance(value, list):
            return member, [_text(value)]
        texts = [_text(each) for each in value]
        if plain:
            member, operator = f"{member.removesuffix('__eq')}__{FilterOperator.IN.value}", FilterOperator.IN
        if not texts:
            return member, [""]  # an empty list: no row has one of its values
        # A text that is repeated is not split at its commas.
        doubled = len(texts) == 1 and operator in LISTS and operator is not FilterOperator.BETWEEN
        return member, texts * 2 if doubled else texts

    def openapi(self) -> Iterator[ParameterDoc]:
        """Each parameter's name, schema and description."""
        bounds: JsonObject = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}
        most = f"at most {self.page.max_size} rows"
        yield "range", _in_json(bounds), f"The first and the last row, counted from 0: `[0, 24]`; {most}."
        order = {
            "type": "array",
            "prefixItems": [
                {"type": "string", "enum": [name for name in self.sorts.choices if not name.startswith("-")]},
                {"type": "string", "enum": ["ASC", "DESC"]},
            ],
        }
        yield "sort", _in_json(order), 'The order: `["name", "ASC"]`.'
        members = dict.fromkeys((name for name, *_ in self.filters.openapi()), True)
        searched: JsonObject = {} if self.search is None else {"q": {"type": "string"}}
        filters = {"type": "object", "properties": {**members, **searched}}
        yield (
            "filter",
            _in_json(filters),
            'The filters: `{"status": "active", "id": [1, 2]}`.',
        )


def list_params(model: type, options: ListOptions) -> ListParams:
    """The query parameters of a list in the convention that the options name."""
    return (SimpleRestParams if options.paging == "range" else ListParams)(model, options)


def content_range(model: type, page: AnyPage) -> str:
    """The value of ``Content-Range`` for a page by offset: ``users 0-24/319``, or ``users */319`` for no rows."""
    words = plural(model.__name__).lower()
    unit = words if words.isascii() else "items"
    first, total = getattr(page, "skip", 0), getattr(page, "total", None)
    rows = f"{first}-{first + len(page.items) - 1}" if page.items else "*"
    return f"{unit} {rows}/{'*' if total is None else int(total)}"


def _in_json(schema: JsonObject) -> JsonObject:
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _parsed(text: str) -> JsonValue:
    """A JSON text, whose numbers are texts as they are written. Raises `ValueError` if it is not valid JSON."""
    try:
        value: JsonValue = json.loads(
            text, parse_int=str, parse_float=str, parse_constant=_refuse_constant, object_pairs_hook=_members
        )
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("Input should be JSON.") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}.")


def _members(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("A name is given more than once.")
    return members


def _flattened(value: dict[str, JsonValue], path: str = "", depth: int = 1) -> Iterator[tuple[str, JsonValue]]:
    """The members of nested objects, by dotted paths, which is how React Admin nests ``author.name``."""
    for name, each in value.items():
        if isinstance(each, dict) and depth < _MAX_DEPTH:
            yield from _flattened(each, f"{path}{name}.", depth + 1)
        else:
            yield f"{path}{name}", each


def _text(value: JsonValue) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
