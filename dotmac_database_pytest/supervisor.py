"""The process that starts a shared server, and stops it when nobody uses it any more: ``python -m … FOLDER``.

It imports nothing but the standard library and the embedded server, and ends its foreground part, with the error if
there is one, as soon as the server accepts connections.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path

from .server import PostgresServer
from .sharing import URL, USERS


def main(folder: Path) -> None:
    """Start the server in a process of its own, and wait until it is ready. Exits with the error's message."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as report:
            error = report.read()
        if error:
            sys.exit(error)
        return
    os.close(reading)
    _detach()
    try:
        server = PostgresServer().start()
        try:
            (folder / f"{URL}.new").write_text(server.url())
            (folder / f"{URL}.new").replace(folder / URL)
        except BaseException:
            server.stop()
            raise
    except BaseException as error:
        os.write(writing, str(error or type(error).__name__).encode())
        raise
    os.close(writing)
    supervise(folder, server)


def supervise(folder: Path, server: PostgresServer) -> None:
    """Wait until no process uses the server, or this one is to end (SIGTERM), and stop the server."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (folder / USERS).open("a") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX)
        finally:
            (folder / URL).unlink(missing_ok=True)
            server.stop()


def _detach() -> None:
    """Leave the terminal, whose Ctrl-C is for the tests alone, and the pipes of the process that waits."""
    os.setsid()
    with Path(os.devnull).open("r+b") as nothing:
        for stream in (0, 1, 2):
            os.dup2(nothing.fileno(), stream)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
