"""The OpenAPI descriptions of the generated endpoints: operation ids, problems and headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pydantic import JsonValue

from .aliases import Endpoint, JsonObject


@dataclass(frozen=True, slots=True)
class EndpointDescription:
    """The operation id of a generated endpoint, and the statuses of the problems with which the endpoint may respond.

    ``problems`` does not include those of the database and of the tenant, which depend on the app. ``has_hooks``: the
    endpoint calls the user's own code, which may raise other errors.
    """

    operation_id: str
    problems: frozenset[int]
    has_hooks: bool = False


_ANSWERS: WeakKeyDictionary[Endpoint, EndpointDescription] = WeakKeyDictionary()


def describe_endpoint(
    endpoint: Endpoint, operation_id: str, problems: Iterable[int] = (), *, has_hooks: bool = False
) -> None:
    """Register the operation id of a generated endpoint, the statuses of its problems, and whether it calls hooks."""
    _ANSWERS[endpoint] = EndpointDescription(operation_id, frozenset(problems), has_hooks)


def answers_of(endpoint: Endpoint) -> EndpointDescription | None:
    """The registered description of a generated endpoint; None for an endpoint of the user's own."""
    try:
        return _ANSWERS.get(endpoint)
    except TypeError:  # the endpoint is a callable object that can't be weakly referenced or hashed
        return None


def plural(name: str) -> str:
    """The plural of a class's name by the regular rules: ``Users``, ``Countries``, ``Boxes``."""
    if re.search(r"[^aeiouAEIOU]y\Z", name):
        return f"{name[:-1]}ies"
    return f"{name}es" if re.search(r"(?:s|x|z|ch|sh)\Z", name) else f"{name}s"


def singular(name: str) -> str:
    """The singular of a relationship's name by the regular rules: ``tag``, ``country``, ``box``."""
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    if re.search(r"(?:s|x|z|ch|sh)es\Z", name):
        return name[:-2]
    return name.removesuffix("s") if not name.endswith("ss") else name


def header(description: str, **schema: JsonValue) -> JsonObject:
    """The OpenAPI object of a response header."""
    return {"description": description, "schema": {"type": "string", **schema}}


ETAG = header("The row's version, for If-Match.")
ETAG_OF_LIST = header("A weak tag of the page, for If-None-Match.")
LINK = header("The first, previous, next and last page, as far as they exist (RFC 8288).")
LOCATION = header("The path of the new row.")
REPLAYED = header("Present if this is the stored response of an earlier request with the same key.", enum=["true"])
RETRY_AFTER = {
    "description": "The number of seconds to wait before the request is repeated.",
    "schema": {"type": "integer", "minimum": 1},
}

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that the row must still have. If the row has another ETag, the response is a 412.",
    "schema": {"type": "string"},
}

IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETags that the client has. If the row still has one of them, the response is a 304 without a body.",
    "schema": {"type": "string"},
}
IF_NONE_MATCH_OF_LIST = {
    **IF_NONE_MATCH,
    "description": "ETags that the client has. If the page has one of them, the response is a 304 without a body.",
}
PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`return=minimal`: the response to a successful write has no body (RFC 7240).",
    "schema": {"type": "string"},
}
PREFERENCE_APPLIED = {
    "Preference-Applied": header("The preference that the response follows.", enum=["return=minimal"])
}

PROBLEM_JSON = "application/problem+json"

PROBLEM: JsonObject = {
    "title": "Problem",
    "description": "An error response (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string", "description": "about:blank: the problem has no meaning beyond its status."},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "An explanation of the problem, for people."},
        "code": {"type": "string", "description": "The kind of the problem, for programs."},
        "index": {
            "type": "integer",
            "minimum": 0,
            "description": "The position of the refused row in an array.",
        },
        "fields": {"type": "array", "items": {"type": "string"}, "description": "The fields with the problem."},
        "errors": {
            "type": "array",
            "description": "The errors in the request.",
            "items": {
                "title": "ProblemError",
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": "string"}, "description": "The place of the error."},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                    "ctx": {
                        "type": "object",
                        "additionalProperties": True,
                        "description": "The bounds or values that are allowed.",
                    },
                },
            },
        },
    },
}

DESCRIPTIONS = {
    400: "The request is malformed, or names no tenant.",
    403: "A row of another tenant, or something that a policy does not allow.",
    404: "There is no such row.",
    409: "The change conflicts with what is stored.",
    412: "The row does not have the version that If-Match names.",
    422: "A value in the request is invalid.",
    503: "The database can't serve the request now.",
}

OTHER_PROBLEM = "Any other problem."
