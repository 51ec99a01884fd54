"""One server for all processes of a run, which stops when the last one has ended, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from dotmac_database_pytest.server import PostgresServer, PostgresServerError
from dotmac_database_pytest.sharing import URL, USERS, shared_server

from .test_plugin import MODELS, NAMED, in_a_process

PATIENCE = 120
"""How long a test waits at most for what must happen, in seconds."""


def stopped(folder: Path, data: str) -> bool:
    """Wait until the supervisor has stopped the server and deleted its data."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with (folder / USERS).open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            if not (folder / URL).exists():
                return not Path(data).exists()
        time.sleep(0.02)
    return False


def data_of(url: str) -> str:
    """The data folder of a server."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return str(row[0])


WORKERS = """
    import json, os, pathlib, signal
    import psycopg, pytest
    from project_models import Shelf
    from sqlalchemy import func, select
    from dotmac_database import create_database

    FOLDER = pathlib.Path(__file__).parent / "seen"

    def note(url):
        with psycopg.connect(url) as connection:
            port, database = connection.info.port, connection.info.dbname
        (FOLDER / f"{database}").write_text(json.dumps([port, os.environ["PYTEST_XDIST_WORKER"], os.getpid()]))

    @pytest.mark.parametrize("number", range(8))
    def test_own(dotmac_postgres, number):
        note(dotmac_postgres)
        database = create_database(dotmac_postgres)
        with database.sessions() as session:
            assert session.scalar(select(func.count()).select_from(Shelf)) == 0
            session.add(Shelf())
            session.commit()
        database.dispose()

    @pytest.mark.parametrize("number", range(4))
    def test_rolled_back(dotmac_session, number):
        assert dotmac_session.scalar(select(func.count()).select_from(Shelf)) == 0
        dotmac_session.add(Shelf())
        dotmac_session.commit()

    def test_crash(dotmac_postgres):
        note(dotmac_postgres)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_share_a_server_that_survives_a_crash_of_one(tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ndotmac_database = postgresql\n{textwrap.dedent(NAMED)}")
    (tmp_path / "project_models.py").write_text(textwrap.dedent(MODELS))
    (tmp_path / "test_workers.py").write_text(textwrap.dedent(WORKERS))
    base = tmp_path / "base"
    done = in_a_process(tmp_path, "-p", "xdist.plugin", "-n", "2", f"--basetemp={base}")
    assert "1 failed, 12 passed" in done.stdout, done.stdout + done.stderr
    assert "crashed while running 'test_workers.py::test_crash'" in done.stdout
    seen = [json.loads(each.read_text()) for each in (tmp_path / "seen").iterdir()]
    assert len(seen) == 9
    assert len({port for port, _, _ in seen}) == 1
    assert len({worker for _, worker, _ in seen}) > 1
    assert stopped(base / "dotmac-postgres", "/nonexistent")


def test_a_server_stops_with_the_last_user_and_starts_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with shared_server(folder) as first:
        with shared_server(folder) as second:
            assert first == second
        data = data_of(first)
    assert stopped(folder, data)
    with shared_server(folder) as third:
        data = data_of(third)
        assert Path(data).exists()
    assert stopped(folder, data)


USER = """
import pathlib, sys, time
from dotmac_database_pytest.sharing import shared_server

with shared_server(pathlib.Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(1000)
"""


def test_a_server_stops_if_all_its_users_are_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", USER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as user:
        assert user.stdout is not None
        data = data_of(user.stdout.readline().strip())
        user.kill()
        user.wait()
    assert stopped(folder, data)


def test_a_supervisor_that_is_to_end_stops_its_server(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with shared_server(folder) as url:
        data = data_of(url)
        postmaster = psutil.Process(int((Path(data) / "postmaster.pid").read_text().split()[0]))
        supervisor = postmaster.parent()
        assert supervisor is not None
        assert "dotmac_database_pytest.supervisor" in supervisor.cmdline()
        supervisor.send_signal(signal.SIGTERM)
        psutil.wait_procs([supervisor, postmaster], timeout=PATIENCE)
        assert not postmaster.is_running()
        assert not (folder / URL).exists()


def test_the_error_of_a_server_that_can_not_start_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    (tmp_path / "sitecustomize.py").write_text("import tempfile\ntempfile.tempdir = '/nonexistent/folder'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        pytest.raises(PostgresServerError, match="/nonexistent/folder"),
        shared_server(tmp_path / "run"),
    ):
        raise AssertionError("there is no server")


def test_a_wrong_setting_is_named() -> None:
    server = PostgresServer(no_such_setting=1)
    try:
        with pytest.raises(PostgresServerError, match=r"did not start:\n.*no_such_setting"):
            server.start()
    finally:
        server.stop()
    assert not server.folder.exists()
