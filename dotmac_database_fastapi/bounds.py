"""How much one request may ask for, and how much of it an answer repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pydantic
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

MAX_PARAMETERS = 100
"""How many parameters a query string may have."""

MAX_SORTS = 20
"""How many fields ``sort`` may name."""

MAX_FILTER_VALUES = 1_000
"""How many values all filters of a query string may have together."""

MAX_SEARCH = 10_000
"""How many characters ``q`` may have."""

MAX_FAULTS = 10
"""How many faults an answer names."""

MAX_SUGGESTIONS = 3
"""How many unknown names are compared with the known ones: each takes as long as an ordinary request."""

MAX_OFFSET = 10_000
"""How many rows a numbered page may skip, unless a router says otherwise: the database reads all of them."""

MAX_LINKS = 8_000
"""How many characters the ``Link`` header may have: servers in front of an app refuse longer headers."""

MAX_SHOWN, MAX_MESSAGE = 80, 1_000
"""How many characters an answer has of one name or value, and of what it says of one fault."""


class RefusedRequestError(RequestValidationError):
    """What the toolkit's own parameters and generated routes refuse: a problem, also where FastAPI's 422 is none."""


def shown(value: object, most: int = MAX_SHOWN) -> str:
    """What an answer repeats of a client's text: its beginning, and nothing that is no Unicode."""
    text = str(value)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


Values = Mapping[str, Sequence[str]]


@dataclass(slots=True)
class QueryErrors:
    """What is wrong with a query string: the first faults of it, to be named together as FastAPI names them."""

    found: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0
    """How many there are beyond those."""
    suggestions: int = MAX_SUGGESTIONS
    """How many names are still to be compared."""

    def add(self, name: str, message: str, kind: str = "value_error", given: Any = None) -> None:
        """One fault of one parameter."""
        if len(self.found) == MAX_FAULTS:
            self.more += 1
            return
        if isinstance(given, (list, tuple)):
            given = [shown(each) for each in given[:MAX_FAULTS]]
        elif given is not None:
            given = shown(given)
        self.found.append(
            {"type": kind, "loc": ("query", shown(name)), "msg": shown(message, MAX_MESSAGE), "input": given}
        )

    def add_all(self, name: str, error: pydantic.ValidationError, given: Any) -> None:
        """What Pydantic found wrong with a parameter's value."""
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            self.add(name, each["msg"], each["type"], given)

    def nearest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name that is most like an unknown one; None: there is none, or enough were compared."""
        if not self.suggestions or len(name) > MAX_SHOWN:
            return None
        self.suggestions -= 1
        return next(iter(get_close_matches(name, known, n=1)), None)

    def refuse(self) -> None:
        """Raise `RequestValidationError` where there is any."""
        if self.more:
            last = self.found[-1]
            last["msg"] = f"{last['msg']} (faults that are not shown: {self.more})"
        if self.found:
            raise RefusedRequestError(self.found)


def single(values: Values, name: str, faults: QueryErrors) -> str | None:
    """A parameter that may be given once."""
    given = values.get(name)
    if given is None:
        return None
    if len(given) > 1:
        faults.add(name, "It is given more than once.", given=list(given))
    return given[0]


def values_of(connection: HTTPConnection) -> dict[str, list[str]]:
    """The query string's values by name, in their order. Raises `RequestValidationError` where there are too many."""
    written: bytes = connection.scope.get("query_string", b"")
    if written.count(b"&") >= MAX_PARAMETERS:
        many = sum(map(bool, written.split(b"&")))
        if many > MAX_PARAMETERS:
            message = f"There are {many} query parameters; at most {MAX_PARAMETERS} are taken."
            raise RefusedRequestError([{"type": "too_long", "loc": ("query",), "msg": message, "input": None}])
    values: dict[str, list[str]] = {}
    for name, value in connection.query_params.multi_items():
        values.setdefault(name, []).append(value)
    return values
