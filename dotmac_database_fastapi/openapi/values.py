"""Lists of allowed values, which filters and row schemas would repeat, as components of the document."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

from ..aliases import JsonObject
from .operations import Operation

_FEW_VALUES = 10
"""The most allowed values that are repeated in each row schema; longer lists become shared components."""


_SELECTING = ("fields", "include", "facets")
"""Parameters that have the same name in every list, and different values for each class."""


def share_values(document: JsonObject, operations: Iterable[Operation]) -> None:
    """Move the values that a field's filters allow into one component, and refer to it.

    If a component has them already, such as that of an enum, it is the one. Long lists of row schemas refer to it too.
    """
    filters = [each for operation in operations for each in _filters(operation)]
    if not filters:
        return
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    rows = [each for schema in schemas.values() for value in schema.values() for each in _inside(value)]
    names: dict[str, str] = {}
    for name, schema in schemas.items():
        if "enum" in schema:
            names.setdefault(_values(schema), name)
    uses = Counter(_key(field, schema, names) for field, schema in filters)
    for field, schema in filters:
        key = _key(field, schema, names)
        if key not in names and (_is_long(schema) or uses[key] > 1):
            name = names[key] = _free_name(field, schemas)
            schemas[name] = {part: schema[part] for part in ("type", "enum") if part in schema}
        if key in names:
            _refer(schema, names[key])
    for schema in rows:
        if _is_long(schema) and _values(schema) in names:
            _refer(schema, names[_values(schema)])


def _key(field: str, schema: JsonObject, names: Mapping[str, str]) -> str:
    """What distinguishes the values: a field that has the same few values as another may mean something else by them.

    ``names`` are those of the components, by their values.
    """
    values = _values(schema)
    return values if values in names or _is_long(schema) else f"{field} {values}"


def _refer(schema: JsonObject, component: str) -> None:
    schema.pop("type", None)
    del schema["enum"]
    schema["$ref"] = f"#/components/schemas/{component}"


def _filters(operation: Operation) -> Iterator[tuple[str, JsonObject]]:
    """The fields of the toolkit's query parameters that have lists of allowed values, and the schemas of these."""
    ours = operation.query - {"sort"}
    for parameter in operation.document.get("parameters", ()):
        if parameter.get("in") == "query" and parameter["name"] in ours:
            schema = parameter["schema"].get("items", parameter["schema"])
            if "enum" in schema:
                yield _name_of(operation, parameter["name"]), schema


def _name_of(operation: Operation, parameter: str) -> str:
    """The field of a filter. What a client may select is named with the class: ``Book.include``."""
    if parameter in _SELECTING and operation.models:
        return f"{operation.models[0].__name__}.{parameter}"
    return parameter.split("__")[0]


def _inside(value: object) -> Iterator[JsonObject]:
    """All JSON objects in a part of the document."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _inside(each)


def _is_long(schema: JsonObject) -> bool:
    values = schema.get("enum")
    return isinstance(values, list) and len(values) > _FEW_VALUES


def _values(schema: JsonObject) -> str:
    return json.dumps([schema.get("type"), schema["enum"]])


def _free_name(field: str, schemas: JsonObject) -> str:
    """A component name for the values of ``home.country``: ``HomeCountryValue``, or ``HomeCountryValue2``."""
    words = re.split(r"[\W_]+", field)
    name = "".join(word[:1].upper() + word[1:] for word in words) + "Value"
    return next(each for number in count(1) if (each := name if number == 1 else f"{name}{number}") not in schemas)
