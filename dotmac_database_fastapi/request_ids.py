"""The id of a request, by which its log records, its problems and its jobs are found again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from starlette.types import Scope

from dotmac_database.telemetry import REQUEST, RequestContext, within

REQUEST_ID_HEADER = "X-Request-ID"
"""The header in which a client or a proxy names the request."""

_VALID = re.compile(r"[A-Za-z0-9_.:@/+=-]{1,128}\Z")
_RAW_HEADER = REQUEST_ID_HEADER.lower().encode()
_SCOPE = "dotmac_database.request_id"


def current_request_id() -> str | None:
    """The id of the request or of the job that runs in this context; None outside of `within_request`."""
    request = REQUEST.get()
    return None if request is None else request.request_id


@contextmanager
def within_request(request_id: str) -> Iterator[None]:
    """Make ``request_id`` the current one in this block, in this task and thread.

    Log records and spans have it too. The route and the tenant that they have stay.
    """
    with within(replace(REQUEST.get() or RequestContext(), request_id=request_id)):
        yield


@contextmanager
def within_job(request_id: str, tenant: object) -> Iterator[None]:
    """As `within_request`, for a job that works for ``tenant``; None: for none."""
    with within(replace(REQUEST.get() or RequestContext(), request_id=request_id, tenant=tenant)):
        yield


def is_request_id(text: str) -> bool:
    """Whether a text can be a request's id: 1 to 128 ASCII letters, digits and ``_ - . : @ / + =``."""
    return _VALID.match(text) is not None


def new_request_id() -> str:
    """An id for a request that names none: a random UUID, in 32 hexadecimal digits."""
    return uuid4().hex


def request_id_of(scope: Scope) -> str:
    """The id of the request with this ASGI scope, the same at each call.

    It is the value of the request's header, if the request has one such header and its value is valid. Otherwise a new
    one is made, because the id gets into logs and into the headers of jobs.
    """
    if _SCOPE not in scope:
        values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == _RAW_HEADER]
        is_valid = len(values) == 1 and is_request_id(values[0])
        scope[_SCOPE] = values[0] if is_valid else new_request_id()
    known: str = scope[_SCOPE]
    return known
