"""Each term of ``docs/glossary.md`` is there once, and the file that it names defines it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ROWS = re.findall(
    r"^\| ([a-z][^|]*) \| ([^|]+) \| `([\w/]+\.py)`: `(\w+)` \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE
)


def test_every_row_is_read() -> None:
    lines = (ROOT / "docs/glossary.md").read_text().splitlines()
    assert len(ROWS) == sum(line.startswith("| ") for line in lines) - 2 * sum(line.startswith("## ") for line in lines)
    terms = [term.strip() for terms, *_ in ROWS for term in terms.split(",")]
    assert len(terms) == len(set(terms)) > 50


@pytest.mark.parametrize(("path", "name"), [row[2:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_file_defines_the_term(path: str, name: str) -> None:
    assert re.search(rf"^(?:async def|def|class) {name}\b|^{name}\b.*=", (ROOT / path).read_text(), re.MULTILINE)
