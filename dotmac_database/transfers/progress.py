"""What a transfer reports while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """What a transfer has done so far.

    ``action`` is ``"export"``, ``"check"``, ``"import"``, ``"verify"`` or ``"delete"``. ``table`` is the table that it
    works on. ``rows`` are the rows of all tables with which this action is done, and ``total`` is how many there are;
    None: nobody has counted them.
    """

    action: str
    table: str
    rows: int
    total: int | None


OnProgress = Callable[[TransferProgress], object]


def in_words(rows: int) -> str:
    """``1 row`` or ``2 rows``."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'}"
