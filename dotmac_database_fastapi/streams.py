"""A response whose body is made while it is sent, and which shows the client whether it is complete."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from anyio import create_task_group
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

_REFUSED: Message = {"type": "http.response.pathsend", "path": ""}
"""A message that no server accepts after the first part of a body, and that middlewares pass on.

It breaks a response. An exception alone does not: Starlette's `BaseHTTPMiddleware`, the base of
``@app.middleware("http")``, sends the end of the body before it raises the app's exception. So a client would take a
part of a file for the whole one. But it passes this message on, as the last one, and the server raises an exception for
it. (The message is of an extension: https://asgi.readthedocs.io/en/latest/extensions.html#path-send)
"""


class CheckedStream(StreamingResponse):
    """Sends the chunks of an async generator, which is always run, and closed, in the request's own task.

    The first chunk is made before the response begins: if that fails, the exception handlers of the app respond. If a
    later chunk fails, the server closes the connection without the end of the body. When the client has gone away, no
    further chunk is made, and the generator is closed. Without chunks (None), as for HEAD, only the headers are sent.
    """

    def __init__(
        self, chunks: AsyncGenerator[bytes, None] | None, *, media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__((), headers=headers, media_type=media_type)
        if chunks is not None:
            self.body_iterator = chunks
        self._chunks = chunks
        self._has_begun = False
        self._is_gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's parameters
        """Send the response (the interface of ASGI)."""
        failure: Exception | None = None
        # In the group only the client is watched. A generator that sets context variables, as the actor is one, must
        # be run and closed in one task, and an exception inside of the group would be part of an ExceptionGroup.
        async with create_task_group() as tasks:
            tasks.start_soon(self._watch, receive)
            try:
                await self.stream_response(send)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            if self._has_begun and not isinstance(failure, ClientDisconnect):
                await _break(send, failure)
            raise failure
        if self.background is not None:
            await self.background()

    async def stream_response(self, send: Send) -> None:
        """Send the headers and the chunks."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if self._chunks is None:
            await _sent(send, start)
        else:
            async with aclosing(self._chunks) as chunks:
                first = await anext(chunks, b"")
                self._has_begun = True
                await _sent(send, start)
                if first:
                    await _sent(send, _part(first))
                # A server may accept what is sent to a client that is gone, so the flag is read before each chunk.
                while not self._is_gone and (chunk := await anext(chunks, None)) is not None:
                    await _sent(send, _part(chunk))
        if not self._is_gone:
            await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self, receive: Receive) -> None:
        """Note when the client goes away.

        The statement that is running then is not cancelled, because a cancelled one can cost its connection.
        """
        while (await receive())["type"] != "http.disconnect":
            continue
        self._is_gone = True


async def _break(send: Send, failure: Exception) -> None:
    """Have the server close the connection without the end of the body."""
    try:
        with suppress(Exception):  # the server's refusal; the failure is raised next
            await send(_REFUSED)
    except BaseException:
        # A middleware has got the refusal, and cancels this task. So nobody else learns of the failure.
        _log.error("A response is incomplete: %s", failure, exc_info=failure)
        raise


def _part(chunk: bytes) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


async def _sent(send: Send, message: Message) -> None:
    try:
        await send(message)
    except OSError:  # so a server says that the client is gone, from version 2.4 of ASGI's specification on
        raise ClientDisconnect from None
