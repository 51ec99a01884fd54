"""The code is read by engineers whose second language is English: some words that were misread stay out of it."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("dotmac_database", "dotmac_database_fastapi", "dotmac_database_pytest", "example_app", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

NAMES = re.compile(r"_?(told|heard|kept|sought|insist|stands_alone|asked|found|given|made|alone|how)")
PROSE = re.compile(r"\b(told|hears?|heard|of its own accord|be it|were it)\b(?! apart)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_misread_words(path: Path) -> None:
    found = []
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        pattern = {tokenize.NAME: NAMES, tokenize.COMMENT: PROSE, tokenize.STRING: PROSE}.get(token.type)
        if pattern is None or (token.type == tokenize.STRING and not token.string.startswith('"""')):
            continue
        match = pattern.fullmatch(token.string) if pattern is NAMES else pattern.search(token.string)
        if match is not None:
            found.append(f"{path.relative_to(ROOT)}:{token.start[0]}: {match[0]}")
    assert found == []
