"""The OpenAPI descriptions of the generated endpoints: operation ids, problems and headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pydantic import JsonValue

from .aliases import Endpoint, JsonObject


@dataclass(frozen=True, slots=True)
class Answers:
    """The operation id of a generated endpoint, and the statuses of the problems that it may respond with.

    ``problems`` does not include those of the database and of the tenant, which depend on the app.
    """

    operation_id: str
    problems: frozenset[int]


_ANSWERS: WeakKeyDictionary[Endpoint, Answers] = WeakKeyDictionary()


def describe_endpoint(endpoint: Endpoint, operation_id: str, problems: Iterable[int] = ()) -> None:
    """Register the operation id of a generated endpoint and the statuses of its problems."""
    _ANSWERS[endpoint] = Answers(operation_id, frozenset(problems))


def answers_of(endpoint: Endpoint) -> Answers | None:
    """The registered description of a generated endpoint; None for an endpoint of the user's own."""
    try:
        return _ANSWERS.get(endpoint)
    except TypeError:  # a callable object that can't be weakly referenced or hashed
        return None


def plural(name: str) -> str:
    """The plural of a class's name by the regular rules: ``Users``, ``Countries``, ``Boxes``."""
    if re.search(r"[^aeiouAEIOU]y\Z", name):
        return f"{name[:-1]}ies"
    return f"{name}es" if re.search(r"(?:s|x|z|ch|sh)\Z", name) else f"{name}s"


def header(description: str, **schema: JsonValue) -> JsonObject:
    """The OpenAPI object of a response header."""
    return {"description": description, "schema": {"type": "string", **schema}}


ETAG = header("The row's version, for If-Match.")
LINK = header("The first, previous, next and last page, as far as they exist (RFC 8288).")
LOCATION = header("The path of the new row.")
REPLAYED = header("Whether this is the answer that an earlier request with the same key got.", enum=["true"])
RETRY_AFTER = {"description": "The seconds to wait.", "schema": {"type": "integer", "minimum": 1}}

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that the row must have still; where it has another one the answer is 412.",
    "schema": {"type": "string"},
}

PROBLEM_JSON = "application/problem+json"

PROBLEM: JsonObject = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "description": "about:blank: the status says it."},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What exactly went wrong, for people."},
        "code": {"type": "string", "description": "What went wrong, for programs."},
        "fields": {"type": "array", "items": {"type": "string"}, "description": "The fields that are meant."},
        "errors": {
            "type": "array",
            "description": "Each fault of the request.",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": "string"}, "description": "Where it is."},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                    "ctx": {"type": "object", "description": "The bounds or values that it was checked against."},
                },
            },
        },
    },
}

DESCRIPTIONS = {
    400: "The request is malformed, or names no tenant.",
    403: "The request's tenant may not do this.",
    404: "There is no such row.",
    409: "The change conflicts with what is stored.",
    412: "The row has another version than If-Match names.",
    422: "A value is refused.",
    503: "The database can't serve the request now.",
}
