"""Makes the ``user_id`` of a method the actor of what it writes, also for the history."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from inspect import signature
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..actors import acting_as
from .core import RepositoryCore

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=RepositoryCore[Any, Any])


def acts_for_user(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that runs in `acting_as` of its argument ``user_id``; with None, the current actor stays."""
    place = [*signature(method).parameters].index("user_id") - 1

    def acting(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        user: Any = args[place] if place < len(args) else kwargs.get("user_id")
        if user is None:
            return method(self, *args, **kwargs)
        with acting_as(user):
            return method(self, *args, **kwargs)

    update_wrapper(acting, method)
    return acting
