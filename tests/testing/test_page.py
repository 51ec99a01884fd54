"""The page `docs/testing.md`: its project passes its tests as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installed import PAGE, write_project

from .test_plugin import in_a_process


def test_every_python_block_names_its_file() -> None:
    assert PAGE.count("```python\n") == PAGE.count("```python\n# ") == 13


POSTGRESQL = ("-o", "dotmac_database=postgresql")


REVERSED = "def pytest_collection_modifyitems(items):\n    items.reverse()\n"


@pytest.mark.parametrize("order", ["", REVERSED], ids=["in order", "reversed"])
def test_the_project_passes(tmp_path: Path, order: str) -> None:
    """As one run, in any order."""
    write_project(tmp_path)
    (tmp_path / "conftest.py").write_text(order)
    done = in_a_process(tmp_path, *POSTGRESQL)
    assert "12 passed" in done.stdout, done.stdout + done.stderr


def test_the_policies_alone_are_refused_on_sqlite(tmp_path: Path) -> None:
    write_project(tmp_path)
    done = in_a_process(tmp_path)
    assert "10 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("\ndotmac_rls needs dotmac_database = postgresql") == 2
