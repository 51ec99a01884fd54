"""The result of the verification."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a database that would let a statement out of its tenant.

    ``object`` names it, such as a role or a table. ``risk`` says what can happen, and ``remedy`` how to prevent it, in
    SQL if SQL is enough.
    """

    object: str
    risk: str
    remedy: str
