"""The tests of `docs/testing.md` pass, in a project that has the files that the page shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.pages import DOCS, ROOT, blocks_of


def test_the_project_of_the_page(tmp_path: Path) -> None:
    for block in blocks_of(DOCS / "testing.md"):
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "TEST_DATABASE_URL": f"sqlite:///{tmp_path}/t.db"}
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout
