"""Makes the objects of rows that the driver has returned, in the same state as the ORM makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.base import instance_dict, instance_state

from ..models.traits import Traits
from ..sqlalchemy_internals import accept, accept_all, identity_adder, identity_class, unload
from .state import refuse_ended

M = TypeVar("M")


def objects_of(
    session: Session, traits: Traits[M], keys: Sequence[str], rows: Sequence[Sequence[object]], *, refresh: bool = True
) -> list[M]:
    """The objects of these rows, whose first values are those of the attributes ``keys``.

    An object that the session already holds is refreshed. Without ``refresh`` it only gets the values that it has not
    loaded, as when the ORM reads a row again in the same transaction. The listeners to the loading of an object are
    called; instead of a context they get None.
    """
    refuse_ended(session)  # another task may have ended the session during the statement
    mapper, held = traits.mapper, session.identity_map
    make, session_id, kind = mapper.class_manager.new_instance, session.hash_key, identity_class(mapper)
    add, loaded = identity_adder(session), mapper.class_manager.dispatch.load
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
            if loaded:
                loaded(state, None)
        else:
            _again(session, traits, entity, dict(zip(keys, row)), refresh=refresh)  # noqa: B905 - as above
        objects.append(entity)
    return objects


def inserted(session: Session, traits: Traits[M], keys: Sequence[str], row: Sequence[object], entity: M | None) -> M:
    """The object of a row that was inserted: ``entity``, which has no session yet, or a new one.

    Without ``entity`` the session may hold the object of an earlier row with the same key, which is then refreshed.
    """
    refuse_ended(session)
    mapper = traits.mapper
    identity = (identity_class(mapper), tuple([row[keys.index(key)] for key in traits.primary_key]), None)
    if entity is None:
        held = session.identity_map.get(identity)
        if held is not None:
            _again(session, traits, held, dict(zip(keys, row, strict=True)), refresh=True)
            return held
        entity = mapper.class_manager.new_instance()
    state: InstanceState[Any] = instance_state(entity)
    values = instance_dict(entity)
    state.key = identity
    state.session_id = session.hash_key
    identity_adder(session)(state, identity)
    values.update(zip(keys, row, strict=True))
    accept_all(state, values, session)
    return entity


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
