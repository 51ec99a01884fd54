"""What both clients need: a record of the requests, and checks of typed answers."""

import json
import sys
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import httpx

T = TypeVar("T")

_answers: list[tuple[str, str, int]] = []


class Answer(Protocol):
    """The answer of a generated client."""

    @property
    def status_code(self) -> HTTPStatus: ...

    @property
    def parsed(self) -> object: ...

    @property
    def headers(self) -> Any: ...  # the generator says MutableMapping[str, str], and gives httpx.Headers


def _record(response: httpx.Response) -> None:
    _answers.append((response.request.method.lower(), response.request.url.path, response.status_code))


RECORDED: dict[str, Any] = {"event_hooks": {"response": [_record]}}
"""Arguments for httpx, by which each answer is recorded."""

PATIENT = httpx.Timeout(60)
"""A busy machine may need longer than httpx waits by default."""


def address() -> str:
    """The address of the app, the program's only argument."""
    return sys.argv[1]


def report() -> None:
    """Print the record for the test that has started the program."""
    sys.stdout.write(json.dumps(_answers))


def ok(answer: Answer, kind: type[T], status: int = 200) -> T:
    """The parsed body of an answer that must have this status and type."""
    assert answer.status_code == status, (answer.status_code, answer.parsed)
    assert isinstance(answer.parsed, kind), answer.parsed
    return answer.parsed


def empty(answer: Answer, status: int = 204) -> None:
    """Check an answer that must have this status and no body."""
    assert answer.status_code == status, (answer.status_code, answer.parsed)
    assert answer.parsed is None
