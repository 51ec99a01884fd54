"""Processing many rows in batches, such as back-fills."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm import Session

from ..errors import MisuseError
from ..execution.work import note_savepoint_begun
from ..models.traits import traits_of
from ..query import BatchProgress, OptionsLike, options_of
from ..statements.reads import Seek
from ..transactions import DatabaseTransaction
from .core import SyncDb
from .reading import ReadMethods

M = TypeVar("M")


class BatchMethods(ReadMethods[M, SyncDb]):
    """Processes all rows of a table while other transactions use it."""

    def in_batches(
        self,
        work: Callable[[builtins.list[M]], object],
        options: OptionsLike = None,
        batch_size: int = 1000,
        *,
        after: Any = None,
        progress: Callable[[BatchProgress], object] | None = None,
    ) -> int:
        """Call ``work`` with batches of the matching rows, in the order of the primary key. Returns the number of rows.

        Each batch is a transaction of its own, or a savepoint if a transaction is already open. One statement reads and
        locks the rows. ``work`` may then change the objects, whose versions are incremented, or write by this
        repository. Every row is processed exactly once, except rows that others insert before the current position, and
        no other writer's change is overwritten. If ``work`` raises an exception, its batch is rolled back, and earlier
        batches stay committed.

        ``progress`` is called after each batch; its total costs one more statement at the beginning. To resume after a
        batch, pass the ``position`` of its progress as ``after``. Options with sorts or pages raise `ValidationError`.
        """
        query = options_of(options)
        if query.sorts:
            raise MisuseError("in_batches() sorts by the primary key; leave the sorts out.", field="sorts")
        rows = self.for_update()
        position = None if after is None else self._reader().key(after)
        seek = None if position is None else Seek("after", position, stored=False)
        total = self.count(query.filters, query.include_deleted) if progress is not None else 0
        done = 0
        while True:
            with DatabaseTransaction.sync_transaction(self._session):
                note_savepoint_begun(self._session)
                batch, seek = rows._batch(query, batch_size, seek)
                position = self._reader().key(self.traits.key_of(batch[-1])) if batch else position
                if batch:
                    with _incrementing_versions(self._session):
                        work(batch)
                        self._session.flush()
            done += len(batch)
            if batch and progress is not None:
                progress(BatchProgress(done, total, position or ()))
            if seek is None:
                return done


@contextmanager
def _incrementing_versions(session: Session) -> Iterator[None]:
    """Increment the version of each object that a flush in this block changes, as the toolkit's own writes do.

    A version that SQLAlchemy increments (``version_id_col``), or that was set explicitly, is not changed.
    """

    def count(flushed: Session, *_: object) -> None:
        for entity in flushed.dirty:
            traits = traits_of(type(entity))
            version, state = traits.version, sa_inspect(entity)
            if version is None or state.mapper.version_id_col is not None or state.attrs[version].history.added:
                continue
            if flushed.is_modified(entity, include_collections=False):
                setattr(entity, version, traits.next_count(entity))

    count.dotmac_internal = True  # type: ignore[attr-defined]  # a write that needs no flush does not need this listener
    event.listen(session, "before_flush", count)
    try:
        yield
    finally:
        event.remove(session, "before_flush", count)
