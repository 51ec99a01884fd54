"""The ``Idempotency-Key`` header: a repeated request gets the response of the first one.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any

from fastapi import Header, Request, Response
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import (
    ALL_TENANTS,
    DuplicateEntityError,
    IdempotencyRecord,
    ValidationError,
    async_once,
    async_purge_idempotency_keys,
)

from .aliases import JsonObject
from .identity import RequestIdentity, identity_of
from .registry import source_of
from .ruling import RULED
from .source import Source

IDEMPOTENCY_KEY: Any = Header(
    None,
    alias="Idempotency-Key",
    min_length=1,
    max_length=255,
    description="A key that the client chooses. A request that is repeated with its key gets the first response.",
)
"""The header, as the default of an endpoint's parameter."""

DAY = timedelta(days=1)
"""The default time for which a key is kept."""

PURGE_BATCH = 500
"""The most expired keys that one request deletes."""

PURGE_INTERVAL = 600.0
"""The seconds between two deletions of expired keys, in each process and router, unless a deletion's batch was full."""

_WRITTEN = "dotmac_database.written"

_KEPT = ("location", "etag", "preference-applied", "content-type")


class Replays:
    """The recorded responses of one router's endpoints, by idempotency key.

    A key is specific to its tenant and actor, so that the same key of another tenant or actor is another key. It is
    bound to one method, path, query string and body. ``source`` None: that of the app's only plugin. ``ttl``
    None: the source's ``idempotency_ttl``.
    """

    def __init__(self, source: Source | None, ttl: float | timedelta | None) -> None:
        self._source = source
        self._ttl = None if ttl is None else checked_ttl(ttl)
        self._due = 0.0

    async def answered_once(
        self,
        request: Request,
        session: AsyncSession,
        key: str,
        answer: Callable[[], Awaitable[Response]],
        check: Callable[[JsonValue], Awaitable[None]],
    ) -> Response:
        """Call ``answer`` and record its response under ``key`` in the request's transaction, or replay a recorded one.

        A replayed response has the header ``Idempotency-Replayed``. If ``answer`` raises, nothing is recorded. Raises
        `ValidationError` for a key that was used for another request. A first request sends two statements more than a
        request without a key, and from time to time one that deletes expired keys. A replay sends two statements.

        If policies rule the request, ``check`` gets what `note_written` has noted of the first one, or None. It raises
        an exception if the actor may not see the recorded response any more. It may send statements.
        """
        source = self._source or source_of(request)
        identity = await identity_of(source, request)
        ttl = self._ttl if self._ttl is not None else source.idempotency_ttl
        record = await self._recorded(request, session, key, identity, ttl)
        if not record.first:
            stored = record.result
            if RULED in request.scope:
                await check(stored.get("written"))
            return Response(stored["body"], stored["status"], {**stored["headers"], "Idempotency-Replayed": "true"})
        await self._purge(session)
        response = await answer()
        headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
        body = bytes(response.body).decode()
        written: JsonObject = {"written": request.scope[_WRITTEN]} if _WRITTEN in request.scope else {}
        await record.async_save(session, {"status": response.status_code, "headers": headers, "body": body, **written})
        return response

    async def _recorded(
        self, request: Request, session: AsyncSession, key: str, identity: RequestIdentity, ttl: timedelta
    ) -> IdempotencyRecord:
        url = request.url
        sent = _digest(request.method, url.path, url.query, sha256(await request.body()).hexdigest())
        # The digest includes the tenant and the actor, because the session may have no tenant, as a test's session may.
        named = _digest(identity.tenant is ALL_TENANTS, _text(identity.tenant), identity.actor, key)
        tenant = _text(identity.tenant)
        try:
            return await async_once(session, named, tenant_id=tenant and tenant[:128], fingerprint=sent, ttl=ttl)
        except DuplicateEntityError:
            raise ValidationError(
                "The Idempotency-Key was used for another request.", field="Idempotency-Key"
            ) from None

    async def _purge(self, session: AsyncSession) -> None:
        """Delete a batch of expired keys if `PURGE_INTERVAL` has passed, or if the last batch was full."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + PURGE_INTERVAL
        if await async_purge_idempotency_keys(session, at_most=PURGE_BATCH) >= PURGE_BATCH:
            self._due = now


def note_written(request: Request, written: JsonValue) -> None:
    """Note what a request has written, which is recorded with its response and given to the ``check`` of a replay."""
    request.scope[_WRITTEN] = written


def checked_ttl(ttl: float | timedelta) -> timedelta:
    """The time for which keys are kept, as a timedelta. Raises `ValidationError` unless it is positive."""
    lifetime = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    if lifetime <= timedelta(0):
        raise ValidationError("idempotency_ttl must be positive.", field="idempotency_ttl")
    return lifetime


def _text(tenant: object) -> str | None:
    return None if tenant is None else str(tenant)


def _digest(*parts: JsonValue) -> str:
    """A hash of several parts. The encoding is unambiguous: other parts never give the same input."""
    return sha256(json.dumps(parts).encode()).hexdigest()
