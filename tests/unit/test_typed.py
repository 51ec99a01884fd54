"""`Any` is rare, and each place at which a type checker is silenced says why."""

from __future__ import annotations

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MOST = 30
"""The most uses of `Any` in 1,000 lines."""


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ["dotmac_database_fastapi"])
def test_any_is_rare(package: str) -> None:
    uses = lines = 0
    for path in files_of(package):
        with path.open(encoding="utf-8") as file:
            uses += sum(token[:2] == (tokenize.NAME, "Any") for token in tokenize.generate_tokens(file.readline))
        lines += len(path.read_text(encoding="utf-8").splitlines())
    assert uses / lines * 1000 < MOST


@pytest.mark.parametrize("package", ["dotmac_database_fastapi"])
def test_each_ignored_error_has_its_code_and_a_reason(package: str) -> None:
    for path in files_of(package):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "type: ignore" in line:
                assert re.search(r"# type: ignore\[[a-z, -]+\]  # \S", line), f"{path.name}: {line.strip()}"
