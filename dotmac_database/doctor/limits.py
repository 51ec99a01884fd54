"""The limits above which a number becomes a finding."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits above which a number becomes a finding. The defaults suit a web application."""

    transaction_seconds: float = 300
    """The age of a transaction that runs a statement."""
    idle_seconds: float = 60
    """The time for which a session is idle in a transaction."""
    sequence_used: float = 0.7
    """The part of a sequence's numbers, or of its column's, that is used."""
    bloat_share: float = 0.5
    """The part of a table that is empty space, by the planner's statistics."""
    bloat_bytes: int = 50 * MEBIBYTE
    """The bytes of empty space that a table must have besides."""
    dead_share: float = 0.2
    """The part of a table's rows that are dead."""
    dead_rows: int = 10_000
    """The dead rows that a table must have besides."""
    statistics_days: float = 7
    """The age that the statistics must have before an index without a scan counts as unused."""
    unused_bytes: int = MEBIBYTE
    """The size that an unused index must have."""
    frozen_age: int = 1_000_000_000
    """The age of a table's oldest transaction ID. PostgreSQL stops writing at some 2,100,000,000."""
    connections_share: float = 0.9
    """The part of the server's connections that the pools of all processes may open."""
    large_rows: int = 10_000
    """The rows from which on a table counts as large. A lock on a smaller table is short."""
    large_bytes: int = 10 * MEBIBYTE
    """The bytes from which on a table counts as large."""
