"""Installs the packages of a lock file outside of the repository, once for each version of the lock file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dotmac-database-toolkit"


def run(*command: str | Path, folder: Path | None = None) -> str:
    """Run a program that must succeed. Returns its output."""
    done = execute(*command, folder=folder)
    assert done.returncode == 0, f"{command[0]} has failed:\n{done.stdout[-8_000:]}\n{done.stderr[-8_000:]}"
    return done.stdout


def execute(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program. uv trusts the certificates of the system, as pip does: they can be those of a proxy."""
    environment = {**os.environ, "UV_SYSTEM_CERTS": "true"}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def installed(
    lock: Path,
    commands: Callable[[Path], Sequence[Sequence[str | Path]]],
    unreachable: Callable[[subprocess.CompletedProcess[str]], bool],
) -> Path:
    """The folder in which the packages of ``lock`` are installed.

    ``commands`` are those that install them into a new folder. If one of them fails because the registry is
    ``unreachable``, the test is skipped.
    """
    key = sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = CACHE / f"{lock.parent.name}-{key}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as outer:
        new = Path(outer) / "new"
        new.mkdir()
        for command in commands(new):
            done = execute(*command, folder=new)
            if done.returncode and unreachable(done):
                pytest.skip(f"{lock.name} can't be installed, the registry is out of reach: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stdout + done.stderr
        # Another process may have been faster: its folder has the same packages.
        if not folder.exists():
            try:
                new.rename(folder)
            except OSError:
                assert folder.exists()
    return folder
