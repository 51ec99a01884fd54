"""Remembers which relationships of an object contain only a part of the related rows.

A flush writes what was added to such a relationship or removed from it. But a cascade of a deletion needs all rows.
"""

from __future__ import annotations

from sqlalchemy.orm import InstanceState
from sqlalchemy.orm.base import instance_state

from ..sqlalchemy_internals import unload

_PARTIAL = "dotmac_database.partial"
"""The key in the ``info`` of an object's state of the names of its partial relationships."""


def note_partial(entity: object, name: str) -> None:
    """Note that a relationship was loaded with filters or a limit."""
    state: InstanceState[object] = instance_state(entity)
    state.info.setdefault(_PARTIAL, set()).add(name)


def unload_partial(state: InstanceState[object]) -> None:
    """Unload the partial relationships of an object, except changed ones, so that their next use loads all rows."""
    for name in state.info.pop(_PARTIAL, ()):
        if name not in state.committed_state:
            unload(state, state.dict, name)
