"""Exceptions as ``application/problem+json`` (RFC 9457): the only table of exception → status."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from fastapi.encoders import jsonable_encoder
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dotmac_database import (
    CircuitOpenError,
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    EntityNotFoundError,
    InvalidCursorError,
    MisuseError,
    PermissionDeniedError,
    StaleEntityError,
    TenantIsolationError,
    TenantRequiredError,
    TransactionError,
    ValidationError,
)

from .answers import PROBLEM_JSON
from .body_hints import hinted
from .bounds import MAX_FAULTS, MAX_MESSAGE, shown
from .internals import body_read
from .job_headers import JobHeadersError
from .tenants import SuspendedTenantError, UnknownTenantError

if TYPE_CHECKING:
    from fastapi import FastAPI

_log = logging.getLogger(__name__)

# Subclasses come before their bases. The code is for programs: it distinguishes problems that share a status.
_STATUSES: tuple[tuple[type[DatabaseError], int, str], ...] = (
    (UnknownTenantError, 404, "tenant_unknown"),
    (SuspendedTenantError, 403, "tenant_suspended"),
    (JobHeadersError, 403, "job_refused"),
    (EntityNotFoundError, 404, "not_found"),
    (DuplicateEntityError, 409, "duplicate"),
    (ConstraintViolationError, 409, "constraint"),
    (StaleEntityError, 409, "stale"),
    (InvalidCursorError, 400, "invalid_cursor"),
    (MisuseError, 500, "internal"),
    (TenantRequiredError, 400, "tenant_required"),
    (ValidationError, 422, "invalid"),
    (TenantIsolationError, 403, "tenant_isolation"),
    (PermissionDeniedError, 403, "permission_denied"),
    (CircuitOpenError, 503, "circuit_open"),
    (DatabaseUnavailableError, 503, "unavailable"),
    (DatabaseTimeoutError, 503, "timeout"),
)

_RETRY_AFTER = {"unavailable": 5, "timeout": 2, "conflict": 1}
"""The ``Retry-After`` header of a 503, in seconds."""


class ProblemResponse(JSONResponse):
    """A response with a problem as its body."""

    media_type = PROBLEM_JSON


def problem(
    status: int, code: str, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **more: Any
) -> ProblemResponse:
    """A problem as a response. Members that are None or empty are omitted."""
    return _response(status, {"detail": detail, "code": code, **more}, headers)


def _response(status: int, members: Mapping[str, Any], headers: Mapping[str, str] | None) -> ProblemResponse:
    body = {"type": "about:blank", "title": phrase_of(status), **members, "status": status}
    members = {name: value for name, value in body.items() if value not in (None, (), [])}
    return ProblemResponse(members, status_code=status, headers=dict(headers or {}))


_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""The reason phrases of RFC 9110, where Python before 3.13 has older ones."""


def phrase_of(status: int) -> str:
    """The reason phrase of a status; a generic one for a status that no specification defines."""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Error" if status < 500 else "Server Error"


def problems_of(app: FastAPI) -> tuple[bool, bool]:
    """Whether the toolkit's exceptions become problems, and whether FastAPI's validation error does."""
    handlers = app.exception_handlers
    return DatabaseError in handlers, handlers.get(RequestValidationError) is request_error


async def database_error(request: Request, error: Exception) -> Response:
    """Make a problem of a `DatabaseError`. A 500 is logged with its traceback, a 503 in one line."""
    assert isinstance(error, DatabaseError)
    status, code = status_of(error)
    if isinstance(error, StaleEntityError) and "if-match" in request.headers:
        status = 412
    if isinstance(error, MisuseError) and _is_named_by_client(request, error):
        status, code = 422, "invalid"
    if status == 503:
        # One line each: while a database is unreachable, thousands of tracebacks would bury all other records.
        _log.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
        _log.debug("The traceback", exc_info=error)
        return problem(status, code, _PASSING[code], headers={"Retry-After": str(_retry_after(error, code))})
    if status == 500:
        _log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        return problem(status, code)
    return problem(status, code, str(error), index=error.index, fields=_fields(error))


def _is_named_by_client(request: Request, error: MisuseError) -> bool:
    """Whether the refused name is in the client's request; if not, the server's own code has misspelt it."""
    name = (error.field or "").removesuffix("…")
    if not name:
        return False
    sent = unquote_plus(request.scope["query_string"].decode("latin-1"))
    # The body is known only if the endpoint has read it.
    return name in sent or name in body_read(request).decode(errors="replace")


def _fields(error: DatabaseError) -> list[str]:
    field: str | None = getattr(error, "field", None)
    return [field] if field else list(getattr(error, "fields", ()))


def status_of(error: DatabaseError) -> tuple[int, str]:
    """The HTTP status and the problem's code for an exception."""
    if isinstance(error, TransactionError):
        # An unknown outcome is not a 503, because a client that repeats the request might apply the change twice.
        return (503, "conflict") if error.transient and error.outcome == "rolled_back" else (500, "internal")
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return status, code
    return 500, "internal"


_PASSING = {
    "unavailable": "The database can't be reached, or refuses to work.",
    "timeout": "The database did not respond in time.",
    "circuit_open": "The database has failed, and gets no requests until it has had time to recover.",
    "conflict": "The transaction failed because of a concurrent one.",
}


def _retry_after(error: DatabaseError, code: str) -> int:
    if isinstance(error, CircuitOpenError):
        return max(1, math.ceil(error.retry_after))
    return _RETRY_AFTER[code]


async def request_error(request: Request, error: Exception) -> Response:
    """Make a 422 problem of a `RequestValidationError`. It lists at most `MAX_FAULTS` errors."""
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    faults = [
        {
            "loc": [shown(part) for part in fault["loc"][:MAX_FAULTS]],
            "msg": shown(message, MAX_MESSAGE),
            "type": fault["type"],
            **_context(fault),
        }
        for fault, message in zip(errors, hinted(request, errors[:MAX_FAULTS]), strict=False)
    ]
    detail = "; ".join(f"{'.'.join(fault['loc'])}: {fault['msg']}" for fault in faults)
    if len(errors) > MAX_FAULTS:
        detail += f"; errors that are not shown: {len(errors) - MAX_FAULTS}"
    return problem(422, "invalid", detail, errors=faults)


async def http_error(request: Request, error: Exception) -> Response:
    """Make a problem of an `HTTPException`, including the router's 404 and 405. Below 400 it stays as it is.

    Its ``detail`` is the problem's ``detail`` if it is a text. A dict gives extension members (RFC 9457, section 3.2),
    and anything else becomes the member ``errors``.
    """
    assert isinstance(error, HTTPException)
    status, detail = error.status_code, error.detail
    if status < 400:
        return await http_exception_handler(request, error)
    title, code = phrase_of(status), _code_of(status)
    if isinstance(detail, str):
        return problem(status, code, None if detail == title else detail, headers=error.headers)
    members = detail if isinstance(detail, dict) else {"errors": detail}
    return _response(status, {"code": code, **jsonable_encoder(members)}, error.headers)


def _code_of(status: int) -> str:
    """The code of an `HTTPException` that names none: the words of its status."""
    return re.sub(r"\W+", "_", phrase_of(status).lower())


_CODES: tuple[str, ...] = (
    *(code for _, _, code in _STATUSES),
    "conflict",
    *(_code_of(status) for status in HTTPStatus if status >= 400),
    *(_code_of(status) for status in (499, 599)),
)
_OWN_CODES = "dotmac_database_codes"


def declare_codes(app: FastAPI, codes: Collection[str]) -> None:
    """Add codes of the app's own to those that its document has. Raises `ValidationError` unless they are texts."""
    if isinstance(codes, str) or not all(isinstance(code, str) and code for code in codes):
        raise ValidationError(f"codes={codes!r}: a list of texts is expected.", field="codes")
    setattr(app.state, _OWN_CODES, tuple(dict.fromkeys((*own_codes(app), *codes))))


def own_codes(app: FastAPI) -> tuple[str, ...]:
    """The codes of the app's own problems, which it has declared."""
    declared: tuple[str, ...] = getattr(app.state, _OWN_CODES, ())
    return declared


def codes_of(app: FastAPI) -> list[str]:
    """All codes that a problem of the app may have: the toolkit's, those of the statuses of HTTP, and the app's own."""
    return list(dict.fromkeys((*_CODES, *own_codes(app))))


async def unexpected_error(_request: Request, _error: Exception) -> Response:
    """A 500 without details. Starlette re-raises the exception, so that the server logs it."""
    return problem(500, "internal")


def _context(fault: Any) -> dict[str, Any]:
    """The bounds and values that Pydantic reports with an error, as far as they are short and plain JSON."""
    details = fault.get("ctx")
    if not isinstance(details, dict):
        return {}
    plain = {str(name): value for name, value in details.items() if isinstance(value, (bool, int, float, str))}
    context = {
        name: shown(value, MAX_MESSAGE) if isinstance(value, str) else value
        for name, value in plain.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    return {"ctx": context} if context else {}
