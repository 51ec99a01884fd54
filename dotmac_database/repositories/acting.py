"""Makes the ``user_id`` of a method the actor of what it writes, also for the history."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from inspect import signature
from typing import TypeVar

from ..actors import acting_as

F = TypeVar("F", bound=Callable[..., object])


def acts_for_user(method: F) -> F:
    """A method that runs in `acting_as` of its argument ``user_id``; with None, the current actor stays."""
    place = [*signature(method).parameters].index("user_id")

    def acting(*args: object, **kwargs: object) -> object:
        user = args[place] if place < len(args) else kwargs.get("user_id")
        if user is None:
            return method(*args, **kwargs)
        with acting_as(user):  # type: ignore[arg-type]  # the method says that it is a str
            return method(*args, **kwargs)

    return update_wrapper(acting, method)  # type: ignore[return-value]  # it takes the same arguments
