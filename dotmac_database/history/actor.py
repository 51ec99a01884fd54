"""The actor of a write travels to the triggers as a setting of the transaction."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from sqlalchemy import MetaData, Table

from ..actors import current_actor
from ..dialects.history_triggers import ACTOR
from ..execution.settings import FOR_WRITES, provide_for_writes
from ..execution.state import SettingsProvider
from .tables import history_of

ACTOR_SETTING = SettingsProvider(
    current_actor, lambda actor: {ACTOR: "" if actor is None else str(actor)}, for_triggers=True
)

_CONCERNED: WeakKeyDictionary[MetaData, tuple[int, frozenset[Table]]] = WeakKeyDictionary()


def is_recorded(table: Table) -> bool:
    """Whether a write to the table can change a row with a history: its own, or one that a foreign key changes too."""
    metadata = table.metadata
    cached = _CONCERNED.get(metadata)
    if cached is None or cached[0] != len(metadata.tables):
        cached = _CONCERNED[metadata] = len(metadata.tables), _concerned(metadata)
    return table in cached[1]


def _concerned(metadata: MetaData) -> frozenset[Table]:
    """The tables with a history, and those whose changes cascade to one."""
    tables = {table for table in metadata.tables.values() if history_of(table) is not None}
    pending = list(tables)
    while pending:
        table = pending.pop()
        for key in table.foreign_key_constraints:
            if key.ondelete is None and key.onupdate is None:
                continue
            referred = metadata.tables.get(key.elements[0].target_fullname.rpartition(".")[0])
            if referred is not None and referred not in tables:
                tables.add(referred)
                pending.append(referred)
    return frozenset(tables)


def announce_actors() -> None:
    """From now on, writes that a history records announce the actor. It is called when a class has got its history.

    A metadata can have as many tables as before and yet other ones, if tables were removed from it.
    """
    _CONCERNED.clear()
    if not any(each.provider is ACTOR_SETTING for each in FOR_WRITES):
        provide_for_writes(ACTOR_SETTING, is_recorded)
