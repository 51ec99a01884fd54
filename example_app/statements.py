"""The statements behind each response of the API, for the page's "How is this done?".

This is for the example only: it shows every visitor the SQL of the app. The statements have no parameters, so they
contain no data.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from secrets import token_urlsafe
from typing import Any

from fastapi import APIRouter, HTTPException
from sqlalchemy import Connection, Engine, event
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Statements"
_PATH = "/api/statements/"
_MAX_REQUESTS = 500
_MAX_STATEMENTS = 50

_CURRENT: ContextVar[list[str] | None] = ContextVar("statements of the current request", default=None)


class StatementLog:
    """The statements of the last 500 requests, each by a token that the response to the request names in a header."""

    def __init__(self) -> None:
        self._statements: OrderedDict[str, list[str]] = OrderedDict()

    def begin(self) -> tuple[str, list[str]]:
        """A new token, and the list for its statements."""
        token, statements = token_urlsafe(9), list[str]()
        self._statements[token] = statements
        while len(self._statements) > _MAX_REQUESTS:
            self._statements.popitem(last=False)
        return token, statements

    def get(self, token: str) -> list[str] | None:
        """The statements of a request in their order; None if the token is unknown, or too old."""
        return self._statements.get(token)


class StatementMiddleware:
    """Notes the statements of each request under ``/api``, and names their token in the response's header."""

    def __init__(self, app: ASGIApp, log: StatementLog) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if not path.startswith("/api/") or path.startswith(_PATH):
            await self.app(scope, receive, send)
            return
        token, statements = self.log.begin()

        async def send_with_token(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = token
            await send(message)

        current = _CURRENT.set(statements)
        try:
            await self.app(scope, receive, send_with_token)
        finally:
            _CURRENT.reset(current)


def note_statements(engine: Engine) -> None:
    """Note what the engine sends, in the list of the request that is being served."""

    def statement(_connection: Connection, _cursor: object, sql: str, *_: object) -> None:
        if sql != "BEGIN":  # SQLite's driver is sent it as a statement
            _note(sql)

    def transaction(word: str) -> Any:
        def listener(connection: Connection) -> None:
            if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
                _note(word)

        return listener

    listeners = {
        "before_cursor_execute": statement,
        **{name: transaction(name.upper()) for name in ("begin", "commit", "rollback")},
    }
    for name, listener in listeners.items():
        # The listeners write nothing, so statements need no transaction because of them (docs/performance.md).
        listener.dotmac_observes = True
        event.listen(engine, name, listener)


def _note(sql: str) -> None:
    statements = _CURRENT.get()
    if statements is not None and len(statements) < _MAX_STATEMENTS:
        statements.append(sql)


def statements_router(log: StatementLog) -> APIRouter:
    """``GET /api/statements/{token}``: the statements behind a response."""
    router = APIRouter(tags=["how it is done"])

    @router.get(f"{_PATH}{{token}}")
    async def read_statements(token: str) -> dict[str, list[str]]:
        """The statements that the toolkit sent for one of the last requests, in their order, without parameters."""
        statements = log.get(token)
        if statements is None:
            raise HTTPException(404, "These statements are unknown, or too old.")
        return {"statements": statements}

    return router
