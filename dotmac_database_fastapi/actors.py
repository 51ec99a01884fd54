"""What is stored of an actor: the text in audit columns and in the headers of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

ActorKey: TypeAlias = Callable[..., object]
"""A function of an actor that returns what is stored of it; None: nothing is stored."""


def key_of(actor: object, actor_key: ActorKey | None = None) -> str | None:
    """What is stored of an actor. None has no key, and a text is its own key.

    For any other object it is what ``actor_key`` returns, as a text. Without that function, it is the primary key of a
    row of a mapped class, and else the object's ``id``. An object that has none is stored as ``str(actor)``.
    """
    if actor is None or isinstance(actor, str):
        return actor
    key = actor_key(actor) if actor_key is not None else _usual_key(actor)
    return None if key is None else str(key)


def _usual_key(actor: object) -> object:
    state = inspect(actor, raiseerr=False)
    # The identity is known without a statement, even if the row's attributes are expired.
    if isinstance(state, InstanceState) and state.identity is not None:
        return ", ".join(map(str, state.identity))
    own = getattr(actor, "id", None)
    return actor if own is None else own
