"""Matrices of test cases. Every cell runs against real databases, because features that work alone can fail together.

Each module has one matrix. Of all tests with three dimensions and more, ``make test`` runs the cells that `pairs`
chooses, and of a few slow ones with fewer dimensions those that `sampled` chooses. ``make matrices`` runs the other
cells, which have the marker ``matrix``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def sampled(cases: Sequence[Any], every: int) -> list[Any]:
    """Parameters for the cases: an ordinary run takes one of every ``every`` cases, and the others are marked.

    It is for one dimension of slow cases, and promises no pairs. Give several dimensions to pytest's ``parametrize``
    instead, so that `pairs` chooses.
    """
    return [
        pytest.param(*case, marks=() if place % every == 0 else pytest.mark.matrix)
        for place, case in enumerate(each if isinstance(each, tuple) else (each,) for each in cases)
    ]
