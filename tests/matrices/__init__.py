"""Matrices of test cases. Every cell runs against real databases, because features that work alone can fail together.

Each module has one matrix. ``make test`` runs a sample of each matrix; ``make matrices`` runs every cell (the marker
``matrix``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def sampled(cases: Sequence[Any], every: int) -> list[Any]:
    """Parameters for the cases: an ordinary run takes one of every ``every`` cases, and the others are marked."""
    return [
        pytest.param(*case, marks=() if place % every == 0 else pytest.mark.matrix)
        for place, case in enumerate(each if isinstance(each, tuple) else (each,) for each in cases)
    ]
