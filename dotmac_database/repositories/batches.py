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
from ..execution.work import nothing_sent_since_savepoint
from ..models.traits import Traits, traits_of
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
        work: Callable[[builtins.list[M]], Any],
        options: OptionsLike = None,
        batch_size: int = 1000,
        *,
        after: Any = None,
        progress: Callable[[BatchProgress], Any] | None = None,
    ) -> int:
        """Call ``work`` with batches of the matching rows, in the order of the primary key. Returns the number of rows.

        Each batch is a transaction: its rows are read and locked in one statement, ``work`` changes them (as objects,
        whose versions are incremented, or by this repository), and the transaction is committed. Every row is processed
        exactly once, except rows that others insert before the current position, and no other writer's change is
        overwritten. If ``work`` raises, its batch is rolled back and the exception is raised; earlier batches stay
        committed. ``progress`` is called after each batch; the total for it costs one more statement at the beginning.
        Its ``position``, passed as ``after``, resumes from there. Inside a transaction the batches are part of it.
        Options with sorts or pages raise `ValidationError`.
        """
        query = options_of(options)
        if query.sorts:
            raise MisuseError("in_batches() goes by the primary key; leave the sorts out.", field="sorts")
        rows = self.for_update()
        position = None if after is None else self._reader().key(after)
        seek = None if position is None else Seek("after", position, stored=False)
        total = self.count(query.filters, query.include_deleted) if progress is not None else 0
        done = 0
        while True:
            with DatabaseTransaction.sync_transaction(self._session):
                nothing_sent_since_savepoint(self._session)
                batch, seek = rows._batch(query, batch_size, seek)
                position = self._reader().key(self.traits.key_of(batch[-1])) if batch else position
                if batch:
                    with _counted_versions(self._session):
                        work(batch)
                        self._session.flush()
            done += len(batch)
            if batch and progress is not None:
                progress(BatchProgress(done, total, position or ()))
            if seek is None:
                return done


@contextmanager
def _counted_versions(session: Session) -> Iterator[None]:
    """Increment the version of each object that a flush in this block changes, as the toolkit's own writes do.

    A version that SQLAlchemy increments (``version_id_col``), or that was set explicitly, is not changed.
    """

    def count(flushed: Session, *_: Any) -> None:
        for entity in flushed.dirty:
            traits: Traits[Any] = traits_of(type(entity))
            version, state = traits.version, sa_inspect(entity)
            if version is None or state.mapper.version_id_col is not None or state.attrs[version].history.added:
                continue
            if flushed.is_modified(entity, include_collections=False):
                setattr(entity, version, traits.next_count(entity))

    count.dotmac_internal = True  # type: ignore[attr-defined]  # a write by statement may skip it, since it sends nothing
    event.listen(session, "before_flush", count)
    try:
        yield
    finally:
        event.remove(session, "before_flush", count)
