"""A hole that the verification found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A hole: the object that has it, what it risks, and the remedy, which is SQL where SQL is enough."""

    object: str
    risk: str
    remedy: str
