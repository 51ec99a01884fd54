"""`docs/tenants.md`: its blocks run, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "tenants.md").read_text()
START = """
import sys
import dotmac_database
assert "dotmac_database.transfers" not in sys.modules, "who does not use it does not pay for it"
"""


def test_the_blocks_run(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    script = tmp_path / "page.py"
    script.write_text("\n".join((START, *blocks, "shared.dispose(); own.dispose()")))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
