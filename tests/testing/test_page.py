"""The page `docs/testing.md`: its project passes its tests as it is written."""

from __future__ import annotations

from pathlib import Path

from tests.installed import PAGE, write_project

from .test_plugin import in_a_process


def test_every_python_block_names_its_file() -> None:
    assert PAGE.count("```python\n") == PAGE.count("```python\n# ") == 13


def test_the_project_passes(tmp_path: Path) -> None:
    write_project(tmp_path)
    # Starlette's client warns about the httpx of the other tests.
    done = in_a_process(tmp_path, "--ignore=policies", "-W", "ignore:Using `httpx`")
    assert "10 passed" in done.stdout, done.stdout + done.stderr
    done = in_a_process(tmp_path / "policies", "-c", f"{tmp_path}/pytest.ini", "-o", "dotmac_database=postgresql")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
