"""`assert_statements`: how many statements a block of a test sends, exactly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MisuseError
from ..telemetry.budget import StatementBudget
from ..telemetry.origin import Line, user_line
from ..telemetry.text import sanitised


class SentStatements(StatementBudget):
    """The statements of a block, in order: ``sent`` has each without its values, and the line that sent it."""

    def __init__(self) -> None:
        super().__init__(sys.maxsize, "raise")
        self.sent: list[tuple[str, Line | None]] = []

    def spend(self, sql: str) -> None:
        """Record one statement, which is about to be sent."""
        super().spend(sql)
        self.sent.append((sanitised(sql), user_line()))

    def __str__(self) -> str:
        shown = [f"  {number}. {sql}{_sent_at(line)}" for number, (sql, line) in enumerate(self.sent, 1)]
        return "\n".join(shown) or "  (none)"


@contextmanager
def assert_statements(count: int) -> Iterator[SentStatements]:
    """Assert that a block sends exactly ``count`` statements. It is a plain ``with`` block, also in async code.

    What counts is what a `StatementBudget` counts: statements of all engines, lazy loads too, in the block's task or
    thread and in those that it starts; no BEGIN, COMMIT, ROLLBACK or savepoint. Raises `AssertionError` after the block
    if there were more or fewer. Its message has each statement, without its values, and the line of your code that sent
    it. If the block raises an exception, that is what you see. Raises `MisuseError` for a ``count`` below 0.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise MisuseError("assert_statements takes a number of statements, 0 or more.", field="count")
    with SentStatements() as statements:
        yield statements
    number = len(statements.sent)
    if number != count:
        raise AssertionError(f"{number} statements were sent, and {count} were expected:\n{statements}")


def _sent_at(line: Line | None) -> str:
    return "" if line is None else f"\n     at {line}"
