"""The page `docs/testing.md`: its project passes its tests as it is written."""

from __future__ import annotations

import re
from pathlib import Path

from .test_plugin import in_a_process

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


def write_project(folder: Path) -> None:
    """Write the blocks of the page into the files that they name; several blocks can be one file."""
    for block in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        path, text = folder / block[0], block[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)


def test_every_python_block_names_its_file() -> None:
    assert PAGE.count("```python\n") == PAGE.count("```python\n# ") == 10


def test_the_project_passes(tmp_path: Path) -> None:
    write_project(tmp_path)
    ini = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(ini) == 1
    (tmp_path / "pytest.ini").write_text(f"{ini[0]}pythonpath = .\n")
    # Starlette's client warns about the httpx of the other tests.
    done = in_a_process(tmp_path, "--ignore=policies", "-W", "ignore:Using `httpx`")
    assert "8 passed" in done.stdout, done.stdout + done.stderr
    done = in_a_process(tmp_path / "policies", "-c", f"{tmp_path}/pytest.ini", "-o", "dotmac_database=postgresql")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
