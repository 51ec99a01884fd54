"""The audit user of the current context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ACTOR: ContextVar[str | None] = ContextVar("dotmac_database_actor", default=None)


@contextmanager
def acting_as(user_id: str | None) -> Iterator[None]:
    """Record ``user_id`` as the audit user of writes in this block, in this task and thread, unless they name one."""
    token = _ACTOR.set(user_id)
    try:
        yield
    finally:
        _ACTOR.reset(token)


def current_actor() -> str | None:
    """The audit user of the current context; None outside of `acting_as`."""
    return _ACTOR.get()
