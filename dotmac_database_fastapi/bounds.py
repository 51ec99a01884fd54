"""The limits of one request, and the limits of the text that a response repeats from the request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pydantic
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

MAX_PARAMETERS = 100
"""The most parameters that a query string may have."""

MAX_SORTS = 20
"""The most fields that ``sort`` may name."""

MAX_FILTER_VALUES = 1_000
"""The most values that all filters of a query string may have together."""

MAX_SEARCH = 10_000
"""The most characters that ``q`` may have."""

MAX_FACET_VALUES = 100
"""The most values of a facet."""

MAX_FAULTS = 10
"""The most errors that a problem lists."""

MAX_SUGGESTIONS = 3
"""The most unknown names for which a similar known name is searched: each search takes as long as a plain request."""

MAX_ROWS = 1_000
"""The most rows in a JSON array of a request's body."""

MAX_OFFSET = 10_000
"""The default for the most rows that a numbered page may skip. The database reads all rows that are skipped."""

MAX_LINKS = 8_000
"""The most characters that the ``Link`` header may have: reverse proxies refuse longer headers."""

MAX_SHOWN, MAX_MESSAGE = 80, 1_000
"""The most characters that a problem repeats of one name or value, and the most of the message of one error."""


class RefusedRequestError(RequestValidationError):
    """The toolkit's parameters or generated routes refuse the request.

    The response is a problem (RFC 9457) even if the exception handlers were registered with ``validation=False``.
    """


def shown(value: object, most: int = MAX_SHOWN) -> str:
    """A client's text as a response repeats it: at most ``most`` characters, with invalid Unicode replaced."""
    text = str(value)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


Values = Mapping[str, Sequence[str]]


@dataclass(slots=True)
class QueryErrors:
    """The errors of a query string: the first `MAX_FAULTS` of them, reported together in FastAPI's form."""

    errors: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0
    """The number of further errors, which are counted but not stored."""
    suggestions: int = MAX_SUGGESTIONS
    """The number of names for which a similar one may still be searched."""
    within: dict[str, str] = field(default_factory=dict)
    """The query parameter that contains a named value, for values that are members of its JSON."""

    def add(self, name: str, message: str, kind: str = "value_error", value: Any = None) -> None:
        """Add one error of one parameter."""
        if len(self.errors) == MAX_FAULTS:
            self.more += 1
            return
        if isinstance(value, (list, tuple)):
            value = [shown(each) for each in value[:MAX_FAULTS]]
        elif value is not None:
            value = shown(value)
        parameter = self.within.get(name)
        place = ("query", shown(name)) if parameter is None else ("query", parameter, shown(name))
        self.errors.append({"type": kind, "loc": place, "msg": shown(message, MAX_MESSAGE), "input": value})

    def add_all(self, name: str, error: pydantic.ValidationError, value: Any) -> None:
        """Add the errors that Pydantic found in a parameter's value."""
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            self.add(name, each["msg"], each["type"], value)

    def nearest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name most similar to an unknown one; None: none is similar, or `MAX_SUGGESTIONS` is used up."""
        if not self.suggestions or len(name) > MAX_SHOWN:
            return None
        self.suggestions -= 1
        return next(iter(get_close_matches(name, known, n=1)), None)

    def refuse(self) -> None:
        """Raise `RequestValidationError` if there are any errors."""
        if self.more:
            last = self.errors[-1]
            last["msg"] = f"{last['msg']} (errors that are not shown: {self.more})"
        if self.errors:
            raise RefusedRequestError(self.errors)


def single(values: Values, name: str, faults: QueryErrors) -> str | None:
    """The value of a parameter that may be given only once; None if it is missing."""
    texts = values.get(name)
    if texts is None:
        return None
    if len(texts) > 1:
        faults.add(name, "The parameter is given more than once.", value=list(texts))
    return texts[0]


def values_of(connection: HTTPConnection) -> dict[str, list[str]]:
    """The query string's values by name, in their order. Raises `RequestValidationError` if there are too many."""
    written: bytes = connection.scope.get("query_string", b"")
    if written.count(b"&") >= MAX_PARAMETERS:
        many = sum(map(bool, written.split(b"&")))
        if many > MAX_PARAMETERS:
            message = f"There are {many} query parameters; at most {MAX_PARAMETERS} are allowed."
            raise RefusedRequestError([{"type": "too_long", "loc": ("query",), "msg": message, "input": None}])
    values: dict[str, list[str]] = {}
    for name, value in connection.query_params.multi_items():
        values.setdefault(name, []).append(value)
    return values
