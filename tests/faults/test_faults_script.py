"""The script of real faults, in its small size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_holds() -> None:
    """A bank under SERIALIZABLE, `kill -9` under load and under an app, random cancellations."""
    command = [sys.executable, "-m", "benchmarks.faults", "--quick"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "BROKEN" not in run.stdout
    assert run.stdout.count("holds") == 3 + 3 + 3 + 4 + 4 + 4
