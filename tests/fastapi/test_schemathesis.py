"""The generated routes are held to their OpenAPI document: schemathesis sends what it allows, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fastapi.conftest import serving
from tests.fastapi.contract_app import create_app

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def run(url: str, tmp_path: Path, *options: str) -> None:
    """Run every check of schemathesis against the app on an empty database; the report is the failure's message."""
    with serving(create_app(url)) as address:
        done = subprocess.run(
            [
                sys.executable,
                *("-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
                *("run", f"{address}/openapi.json", "--checks", "all", "--no-color", *options),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


def test_a_sample_of_requests(database_url: str, tmp_path: Path) -> None:
    """The same ones in every run: those of some operations at the bounds of their schemas."""
    run(database_url, tmp_path, "--phases", "coverage", "--seed", "1", "--include-path-regex", "^/seats")


@pytest.mark.matrix
@pytest.mark.parametrize("seed", [1])
def test_every_operation(database_url: str, tmp_path: Path, seed: int) -> None:
    run(database_url, tmp_path, "--max-examples", "500", "--seed", str(seed))
