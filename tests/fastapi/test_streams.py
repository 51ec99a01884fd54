"""A response whose body is made while it is sent, with servers that behave in other ways than the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

from dotmac_database_fastapi.streams import CheckedStream

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Server:
    """Takes messages, until it refuses the one with a certain number, or the client goes away after it."""

    def __init__(self, refused: int = -1, error: type[Exception] = OSError, gone: int = -1) -> None:
        self.messages: list[Any] = []
        self._refused, self._error, self._gone = refused, error, gone
        self._left = asyncio.Event()

    async def send(self, message: Any) -> None:
        if len(self.messages) == self._refused:
            raise self._error
        self.messages.append(message)
        if len(self.messages) - 1 == self._gone:
            self._left.set()
            await asyncio.sleep(0)

    async def receive(self) -> Any:
        await self._left.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.messages)

    @property
    def is_whole(self) -> bool:
        return bool(self.messages) and self.messages[-1].get("more_body") is False


class Chunks:
    """A generator of three chunks, which may fail at one, and notes that it was closed in its own context."""

    def __init__(self, fails_at: int = -1) -> None:
        self._fails_at = fails_at
        self.made = 0
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        token = WHO.set("alice")
        try:
            for number in range(3):
                if number == self._fails_at:
                    raise LookupError(str(number))
                self.made += 1
                yield b"%d" % number
        finally:
            WHO.reset(token)  # raises in another context
            self.closed = True


def sent(server: Server, chunks: Chunks | None, background: Any = None) -> None:
    response = CheckedStream(None if chunks is None else chunks(), media_type="text/x", headers={"X-Own": "1"})
    response.background = background

    async def run() -> None:
        await asyncio.wait_for(response({"type": "http"}, server.receive, server.send), 60)
        assert WHO.get() == "nobody"

    asyncio.run(run())


def test_a_whole_body() -> None:
    server, chunks, done = Server(), Chunks(), list[int]()
    sent(server, chunks, BackgroundTask(done.append, 1))
    assert (server.body, server.is_whole, chunks.closed, done) == (b"012", True, True, [1])
    names = dict(server.messages[0]["headers"])
    assert (server.messages[0]["status"], names[b"x-own"], b"content-length" in names) == (200, b"1", False)


def test_the_headers_alone() -> None:
    server = Server()
    sent(server, None)
    assert [each["type"] for each in server.messages] == ["http.response.start", "http.response.body"]
    assert (server.body, server.is_whole) == (b"", True)


def test_a_fault_before_the_first_chunk_sends_nothing() -> None:
    server, chunks, done = Server(), Chunks(fails_at=0), list[int]()
    with pytest.raises(LookupError):
        sent(server, chunks, BackgroundTask(done.append, 1))
    assert (server.messages, chunks.closed, done) == ([], True, [])


@pytest.mark.parametrize("at", [1, 2])
def test_a_later_fault_sends_no_end(at: int) -> None:
    server, chunks = Server(), Chunks(fails_at=at)
    with pytest.raises(LookupError):
        sent(server, chunks)
    assert (server.body, server.is_whole, chunks.closed) == (b"012"[:at], False, True)
    assert server.messages[-1]["type"] == "http.response.pathsend"


def test_a_server_that_refuses_the_message_raises_the_fault() -> None:
    server, chunks = Server(refused=3, error=RuntimeError), Chunks(fails_at=2)
    with pytest.raises(LookupError):
        sent(server, chunks)
    assert not server.is_whole


@pytest.mark.parametrize("refused", [0, 1, 2, 4])
def test_a_server_that_raises_for_a_client_that_is_gone(refused: int) -> None:
    server, chunks = Server(refused=refused), Chunks()
    with pytest.raises(ClientDisconnect):
        sent(server, chunks)
    assert (len(server.messages), chunks.closed, server.is_whole) == (refused, True, False)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_server_that_says_nothing_of_a_client_that_is_gone(gone: int) -> None:
    server, chunks, done = Server(gone=gone), Chunks(), list[int]()
    sent(server, chunks, BackgroundTask(done.append, 1))
    assert chunks.closed
    assert chunks.made <= gone + 1
    assert not server.is_whole
