"""`StatementBudget`: how many statements a request or a block may send, so that an N+1 is noticed where it begins."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from contextvars import ContextVar
from threading import Lock
from types import TracebackType
from typing import Literal, Self, TypeAlias

from ..errors import MisuseError, StatementBudgetExceeded
from ..observers import Statement, attach_everywhere, detach_everywhere
from .context import REQUEST
from .origin import Line, user_line
from .text import sanitised

_log = logging.getLogger(__name__)

OnExceed: TypeAlias = Literal["warn", "raise"]

_SHOWN = 300
"""How much of a statement a message shows, in characters."""


class StatementBudgetWarning(UserWarning):
    """A request or a block has sent more statements than its `StatementBudget` allows."""


class StatementBudget:
    """At most ``limit`` statements may be sent in a request, or in a block: ``with StatementBudget(3) as budget:``.

    Statements of all engines count, also lazy loads, in the block's task or thread and in those that it starts. BEGIN,
    COMMIT, ROLLBACK, savepoints and the toolkit's settings don't count. At the first statement beyond the limit
    ``on_exceed="warn"`` issues one `StatementBudgetWarning`, which points at the user's line, and writes it to the log.
    ``on_exceed="raise"`` raises `StatementBudgetExceeded` instead of each statement beyond the limit: that is not sent,
    and the transaction stays usable. The message names the statement that was sent most often, and the line that sent
    it last. Blocks may be nested; each of them counts. A block costs a few microseconds for each statement,
    and nothing once it has ended.

    ``DatabasePlugin(statement_budget=…)`` takes one for all requests, each of which counts by itself. Raises
    `MisuseError` for a limit below 0, or another ``on_exceed``.
    """

    def __init__(self, limit: int, on_exceed: OnExceed = "warn") -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise MisuseError("The limit of a StatementBudget is a number of statements, 0 or more.", field="limit")
        if on_exceed not in ("warn", "raise"):
            raise MisuseError('on_exceed is "warn" or "raise".', field="on_exceed")
        self.limit = limit
        self.on_exceed: OnExceed = on_exceed
        self._count = 0
        self._shapes: Counter[str] = Counter()
        self._lines: dict[str, Line | None] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"StatementBudget({self.limit}, on_exceed={self.on_exceed!r})"

    @property
    def count(self) -> int:
        """The number of statements so far, with those that were refused."""
        return self._count

    @property
    def repeated(self) -> list[tuple[str, int]]:
        """The statements without their values, each with how often it was sent, the most frequent first."""
        with self._lock:
            return self._shapes.most_common()

    def renewed(self) -> StatementBudget:
        """A budget with the same limit that has counted nothing."""
        return StatementBudget(self.limit, self.on_exceed)

    def __enter__(self) -> Self:
        attach_everywhere(count)
        ACTIVE.set((*ACTIVE.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not by a token: a block may be left in another context than the one in which it was entered.
        ACTIVE.set(tuple([each for each in ACTIVE.get() if each is not self]))
        detach_everywhere(count)

    def spend(self, sql: str) -> None:
        """Count one statement, which is about to be sent. Raises or warns if it is one too many."""
        shape = sanitised(sql)
        with self._lock:
            self._count += 1
            times = self._shapes[shape] = self._shapes.get(shape, 0) + 1
            exceeded = self._count > self.limit and (self.on_exceed == "raise" or self._count == self.limit + 1)
            # A message shows the line of a statement that was repeated, or else of the one too many.
            line = user_line() if exceeded or times > 1 else None
            self._lines[shape] = line
            message = self._message(shape) if exceeded else ""
        if not exceeded:
            return
        if self.on_exceed == "raise":
            raise StatementBudgetExceeded(message, limit=self.limit)
        _log.warning("%s", message)
        path, number = ("<unknown>", 1) if line is None else (line.path, line.number)
        warnings.warn_explicit(message, StatementBudgetWarning, path, number)

    def _message(self, last: str) -> str:
        # Of several statements that were sent equally often, the last one is the one too many.
        shape = max(self._shapes, key=lambda each: (self._shapes[each], each == last))
        times = self._shapes[shape]
        text = shape if len(shape) <= _SHOWN else f"{shape[: _SHOWN - 1]}…"
        line, request = self._lines[shape], REQUEST.get()
        where = "" if line is None else f" It was sent last at {line}."
        route = "" if request is None or request.route is None else f"{request.route}: "
        often = "once" if times == 1 else f"{times} times"
        return (
            f"{route}{self._count} statements, and the budget allows {self.limit}. "
            f"The most frequent one was sent {often}: {text}.{where}"
        )


ACTIVE: ContextVar[tuple[StatementBudget, ...]] = ContextVar("dotmac_database_budgets", default=())
"""The budgets of the open blocks, the outermost first."""


def count(statement: Statement) -> None:
    """Count a statement in all open blocks."""
    for budget in ACTIVE.get():
        budget.spend(statement.sql)
