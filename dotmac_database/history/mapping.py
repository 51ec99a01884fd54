"""Gives each mapped class with `HistoryMixin` its history table."""

from __future__ import annotations

from sqlalchemy import event
from sqlalchemy.orm import Mapper

from .actor import announce_actors
from .tables import add_history


def _on_mapped(mapper: Mapper[object], _class: type[object]) -> None:
    if getattr(mapper.class_, "__dotmac_history__", False):
        add_history(mapper)
        announce_actors()


event.listen(Mapper, "after_mapper_constructed", _on_mapped)
