"""Count statements and round trips by a proxy in front of the server. These counts are exact; times are noisy."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

_SSL_REQUEST = 80877103


@dataclass
class Sent:
    """``statements``: the client's Query and Execute messages, with BEGIN and COMMIT. ``trips``: the round trips."""

    statements: int = 0
    trips: int = 0


class _Messages:
    """Finds the statements in the bytes from a client: https://www.postgresql.org/docs/current/protocol-flow.html."""

    def __init__(self) -> None:
        self._rest = b""
        self._started = False

    def statements(self, data: bytes) -> int:
        """The number of Query and Execute messages that ``data`` completes."""
        self._rest += data
        count = position = 0
        while True:
            head = 1 if self._started else 0
            if len(self._rest) - position < head + 4:
                break
            length = head + int.from_bytes(self._rest[position + head : position + head + 4], "big")
            if len(self._rest) - position < length:
                break
            if self._started:
                count += self._rest[position : position + 1] in (b"Q", b"E")
            else:
                self._started = int.from_bytes(self._rest[position + 4 : position + 8], "big") != _SSL_REQUEST
            position += length
        self._rest = self._rest[position:]
        return count


class Proxy:
    """Forwards everything to a server on 127.0.0.1 and counts in ``sent``. Assign a new `Sent` to start from zero."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.sent = Sent()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(client, to_client))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            with suppress(ConnectionError):
                await self._forward(client, to_client, server, to_server)
        finally:
            for writer in (to_server, to_client):
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    async def _forward(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        messages = _Messages()
        waiting = False

        async def forward_requests() -> None:
            nonlocal waiting
            while data := await client.read(1 << 20):
                self.sent.statements += messages.statements(data)
                if not waiting:
                    self.sent.trips += 1
                    waiting = True
                to_server.write(data)
                await to_server.drain()
            to_server.close()

        async def forward_responses() -> None:
            nonlocal waiting
            while data := await server.read(1 << 20):
                waiting = False
                to_client.write(data)
                await to_client.drain()
            to_client.close()

        await asyncio.gather(forward_requests(), forward_responses())
