"""Back-fills: many rows, a batch at a time."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ValidationError
from ..query import BatchProgress, OptionsLike, options_of
from ..statements.reads import Seek
from ..transactions import DatabaseTransaction
from .bulk import BulkRepository

M = TypeVar("M")


class BatchRepository(BulkRepository[M]):
    """Work on all rows of a table that others use meanwhile."""

    def in_batches(
        self,
        work: Callable[[builtins.list[M]], Any],
        options: OptionsLike = None,
        batch_size: int = 1000,
        *,
        after: Any = None,
        progress: Callable[[BatchProgress], Any] | None = None,
    ) -> int:
        """Give every matching row to ``work``, by batches in the order of the primary key, and count them.

        Each batch is a transaction of its own: its rows are read and locked in one statement, ``work`` changes them (as
        objects, or by this repository), and it is committed. A row that others insert behind the place reached is not
        seen; no other is left out, none is given twice, and no other writer's change is overwritten. What ``work``
        raises leaves unchanged, once its batch is rolled back; the batches before stay committed. ``progress`` is told
        after each batch, for one count more at the beginning; its ``position`` is where to resume: ``after``. Inside
        a transaction the batches are part of it. Options with sorts or pages raise `ValidationError`.
        """
        asked = options_of(options)
        if asked.sorts:
            raise ValidationError("in_batches() goes by the primary key; leave the sorts out.", field="sorts")
        rows = self.for_update()
        position = None if after is None else self._reader().key(after)
        seek = None if position is None else Seek("after", position, stored=False)
        total = self.count(asked.filters, asked.include_deleted) if progress is not None else 0
        done = 0
        while True:
            with DatabaseTransaction.sync_transaction(self._session):
                batch, next_position = rows._batch(asked, batch_size, seek)
                position = self._reader().key(self.traits.key_of(batch[-1])) if batch else position
                if batch:
                    work(batch)
            done += len(batch)
            if batch and progress is not None:
                progress(BatchProgress(done, total, position or ()))
            if next_position is None:
                return done
            seek = Seek("after", next_position)
