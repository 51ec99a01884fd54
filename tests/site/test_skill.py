"""The skill for coding agents is in the wheel, has the front matter that agents read, and its blocks run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks_of, part, run_page

NAME = "dotmac_database/.agents/skills/dotmac-database/SKILL.md"
SKILL = ROOT / NAME


def test_the_blocks_run_as_one_program(tmp_path: Path) -> None:
    """In the order in which they are written; then requests, through the app's lifespan."""
    run_page((*blocks_of(SKILL), part("SKILL", "after")), tmp_path)


def test_the_front_matter_and_the_ten_mistakes() -> None:
    text = SKILL.read_text()
    front = re.match(r"---\nname: ([a-z-]+)\ndescription: ([^\n]+)\n---\n", text)
    assert front is not None
    assert front[1] == SKILL.parent.name
    assert len(front[2]) <= 1024
    assert re.findall(r"^\*\*(\d+)\. ", text, re.MULTILINE) == [str(number) for number in range(1, 11)]
    assert len(text.splitlines()) <= 170


def test_the_wheel_contains_it(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [uv, "build", "--quiet", "--wheel", *isolation, "--python", sys.executable, "--out-dir", str(tmp_path)]
    # As pip does, trust the certificates of the system, which can be those of a proxy.
    environment = {**os.environ, "UV_SYSTEM_CERTS": "true"}
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False, env=environment)
    if done.returncode and not isolation and "resolve requirements" in done.stderr:
        pytest.skip("hatchling is not installed, and the package index can't be reached")
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert files.read(NAME).decode() == SKILL.read_text()
