"""Registers the exception handlers of an app."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from dotmac_database import DatabaseError

from .bounds import RefusedRequestError
from .errors import database_error, declare_codes, http_error, request_error, unexpected_error
from .openapi import describe

if TYPE_CHECKING:
    from fastapi import FastAPI

_FASTAPIS = (http_exception_handler, request_validation_exception_handler)


def register_exception_handlers(app: FastAPI, *, validation: bool = True, codes: Collection[str] = ()) -> None:
    """Turn the toolkit's exceptions, FastAPI's validation error, `HTTPException` and all others into problems.

    404: not found. 409: duplicate, constraint, stale. 412: stale, if the request has ``If-Match``. 422: validation.
    400: invalid cursor, no tenant. 403: tenant isolation, a policy. 503 with ``Retry-After``: unavailable, timeout,
    circuit open, and a transaction that failed because of a concurrent one. 500, without details: all others. A
    `MisuseError` is a 500 too, unless the client sent the name that it refuses. A 500 is logged as an error with its
    traceback, a 503 as a warning of one line.

    The user's own handlers take precedence, whether they are registered before or after. With ``validation=False`` the
    app's own endpoints keep FastAPI's 422; errors of the generated routers and of the toolkit's parameters are still
    problems.

    Each problem has a ``code``, and the OpenAPI document lists all codes. ``codes`` are those of the app's own, of its
    exceptions such as ``HTTPException(409, {"code": "sold_out"})``; clients that are generated from the document may
    refuse a code that it does not list. Raises `ValidationError` unless they are texts.
    """
    declare_codes(app, codes)
    handlers: dict[type[Exception], Any] = {
        DatabaseError: database_error,
        RefusedRequestError: request_error,
        HTTPException: http_error,
    }
    if 500 not in app.exception_handlers:
        handlers[Exception] = unexpected_error
    if validation:
        handlers[RequestValidationError] = request_error
    for kind, handler in handlers.items():
        # The user's own handlers win, also those that are registered later.
        if app.exception_handlers.get(kind) in (None, *_FASTAPIS):
            app.add_exception_handler(kind, handler)
    describe(app)
