"""Says to row-level security that an UPDATE deletes or restores rows, so that it is ruled by the right to delete."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..policies import Right, rules_of
from ..row_policies import exercising
from ..sqlalchemy_internals import has_nothing_to_flush
from .core import RepositoryCore

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=RepositoryCore[Any, Any])


def exercises_deletion(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that marks rows as deleted, or no more. The session's other changes are flushed before, if it has rules.

    A method that is called with ``soft_delete=False`` sends a DELETE instead, and is not affected.
    """

    def exercised(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        session = self._session
        if (
            rules_of(session) is None
            or not self.traits.soft_deletes
            or False in (*args[1:2], kwargs.get("soft_delete"))
        ):
            return method(self, *args, **kwargs)
        if not has_nothing_to_flush(session):
            session.flush()
        with exercising(session, Right.DELETE):
            return method(self, *args, **kwargs)

    update_wrapper(exercised, method)
    return exercised
