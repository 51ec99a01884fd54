"""What differs between databases is decided in `dialects`: no other file compares a dialect's name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NAMES = {"postgresql", "sqlite"}


def comparisons(source: str) -> Iterator[int]:
    """The lines that compare something with the name of a dialect, also with one in a collection."""
    for node in ast.walk(ast.parse(source)):
        operands: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        for operand in operands:
            if any(isinstance(each, ast.Constant) and each.value in NAMES for each in ast.walk(operand)):
                yield operand.lineno


@pytest.mark.parametrize("package", ["dotmac_database", "dotmac_database_fastapi"])
def test_only_the_dialects_compare_the_name_of_a_dialect(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if "dialects" not in path.relative_to(ROOT).parts
        for line in comparisons(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'engine.dialect.name == "sqlite"',
        '"postgresql" != name',
        'name in ("sqlite", "mysql")',
        'match name:\n    case "sqlite":\n        ...',
    ],
)
def test_each_way_to_compare_is_found(source: str) -> None:
    assert list(comparisons(source))
