"""Makes the objects of rows that the driver has returned, in the same state as the ORM makes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.base import instance_dict, instance_state

from ..models.traits import Traits
from ..sqlalchemy_internals import accept, accept_all, identity_adder, identity_class, unload
from .state import refuse_ended

M = TypeVar("M")


def objects_of(
    session: Session, traits: Traits[M], keys: Sequence[str], rows: Iterable[Sequence[object]], *, refresh: bool = True
) -> list[M]:
    """The objects of these rows, whose first values are those of the attributes ``keys``.

    An object that the session already holds is refreshed. Without ``refresh`` it only gets the values that it has not
    loaded, as when the ORM reads a row again in the same transaction.
    """
    refuse_ended(session)  # another task may have ended the session during the statement
    mapper, held = traits.mapper, session.identity_map
    make, session_id, kind = mapper.class_manager.new_instance, session.hash_key, identity_class(mapper)
    add = identity_adder(session)
    places = [keys.index(key) for key in traits.primary_key]
    objects: list[M] = []
    for row in rows:
        identity = (kind, tuple([row[place] for place in places]), None)
        entity = held.get(identity)
        if entity is None:
            entity = make()
            state = instance_state(entity)
            state.key = identity
            state.session_id = session_id
            add(state, identity)
            instance_dict(entity).update(zip(keys, row))  # noqa: B905 - further values may follow the object's
        else:
            _again(session, traits, entity, dict(zip(keys, row)), refresh=refresh)  # noqa: B905 - as above
        objects.append(entity)
    return objects


def _again(session: Session, traits: Traits[M], entity: M, read: dict[str, object], *, refresh: bool) -> None:
    """Give the values of a row to an object that the session holds."""
    state: InstanceState[Any] = instance_state(entity)
    values = instance_dict(entity)
    if refresh:
        for name in traits.relationships:
            unload(state, values, name)
        values.update(read)
        accept_all(state, values, session)
        return
    missing = [key for key in read if key not in values and key not in state.committed_state]
    if missing:
        values.update((key, read[key]) for key in missing)
        accept(state, values, missing)
