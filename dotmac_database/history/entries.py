"""The entries of a history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Operation: TypeAlias = Literal["create", "update", "soft_delete", "restore", "delete"]


@dataclass(frozen=True)
class HistoryEntry:
    """One change of a row.

    ``at`` is the time of the statement (UTC), and ``actor`` the ``user_id`` of the method that has written, or else the
    audit user of `acting_as` then; None: there was none, or another program has written. ``before`` and ``after`` are
    values by attribute, as an entity has them. An update, a soft deletion and a restoration have the changed columns
    only. ``before`` is None for a ``create``, and ``after`` for a ``delete``; the other one is the whole row. A column
    that the class no longer has keeps its JSON value.
    """

    at: datetime
    actor: str | None
    operation: Operation
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
