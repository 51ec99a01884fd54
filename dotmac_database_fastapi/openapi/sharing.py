"""Schemas, parameters, headers and problems that several operations have, as components of the document.

A parameter is a component under its own name, ``#/components/parameters/per_page``, a header likewise, and a problem
under the words of its status, ``#/components/responses/NotFound``. If unequal ones have one name, the most used has it
alone, and the others have their place or a number, ``id_in_query``, ``per_page_2``. What the user has documented of
operations of the user's own stays where it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from ..aliases import JsonObject
from ..answers import DESCRIPTIONS, OTHER_PROBLEM, PROBLEM_JSON
from ..errors import phrase_of
from .operations import Operation


@dataclass(frozen=True)
class _Use:
    """A place in the document that may refer to a component, and the name that the component should have."""

    name: str
    value: JsonObject
    refer: Callable[[JsonObject], None]


_Uses: TypeAlias = Iterable[_Use]


def share(document: JsonObject, operations: Iterable[Operation]) -> None:
    """Replace equal parameters, headers and problems of the toolkit's by references to components."""
    ours = [each for each in operations if each.is_ours or each.query]
    for each in ours:
        _make_uniform(each)
    _share(document, "schemas", [use for each in ours for use in _schemas(each)], least=1)
    _share(document, "headers", [use for each in ours for use in _headers(each)])
    _share(document, "parameters", [use for each in ours for use in _parameters(each)])
    _share(document, "responses", [use for each in ours for use in _problems(each)], least=1)


def _share(document: JsonObject, kind: str, uses: _Uses, *, least: int = 2) -> None:
    """Make a component of each value that is used ``least`` times or more."""
    groups: dict[tuple[str, str], list[_Use]] = {}
    for use in uses:
        groups.setdefault((use.name, json.dumps(use.value, sort_keys=True)), []).append(use)
    # Sorting is stable: of those that are used equally often, the first in the document has the name.
    for (name, _), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        if len(group) >= least:
            components = document.setdefault("components", {}).setdefault(kind, {})
            value = group[0].value
            free = next(each for each in _names(name, value, components) if components.get(each, value) == value)
            components[free] = value
            for use in group:
                use.refer({"$ref": f"#/components/{kind}/{free}"})


def _names(name: str, value: JsonObject, components: JsonObject) -> Iterator[str]:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)  # these alone are allowed in the key of a component
    yield name
    place = value.get("in")
    if place != components[name].get("in"):
        yield f"{name}_in_{place}"
    yield from (f"{name}_{number}" for number in count(2))


def _schemas(operation: Operation) -> Iterator[_Use]:
    """The named schemas of objects that a generated operation responds with, as far as they are no components yet."""
    if operation.answers is not None:
        for response in operation.document.get("responses", {}).values():
            for content in response.get("content", {}).values():
                schema: JsonObject = content.get("schema", {})
                if schema.get("type") == "object" and schema.get("title", "").isidentifier():
                    yield _Use(schema["title"], schema, _at(content, "schema"))


def _parameters(operation: Operation) -> Iterator[_Use]:
    """All parameters of a generated operation; of another one, those that the toolkit reads."""
    parameters: list[JsonObject] = operation.document.get("parameters", [])
    for index, parameter in enumerate(parameters):
        if "$ref" not in parameter and (operation.answers is not None or _is_ours(operation, parameter)):
            yield _Use(parameter["name"], parameter, _at(parameters, index))


def _is_ours(operation: Operation, parameter: JsonObject) -> bool:
    return _is_query(operation, parameter) or (parameter["in"], parameter["name"].lower()) in operation.callers


def _is_query(operation: Operation, parameter: JsonObject) -> bool:
    return parameter.get("in") == "query" and parameter["name"] in operation.query


def _headers(operation: Operation) -> Iterator[_Use]:
    """The response headers of a generated operation."""
    if operation.answers is not None:
        for response in operation.document.get("responses", {}).values():
            headers: JsonObject = response.get("headers", {})
            for name, header in headers.items():
                if "$ref" not in header and not _is_problem(response):
                    yield _Use(name, header, _at(headers, name))


def _problems(operation: Operation) -> Iterator[_Use]:
    """The responses that are problems and nothing else, in the toolkit's own words."""
    responses: JsonObject = operation.document.get("responses", {})
    if operation.is_ours:
        for status, response in responses.items():
            if _is_problem(response) and response.get("description") in _OWN_WORDS:
                yield _Use(_response_name(status), response, _at(responses, status))


_OWN_WORDS = {*DESCRIPTIONS.values(), OTHER_PROBLEM}


def _is_problem(response: JsonObject) -> bool:
    return list(response.get("content", ())) == [PROBLEM_JSON]


def _response_name(status: str) -> str:
    """``NotFound`` for 404, and ``OtherProblem`` for ``default`` and ranges such as ``4XX``."""
    return re.sub(r"\W", "", phrase_of(int(status))) if status.isdecimal() else "OtherProblem"


def _at(
    container: MutableMapping[str, JsonObject] | MutableSequence[JsonObject], key: str | int
) -> Callable[[JsonObject], None]:
    """A function that puts another value at this place of a container."""

    def refer(reference: JsonObject) -> None:
        container[key] = reference  # type: ignore[index]  # the key is of the container's own kind

    return refer


def _make_uniform(operation: Operation) -> None:
    """Describe what FastAPI declares of the shared parameters as generated operations do, and order the responses."""
    for parameter in operation.document.get("parameters", ()):
        if "$ref" not in parameter and (operation.answers is not None or _is_ours(operation, parameter)):
            _tidy(parameter)
            if _is_query(operation, parameter):
                _tidy_query(parameter)
    responses: JsonObject = operation.document.get("responses", {})
    in_order = sorted(responses.items())  # "default" comes after all numbers
    responses.clear()
    responses.update(in_order)


def _tidy(parameter: JsonObject) -> None:
    """Remove what FastAPI says twice, and null, which has no form in a URL or a header."""
    schema: JsonObject = parameter["schema"]
    if "description" in parameter and schema.get("description") == parameter["description"]:
        del schema["description"]
    match schema.get("anyOf"):
        case [value, {"type": "null"}] if not parameter.get("required"):
            del schema["anyOf"]
            schema |= value


def _tidy_query(parameter: JsonObject) -> None:
    """Say that a list is separated by commas, which FastAPI can't, and make words of the default value.

    Swagger UI and generated clients would send it, and parameters such as page and limit exclude each other.
    """
    schema: JsonObject = parameter["schema"]
    schema.pop("title", None)
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    if "default" in schema:
        words = f"{parameter.get('description', '')} Default: {schema.pop('default')}."
        parameter["description"] = words.lstrip()
