"""``python -m example_app``: what a newcomer types."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from example_app.__main__ import cli
from example_app.server import listen

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "example_app"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "EXAMPLE_DATA")}
    return {**kept, "EXAMPLE_DATA": str(folder), "COLUMNS": "200", "TERM": "dumb", **more}


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(folder, **more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """The command, serving; gives the page's URL. It must end by Ctrl+C, without a word of complaint."""
    command = [*COMMAND, "--port", "0", "--no-browser", *arguments]
    output = folder.parent / "output"
    with output.open("w") as written:
        process = subprocess.Popen(command, env=environment(folder), cwd=ROOT, stdout=written, stderr=written)
        try:
            deadline = time.monotonic() + 60
            while (found := re.search(r"http://\S+/(?=\s)", output.read_text())) is None:
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.05)
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(120)
    assert process.returncode == 0, output.read_text()
    assert "Traceback" not in output.read_text()


def asked(url: str, tenant: str = "IS") -> dict[str, object]:
    request = urllib.request.Request(url, headers={"X-Tenant-ID": tenant})
    with urllib.request.urlopen(request, timeout=90) as response:
        return dict(json.load(response))


def test_one_command_loads_and_serves_and_the_next_finds_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with served(folder) as url:
        assert asked(f"{url}api/summary")["airports"] == 79
        assert asked(f"{url}health/db")["status"] == "healthy"
    assert (folder / "airports.db").stat().st_size > 1_000_000
    assert (folder / ".gitignore").read_text() == "*\n"
    again = run(folder, "--load-only")
    assert (again.returncode, again.stdout.strip()) == (0, "The data are there already.")


def test_make_example_installs_what_the_example_needs_and_takes_a_port(tmp_path: Path) -> None:
    make = ["make", "--dry-run", "example", f"VENV={tmp_path}/new", "PORT=8765"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    done = subprocess.run(make, cwd=ROOT, env=ours, capture_output=True, text=True, timeout=120, check=True)
    commands = done.stdout
    assert "'.[example]'" in commands
    assert "'.[dev]'" not in commands
    assert commands.splitlines()[-1].endswith("-m example_app --port 8765")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """As root the server runs as a user of its own, who can't reach pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="dotmac-example-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_flag_brings_a_postgresql_along(open_folder: Path) -> None:
    data = open_folder / "data"
    with served(data, "--postgres") as url:
        assert asked(f"{url}api/summary", "NZ")["staff"] == 4
        details = asked(f"{url}health/db")["details"]
        assert isinstance(details, dict)
        assert details["server"]["version"].startswith("18")
    assert (data / "postgresql" / "PG_VERSION").exists()
    assert not (data / "postgresql" / "postmaster.pid").exists(), "the server outlived the example"


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Any]:
    """The command in this process, for what ends at once."""

    def invoke(*arguments: str, **more: str) -> Any:
        given = {"DATABASE_URL": None, "EXAMPLE_DATA": str(tmp_path / "data"), "COLUMNS": "200", "TERM": "dumb", **more}
        return CliRunner().invoke(cli, list(arguments), env=given)

    return invoke


def test_the_help_names_every_option(command: Callable[..., Any]) -> None:
    told = command("--help").output
    for option in ("--host", "--port", "--database-url", "DATABASE_URL", "--postgres", "--no-browser", "--load-only"):
        assert option in told


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(command: Callable[..., Any], tmp_path: Path) -> None:
    listener = listen("127.0.0.1", 0)
    listener.listen()
    try:
        port = str(listener.getsockname()[1])
        refused = command("--port", port, "--no-browser")
    finally:
        listener.close()
    assert refused.exit_code == 1
    assert f"Can't listen on 127.0.0.1:{port}" in refused.output
    assert isinstance(refused.exception, SystemExit)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "url", ["postgresql://nobody@127.0.0.1:1/none", "mysql://localhost/none", "sqlite:////no/such/folder/file.db"]
)
def test_a_database_that_does_not_work_is_told(command: Callable[..., Any], url: str) -> None:
    refused = command("--load-only", DATABASE_URL=url)
    assert refused.exit_code == 1
    assert "The database does not work" in refused.output
    assert isinstance(refused.exception, SystemExit)


def test_two_databases_at_once_are_refused(command: Callable[..., Any]) -> None:
    refused = command("--postgres", DATABASE_URL="sqlite:///x.db")
    assert refused.exit_code == 2
    assert "not both" in refused.output
