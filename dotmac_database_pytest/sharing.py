"""One PostgreSQL server for all processes of a test run, such as the workers of pytest-xdist.

The processes that use the server hold a shared lock of the file ``users``, which the operating system releases when a
process ends, also when it is killed. The server's supervisor waits for the exclusive lock of that file: it gets it when
the last user is gone, and stops the server.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .server import PostgresServerError

USERS = "users"
"""The file whose shared lock each process holds that uses the server."""

URL = "url"
"""The file with the URL of the server, in libpq's form. It exists while the server runs."""


@contextmanager
def shared_server(folder: Path) -> Iterator[str]:
    """The URL (in libpq's form) of the server of all processes that enter this block with the same ``folder``.

    The first one starts the server, and the server stops after the last one. Raises `PostgresServerError` if it can't
    be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / USERS).open("a") as users:
        with (folder / "starting").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            # A supervisor that stops its server holds the exclusive lock until it has deleted the file of the URL.
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (folder / URL).exists():
                _start(folder)
        try:
            yield (folder / URL).read_text()
        finally:
            # Closing the file would not release the lock if a child process has inherited it.
            fcntl.flock(users, fcntl.LOCK_UN)


def _start(folder: Path) -> None:
    """Start a supervisor, and wait until its server accepts connections."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", f"{__package__}.supervisor", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise PostgresServerError(done.stderr.strip())
