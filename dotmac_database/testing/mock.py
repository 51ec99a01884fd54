"""Repositories in memory: real repositories, on a private SQLite database.

Filters, order, pages and errors behave as in a database, because it is one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import ForeignKey, MetaData, Table, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.util import greenlet_spawn

from ..engines import make_engine
from ..errors import ValidationError
from ..field_names import FieldValues
from ..history.tables import with_histories
from ..models.traits import traits_of
from ..paging.cursors import CursorKey
from ..repositories import AsyncRepository, BaseRepository
from ..sqlalchemy_internals import bind_async_session
from .memory import attach_schemas, create_tables

M = TypeVar("M")
T = TypeVar("T")
P = ParamSpec("P")


def _private_session(model: type[M]) -> Session:
    """A session on a private database with the tables that ``model`` uses. Foreign keys are not enforced.

    Raises `ValidationError` if SQLite can't create the model's own tables.
    """
    mapper = traits_of(model).mapper
    tables = _reachable(mapper)
    engine = make_engine("sqlite://")
    attach_schemas(engine, tables)

    @event.listens_for(engine, "connect")
    def ignore_foreign_keys(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.close()

    session = Session(engine, expire_on_commit=False)
    # Mocks are never closed: an open connection would cause a warning when it is garbage-collected.
    weakref.finalize(session, engine.dispose)
    with engine.begin() as connection:
        # The tests of a model need no warnings about the tables of other models.
        reasons = create_tables(connection, tables)
    for table in mapper.tables:
        if isinstance(table, Table) and table in reasons:
            raise ValidationError(f"{model.__name__} can't be mocked: SQLite refuses its table: {reasons[table]}")
    return session


def _reachable(start: Mapper[M]) -> list[Table]:
    tables: dict[Table, None] = {}
    visited: set[Mapper[Any]] = set()
    pending = [start]
    while pending:
        mapper = pending.pop()
        if mapper in visited:
            continue
        visited.add(mapper)
        tables.update((table, None) for table in mapper.tables if isinstance(table, Table))
        for relationship in mapper.relationships:
            pending.append(relationship.mapper)
            if isinstance(relationship.secondary, Table):
                tables[relationship.secondary] = None
        pending.extend(mapper.self_and_descendants)
    for table in list(tables):
        tables.update((key.column.table, None) for key in table.foreign_keys if _resolves(key, table.metadata))
    return with_histories(tables)


def _resolves(key: ForeignKey, metadata: MetaData) -> bool:
    return key.target_fullname.rpartition(".")[0] in metadata.tables


class MockRepository(BaseRepository[M]):
    """A `BaseRepository` in memory. A tenant-scoped class needs ``tenant_id``, as usual."""

    def __init__(
        self,
        model_class: type[M],
        tenant_id: Any = None,
        auto_commit: bool = True,
        *,
        cursor_key: CursorKey = None,
    ) -> None:
        super().__init__(_private_session(model_class), model_class, tenant_id, auto_commit, cursor_key=cursor_key)

    def for_update(self, *, nowait: bool = False, skip_locked: bool = False) -> Self:
        """A copy whose reads are as up to date as locked ones. Nobody else uses the database, so nothing is locked."""
        locking = super().for_update(nowait=nowait, skip_locked=skip_locked)
        return locking._with(_lock=None, _options={**self._options, "populate_existing": True})

    def add_mock_data(self, rows: Iterable[FieldValues[Any]]) -> list[M]:
        """Insert rows as `create` does, and return them in the given order."""
        return [self.create(row) for row in rows]


class InlineAsyncSession(AsyncSession):
    """An `AsyncSession` over a sync session in memory. It never waits, so it needs no event loop and no driver."""

    def __init__(self, session: Session) -> None:
        bind_async_session(self, session)

    async def run_sync(self, fn: Callable[Concatenate[Session, P], T], *arg: P.args, **kw: P.kwargs) -> T:
        """Call ``fn`` with the sync session, in a greenlet, in which overridden async methods can still be awaited."""
        return await greenlet_spawn(lambda: fn(self.sync_session, *arg, **kw))


class AsyncMockRepository(AsyncRepository[M]):
    """As `MockRepository`, for `AsyncRepository`."""

    def __init__(
        self,
        model_class: type[M],
        tenant_id: Any = None,
        auto_commit: bool = True,
        *,
        cursor_key: CursorKey = None,
    ) -> None:
        db = InlineAsyncSession(_private_session(model_class))
        super().__init__(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)

    def for_update(self, *, nowait: bool = False, skip_locked: bool = False) -> Self:
        """As `MockRepository.for_update`."""
        locking = super().for_update(nowait=nowait, skip_locked=skip_locked)
        return locking._with(_lock=None, _options={**self._options, "populate_existing": True})

    def add_mock_data(self, rows: Iterable[FieldValues[Any]]) -> list[M]:
        """As `MockRepository.add_mock_data`. It is no coroutine function."""
        return [BaseRepository.create(self._twin, row) for row in rows]
