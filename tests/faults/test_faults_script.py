"""The script of real faults, in its small size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def test_every_promise_holds() -> None:
    """A bank under SERIALIZABLE, `kill -9` under load, random cancellations."""
    run = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "BROKEN" not in run.stdout
    assert run.stdout.count("holds") == 3 + 3 + 3 + 4 + 4
