"""The operations, and what their cost may depend on."""

from __future__ import annotations

from dataclasses import dataclass

from ..conditions.ways import OPERATIONS as OF_CONDITIONS
from ..conditions.ways import Operation
from .ways import MANY


@dataclass(frozen=True)
class Grown:
    """An operation. ``counts_rows``: it reads as many rows as the tenant has, so its cost grows with that number."""

    operation: Operation
    counts_rows: bool = False

    @property
    def name(self) -> str:
        """The name on the command line."""
        return self.operation.name

    @property
    def title(self) -> str:
        """The name in tables and plots."""
        return self.operation.title


_USUAL = {each.name: each for each in OF_CONDITIONS}

OPERATIONS = (
    Grown(_USUAL["get"]),
    Grown(_USUAL["list"]),
    Grown(Operation("keyset", "keyset page, deep", 15, lambda way, n: way.after(n))),
    Grown(Operation("stream", "stream 1,000", 1, lambda way, n: way.streamed(n))),
    Grown(_USUAL["page"], counts_rows=True),
    Grown(Operation("offset", "OFFSET page, deep", 3, lambda way, n: way.offset(n)), counts_rows=True),
    Grown(_USUAL["create"]),
    Grown(_USUAL["update"]),
    Grown(Operation("delete", "delete, restore", 8, lambda way, n: way.delete(n))),
    Grown(_USUAL["five"]),
    Grown(Operation("upsert", f"upsert {MANY}", 2, lambda way, n: way.upserted(n))),
    Grown(Operation("many", f"create {MANY}", 2, lambda way, n: way.many(n))),
)
