"""The PostgreSQL server of the pytest plugin, which the tests can kill, freeze and start again."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import suppress
from typing import Any

import psutil

from dotmac_database_pytest.server import PostgresServer


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class OwnServer(PostgresServer):
    """A server whose processes the tests can stop, and which can have a standby."""

    def standby(self, name: str = "standby", **settings: Any) -> OwnServer:
        """A standby of this server, by streaming replication. It is not started yet."""
        server = OwnServer(**settings)
        shutil.rmtree(server.data)
        source = f"{self.url()}?application_name={name}"
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        server.run("pg_basebackup", "-D", str(server.data), "-d", source, *options)
        return server

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
