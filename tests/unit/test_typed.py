"""How much of the code is typed: `Any` is rare, and each comment that silences a type checker says why."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("dotmac_database", "dotmac_database_fastapi", "dotmac_database_pytest")
MOST = 30
"""The most uses of `Any` in 1,000 lines of a package."""


def tokens(path: Path) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(path.read_text()).readline))


@pytest.mark.parametrize("package", PACKAGES)
def test_any_is_rare(package: str) -> None:
    uses = {}
    lines = 0
    for path in sorted((ROOT / package).rglob("*.py")):
        lines += path.read_text().count("\n")
        uses[str(path.relative_to(ROOT))] = sum(
            token.type == tokenize.NAME and token.string == "Any" for token in tokens(path)
        )
    most = sorted(uses.items(), key=lambda pair: -pair[1])[:5]
    assert sum(uses.values()) * 1000 / lines < MOST, most


@pytest.mark.parametrize("package", [*PACKAGES, "example_app"])
def test_what_is_silenced_says_why(package: str) -> None:
    """A ``type: ignore`` names its error code, and has its reason in a second comment behind it."""
    reasoned = re.compile(r"# type: ignore\[[\w, -]+\]  # \S.*")
    silent = [
        f"{path.relative_to(ROOT)}:{token.start[0]}: {token.string}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for token in tokens(path)
        if token.type == tokenize.COMMENT and "type: ignore" in token.string and not reasoned.match(token.string)
    ]
    assert silent == []
