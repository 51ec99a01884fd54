"""Random requests to generated endpoints, through the ASGI interface."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import FastAPI

from dotmac_database_fastapi import DatabasePlugin, crud_router, register_exception_handlers, tenant_from_header

from .shapes import COUNTRY, KINDS, OPERATORS, POST, TAG, USER, Calls, Kind

_SEARCHED = {USER: ("name", "email"), POST: ("title",), TAG: ("name",), COUNTRY: ("name",)}


def _path(kind: Kind) -> str:
    return f"/{kind.model.__tablename__}"


@asynccontextmanager
async def app_on(url: str) -> AsyncIterator[tuple[FastAPI, DatabasePlugin]]:
    """An app with generated routes for each class."""
    plugin = DatabasePlugin(url, tenant=tenant_from_header("X-Tenant-ID"), pool_size=2)
    app = FastAPI()
    plugin.install(app)
    register_exception_handlers(app)
    for kind in KINDS:
        filters, sorts = [*kind.fields, *kind.paths], [*kind.fields]
        router = crud_router(
            kind.model, prefix=_path(kind), filters=filters, sorts=sorts, search=_SEARCHED[kind], max_page_size=500
        )
        app.include_router(router)
    try:
        yield app, plugin
    finally:
        await plugin.database.dispose_async()


class Requests(Calls):
    """Random requests, of which some have unknown parameters, wrong values or wrong bodies."""

    def __init__(self, app: FastAPI, seed: int) -> None:
        super().__init__(seed)
        self._app = app
        self._next: tuple[Kind, list[tuple[str, str]], str, str] | None = None

    async def __call__(self) -> str:
        """One request; its status. Raises `RuntimeError` for a status of 500 or more."""
        kind, tenant = self.kind(), self.tenant()
        chance = self.random.random()
        if chance < 0.1 and self._next is not None:
            kind, query, tenant, cursor = self._next
            status, _ = await self._send("GET", _path(kind), tenant, [*query, ("cursor", cursor)])
        elif chance < 0.6:
            status = await self._list(kind, tenant)  # type: ignore[func-returns-value]
        elif chance < 0.75:
            method = self.random.choice(("GET", "GET", "HEAD", "DELETE", "OPTIONS"))
            status, _ = await self._send(method, self._one(kind), tenant)
        elif chance < 0.9:
            status, _ = await self._send("POST", _path(kind), tenant, body=self._body(kind, kind.required))
        else:
            status, _ = await self._send("PATCH", self._one(kind), tenant, body=self._body(kind, ()))
        return str(status)

    async def _list(self, kind: Kind, tenant: Any) -> Any:
        query = self._query(kind)
        if self.random.random() < 0.4:
            query.append(("limit", str(self.random.randrange(1, 12))))
            status, body = await self._send("GET", _path(kind), tenant, query)
            cursor = json.loads(body).get("next_cursor") if status == 200 else None
            if cursor is not None:
                self._next = kind, query, tenant, cursor
            return status
        for name, most in (("page", 4), ("per_page", 60)):
            if self.random.random() < 0.5:
                query.append((name, str(self.random.randrange(1, most))))
        if self.random.random() < 0.3:
            query.append(("total", self.random.choice(("exact", "bounded", "none"))))
        status, _ = await self._send("GET", _path(kind), tenant, query)
        return status

    def _one(self, kind: Kind) -> str:
        return f"{_path(kind)}/{quote(str(self.value(kind.key)), safe='')}"

    def _query(self, kind: Kind) -> list[tuple[str, str]]:
        """The parameters that filter, sort and search."""
        fields = {**kind.fields, **kind.paths}
        query = []
        for name in self.random.sample([*fields], self.random.randrange(min(5, len(fields)))):
            operator = self.random.choice(OPERATORS[fields[name]])
            key = name if operator == "eq" else f"{name}__{operator}"
            query.append((key, _text(True if operator.startswith("is_") else self._operand(operator, fields[name]))))
        sorts = self.random.sample([*kind.fields], self.random.randrange(min(4, len(kind.fields) + 1)))
        if sorts and self.random.random() < 0.6:
            query.append(("sort", ",".join(self.random.choice(("", "-")) + name for name in sorts)))
        if self.random.random() < 0.1:
            query.append(("q", " ".join(self.word() for _ in range(self.random.randrange(1, 5)))))
        if self.random.random() < 0.05:
            query.append((self.word() * self.random.randrange(1, 20), self.word()))
        return query

    def _body(self, kind: Kind, least: tuple[str, ...]) -> Any:
        body = {name: _jsonable(value) for name, value in self._row(kind, least).items()}
        if self.random.random() < 0.05:
            body[self.word()] = self.word()
        return body

    async def _send(
        self, method: str, path: str, tenant: str, query: list[tuple[str, str]] | None = None, body: Any = None
    ) -> tuple[int, bytes]:
        """Send a request to the app; the status and the body of its response."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query or []).encode(),
            "root_path": "",
            "headers": [(b"x-tenant-id", tenant.encode()), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        content = b"" if body is None else json.dumps(body).encode()
        status, parts = 0, []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        if status >= 500:
            raise RuntimeError(f"{method} {path}?{urlencode(query or [])} with {body}: {status} {parts!r}")
        return status, b"".join(parts)


def _text(value: Any) -> str:
    """A value as it is in a query string."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value.value if isinstance(value, Enum) else value.isoformat() if isinstance(value, date) else value)


def _jsonable(value: Any) -> Any:
    """A value as it is in a JSON body."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, UUID)) else value
