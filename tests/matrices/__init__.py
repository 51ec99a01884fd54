"""Tables of cases whose every cell is run against real databases: what works alone may fail in a product of two.

Each module has one matrix. ``make test`` runs a sample of each, ``make matrices`` every cell (the marker ``matrix``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def sampled(cases: Sequence[Any], every: int) -> list[Any]:
    """The cases of a parametrisation, of which the ordinary run takes one in so many."""
    return [
        pytest.param(*case, marks=() if place % every == 0 else pytest.mark.matrix)
        for place, case in enumerate(each if isinstance(each, tuple) else (each,) for each in cases)
    ]
