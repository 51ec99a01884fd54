"""What goes over the wire, counted by a proxy in front of the server: exact where clocks are noisy."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

_SSL_REQUEST = 80877103


@dataclass
class Sent:
    """``statements``: the client's Query and Execute messages, BEGIN and COMMIT among them. ``trips``: waits."""

    statements: int = 0
    trips: int = 0


class _Messages:
    """Finds the statements in what a client sends; https://www.postgresql.org/docs/current/protocol-flow.html."""

    def __init__(self) -> None:
        self._rest = b""
        self._started = False

    def statements(self, data: bytes) -> int:
        """How many statements begin in the messages that ``data`` completes."""
        self._rest += data
        found = place = 0
        while True:
            head = 1 if self._started else 0
            if len(self._rest) - place < head + 4:
                break
            length = head + int.from_bytes(self._rest[place + head : place + head + 4], "big")
            if len(self._rest) - place < length:
                break
            if self._started:
                found += self._rest[place : place + 1] in (b"Q", b"E")
            else:
                self._started = int.from_bytes(self._rest[place + 4 : place + 8], "big") != _SSL_REQUEST
            place += length
        self._rest = self._rest[place:]
        return found


class Proxy:
    """Passes everything on to a server on 127.0.0.1 and counts in ``sent``; set that to a new `Sent` to begin anew."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.sent = Sent()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        server, request = await asyncio.open_connection("127.0.0.1", self._target)
        messages = _Messages()
        waiting = False

        async def ask() -> None:
            nonlocal waiting
            while data := await client.read(1 << 20):
                self.sent.statements += messages.statements(data)
                if not waiting:
                    self.sent.trips += 1
                    waiting = True
                request.write(data)
                await request.drain()
            request.close()

        async def tell() -> None:
            nonlocal waiting
            while data := await server.read(1 << 20):
                waiting = False
                answer.write(data)
                await answer.drain()
            answer.close()

        with suppress(ConnectionError):
            await asyncio.gather(ask(), tell())
