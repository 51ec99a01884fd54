"""Work that belongs to a request and is done after its endpoint, such as the body of an export."""

from __future__ import annotations

from ..observers import attach_everywhere, detach_everywhere
from .budget import ACTIVE, count
from .context import REQUEST


class Continued:
    """A block that belongs to the request, and to the budgets of statements, that are current when it is made.

    It may be entered later, also when they have ended, and more than once. What it sends counts in the same budgets.
    """

    def __init__(self) -> None:
        self._request = REQUEST.get()
        self._budgets = ACTIVE.get()

    def __bool__(self) -> bool:
        """Whether there is a request or a budget to which it belongs."""
        return self._request is not None or bool(self._budgets)

    def __enter__(self) -> None:
        self._before = REQUEST.get(), ACTIVE.get()
        REQUEST.set(self._request)
        ACTIVE.set(self._budgets)
        if self._budgets:
            attach_everywhere(count)

    def __exit__(self, _kind: object, _error: object, _traceback: object) -> None:
        # Not by tokens, as in `StatementBudget`.
        request, budgets = self._before
        REQUEST.set(request)
        ACTIVE.set(budgets)
        if self._budgets:
            detach_everywhere(count)
