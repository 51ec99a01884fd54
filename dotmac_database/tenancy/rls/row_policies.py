"""The DDL of one restrictive policy, which rules a command beside the policy of the tenant."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple


class RowPolicy(NamedTuple):
    """One policy in the database: the command, and its conditions."""

    name: str
    command: str
    using: str | None
    check: str | None

    @property
    def clauses(self) -> str:
        """The clauses USING and WITH CHECK."""
        using = "" if self.using is None else f" USING ({self.using})"
        return using + ("" if self.check is None else f" WITH CHECK ({self.check})")

    @property
    def mark(self) -> str:
        """A text that differs if the conditions do. It is stored as the policy's comment."""
        return "dotmac " + sha256(self.clauses.encode()).hexdigest()[:32]

    def statement(self, table: str) -> str:
        """The CREATE POLICY for the table with this quoted name."""
        return f"CREATE POLICY {self.name} ON {table} AS RESTRICTIVE FOR {self.command}{self.clauses}"

    def create(self, table: str) -> list[str]:
        """The DDL that creates it on the table with this quoted name."""
        return [
            f"DROP POLICY IF EXISTS {self.name} ON {table}",
            self.statement(table),
            f"COMMENT ON POLICY {self.name} ON {table} IS '{self.mark}'",
        ]
