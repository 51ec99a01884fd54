"""The ``Idempotency-Key`` header: a request that is repeated gets its first answer.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

from fastapi import Header, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import async_once

IDEMPOTENCY_KEY: Any = Header(
    None,
    alias="Idempotency-Key",
    min_length=1,
    max_length=255,
    description="A key of the client's own making: repeated with it, the request is answered as the first time.",
)
"""The header, as the default of an endpoint's parameter."""

_KEPT = ("location", "etag", "content-type")


async def answered_once(
    request: Request, session: AsyncSession, key: str, answer: Callable[[], Awaitable[Response]]
) -> Response:
    """``answer()``, recorded with ``key`` in the request's transaction; or what it was when the key was new.

    The repeated answer has the header ``Idempotency-Replayed``. A failure records nothing. Raises
    `DuplicateEntityError` for a key that was used for another request. Two statements more, or two in all.
    """
    told = b"\0".join([request.method.encode(), request.url.path.encode(), await request.body()])
    record = await async_once(session, key, fingerprint=sha256(told).hexdigest())
    if not record.first:
        kept = record.result
        headers = {**kept["headers"], "Idempotency-Replayed": "true"}
        return Response(kept["body"], kept["status"], headers)
    response = await answer()
    headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
    body = bytes(response.body).decode()
    await record.async_save(session, {"status": response.status_code, "headers": headers, "body": body})
    return response
