"""The async repositories: the code of the sync ones, run by `AsyncSession.run_sync`.

Each async repository has a sync twin, on the sync session behind its own session. A public method runs the sync method
of the same name on the twin. If a subclass overrides a hook or a method, the twin calls the override, so that it takes
effect wherever the method is used.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from inspect import isawaitable
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, Protocol, Self, TypeVar, overload
from weakref import WeakKeyDictionary

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.util import await_only

from ..advisor import QueryPlan
from ..execution.routes import Route
from ..field_names import FieldName, RowData
from ..history import HistoryEntry
from ..paging.cursors import CursorKey
from ..paging.pages import CursorPaginationResult, OffsetResult, PaginationResult
from ..query import (
    BatchProgress,
    Count,
    FiltersLike,
    MeasuresLike,
    NumberedOptions,
    OffsetOptions,
    OffsetParams,
    OptionsLike,
    QueryOptions,
    RelationshipsLike,
    SortsLike,
    options_of,
)
from ..statements.reads import Seek
from .core import AsyncDb, RepositoryCore
from .past import as_of
from .sync import BaseRepository, BaseTenantRepository
from .values import AsyncValueReads, Row, projection

M = TypeVar("M")
T = TypeVar("T")
P = ParamSpec("P")

HOOKS = ("conditions", "values_for_create", "values_for_update")


class AsyncRepository(RepositoryCore[M, AsyncDb]):
    """Typed access to the rows of one mapped class, on an `AsyncSession`: `BaseRepository` with coroutine methods."""

    asynchronous: ClassVar[bool] = True
    twin_class: ClassVar[type[BaseRepository[Any]]] = BaseRepository

    def __init__(
        self,
        db: AsyncDb,
        model_class: type[M] | None = None,
        tenant_id: object = None,
        auto_commit: bool = True,
        *,
        cursor_key: CursorKey = None,
    ) -> None:
        super().__init__(db, model_class, tenant_id, auto_commit, cursor_key=cursor_key)
        self._async_session: AsyncSession = db() if isinstance(db, async_scoped_session) else db

    def _clear_caches(self) -> None:
        super()._clear_caches()
        self._twin_made: BaseRepository[M] | None = None

    @property
    def _twin(self) -> BaseRepository[M]:
        twin = self._twin_made
        if twin is None:
            twin_class = _TWINS.get(type(self))
            if twin_class is None:
                twin_class = _TWINS[type(self)] = _twin_class(type(self))
            twin = twin_class.__new__(twin_class)
            twin.__dict__.update({name: value for name, value in self.__dict__.items() if name != "_twin_made"})
            twin.__dict__["_owner"] = self
            self._twin_made = twin
        return twin

    async def _run(
        self, method: Callable[Concatenate[BaseRepository[M], P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a sync method on the twin."""
        return await self._async_session.run_sync(lambda _: method(self._twin, *args, **kwargs))

    async def get_by_id(
        self, entity_id: Any, include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> M | None:
        """As `BaseRepository.get_by_id`."""
        return await self._run(BaseRepository.get_by_id, entity_id, include_deleted, relationships)

    async def get_by_id_or_raise(
        self, entity_id: Any, include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> M:
        """As `BaseRepository.get_by_id_or_raise`."""
        return await self._run(BaseRepository.get_by_id_or_raise, entity_id, include_deleted, relationships)

    async def get_many(
        self, ids: Iterable[Any], include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> builtins.list[M]:
        """As `BaseRepository.get_many`."""
        return await self._run(BaseRepository.get_many, ids, include_deleted, relationships)

    async def get_by_field(
        self, field_name: FieldName, value: Any, include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> M | None:
        """As `BaseRepository.get_by_field`."""
        return await self._run(BaseRepository.get_by_field, field_name, value, include_deleted, relationships)

    async def list_by_field(
        self, field_name: FieldName, value: Any, include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> builtins.list[M]:
        """As `BaseRepository.list_by_field`."""
        return await self._run(BaseRepository.list_by_field, field_name, value, include_deleted, relationships)

    async def first(self, options: OptionsLike = None) -> M | None:
        """As `BaseRepository.first`."""
        return await self._run(BaseRepository.first, options)

    async def exists(self, entity_id: Any, include_deleted: bool = False) -> bool:
        """As `BaseRepository.exists`."""
        return await self._run(BaseRepository.exists, entity_id, include_deleted)

    async def count(self, filters: FiltersLike = None, include_deleted: bool = False) -> int:
        """As `BaseRepository.count`."""
        return await self._run(BaseRepository.count, filters, include_deleted)

    @overload
    def values(  # pyright: ignore[reportOverlappingOverload]  # for type checkers, a class can be a FieldName, too
        self, into: type[T], /, **counts: Count
    ) -> AsyncValueReads[T]: ...
    @overload
    def values(self, *fields: FieldName, **counts: Count) -> AsyncValueReads[Row]: ...
    def values(self, *fields: FieldName, **counts: Count) -> AsyncValueReads[Any]:  # type: ignore[misc]  # mypy: *fields takes into
        """As `BaseRepository.values`; this method itself is no coroutine."""
        return AsyncValueReads(*projection(self, fields, counts))

    async def aggregate(
        self,
        measures: MeasuresLike,
        filters: FiltersLike = None,
        *,
        group_by: FieldName | Sequence[FieldName] = (),
        include_deleted: bool = False,
        sorts: SortsLike = (),
        limit: int | None = None,
    ) -> builtins.list[dict[str, Any]]:
        """As `BaseRepository.aggregate`."""
        return await self._run(
            BaseRepository.aggregate,
            measures,
            filters,
            group_by=group_by,
            include_deleted=include_deleted,
            sorts=sorts,
            limit=limit,
        )

    async def distinct_values(
        self, field_name: FieldName, filters: FiltersLike = None, *, include_deleted: bool = False
    ) -> builtins.list[Any]:
        """As `BaseRepository.distinct_values`."""
        return await self._run(BaseRepository.distinct_values, field_name, filters, include_deleted=include_deleted)

    async def list(self, options: OptionsLike = None) -> builtins.list[M]:
        """As `BaseRepository.list`."""
        return await self._run(BaseRepository.list, options)

    def select(self, options: OptionsLike = None) -> Select[M]:
        """As `BaseRepository.select`; this method itself is no coroutine."""
        return BaseRepository.select(self._twin, options)

    @overload
    async def page(self, options: QueryOptions[OffsetParams] | OffsetOptions) -> OffsetResult[M]: ...
    @overload
    async def page(self, options: NumberedOptions = None) -> PaginationResult[M] | CursorPaginationResult[M]: ...
    async def page(
        self, options: OptionsLike | OffsetOptions | NumberedOptions = None
    ) -> PaginationResult[M] | CursorPaginationResult[M] | OffsetResult[M]:
        """As `BaseRepository.page`."""
        query = options_of(options)
        if query.cursor_pagination is not None:
            return await self.cursor_paginate(query)
        if isinstance(query.pagination, OffsetParams):
            return await self._run(BaseRepository._offset_page, query)
        return await self.list_paginated(query)

    async def list_paginated(self, options: OptionsLike = None) -> PaginationResult[M]:
        """As `BaseRepository.list_paginated`."""
        return await self._run(BaseRepository.list_paginated, options)

    async def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[M]:
        """As `BaseRepository.cursor_paginate`."""
        return await self._run(BaseRepository.cursor_paginate, options)

    async def explain(self, options: OptionsLike = None, *, analyze: bool = False) -> QueryPlan:
        """As `BaseRepository.explain`."""
        return await self._run(BaseRepository.explain, options, analyze=analyze)

    async def explain_route(self, options: OptionsLike = None) -> Route:
        """As `BaseRepository.explain_route`."""
        return await self._run(BaseRepository.explain_route, options)

    async def history(self, entity_id: Any) -> builtins.list[HistoryEntry]:
        """As `BaseRepository.history`."""
        return await self._run(BaseRepository.history, entity_id)

    def as_of(self, moment: datetime) -> Self:
        """As `BaseRepository.as_of`; this method itself is no coroutine."""
        return as_of(self, moment)

    async def forget_history(self, *, before: datetime, batch: int = 1000) -> int:
        """As `BaseRepository.forget_history`."""
        return await self._run(BaseRepository.forget_history, before=before, batch=batch)

    async def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> AsyncIterator[M]:
        """As `BaseRepository.stream`."""
        seek: Seek | None = None
        while True:
            batch, seek = await self._run(BaseRepository._batch, options, batch_size, seek)
            for entity in batch:
                yield entity
            if seek is None:
                return

    async def in_batches(
        self,
        work: Callable[[builtins.list[M]], object],
        options: OptionsLike = None,
        batch_size: int = 1000,
        *,
        after: Any = None,
        progress: Callable[[BatchProgress], object] | None = None,
    ) -> int:
        """As `BaseRepository.in_batches`; ``work`` and ``progress`` may be coroutine functions."""
        return await self._run(
            BaseRepository.in_batches,
            _waited_for(work),
            options,
            batch_size,
            after=after,
            progress=None if progress is None else _waited_for(progress),
        )

    async def create(self, data: RowData[M], user_id: str | None = None) -> M:
        """As `BaseRepository.create`."""
        return await self._run(BaseRepository.create, data, user_id)

    @overload
    async def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: Literal[True] = True
    ) -> builtins.list[M]: ...
    @overload
    async def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: Literal[False]
    ) -> int: ...
    @overload
    async def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: bool
    ) -> builtins.list[M] | int: ...
    async def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: bool = True
    ) -> builtins.list[M] | int:
        """As `BaseRepository.bulk_create`."""
        return await self._async_session.run_sync(
            lambda _: BaseRepository.bulk_create(self._twin, rows, user_id, returning=returning)
        )

    async def upsert(self, data: RowData[M], conflict_fields: Iterable[FieldName], user_id: str | None = None) -> M:
        """As `BaseRepository.upsert`."""
        return await self._run(BaseRepository.upsert, data, conflict_fields, user_id)

    async def bulk_upsert(
        self, rows: Iterable[RowData[M]], conflict_fields: Iterable[FieldName], user_id: str | None = None
    ) -> builtins.list[M]:
        """As `BaseRepository.bulk_upsert`."""
        return await self._run(BaseRepository.bulk_upsert, rows, conflict_fields, user_id)

    async def get_or_create(
        self, data: RowData[M], match_fields: Iterable[FieldName], user_id: str | None = None
    ) -> tuple[M, bool]:
        """As `BaseRepository.get_or_create`."""
        return await self._run(BaseRepository.get_or_create, data, match_fields, user_id)

    async def link(self, entity_id: object, relationship: FieldName, ids: Iterable[object]) -> int:
        """As `BaseRepository.link`."""
        return await self._run(BaseRepository.link, entity_id, relationship, ids)

    async def unlink(self, entity_id: object, relationship: FieldName, ids: Iterable[object]) -> int:
        """As `BaseRepository.unlink`."""
        return await self._run(BaseRepository.unlink, entity_id, relationship, ids)

    async def set_links(self, entity_id: object, relationship: FieldName, ids: Iterable[object]) -> tuple[int, int]:
        """As `BaseRepository.set_links`."""
        return await self._run(BaseRepository.set_links, entity_id, relationship, ids)

    async def update(
        self, entity_id: Any, data: RowData[M], user_id: str | None = None, *, expected_version: Any = None
    ) -> M:
        """As `BaseRepository.update`."""
        return await self._run(BaseRepository.update, entity_id, data, user_id, expected_version=expected_version)

    async def delete(
        self,
        entity_id: Any,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        expected_version: Any = None,
    ) -> bool:
        """As `BaseRepository.delete`."""
        return await self._run(
            BaseRepository.delete, entity_id, soft_delete, user_id, expected_version=expected_version
        )

    async def restore(self, entity_id: Any, user_id: str | None = None) -> M:
        """As `BaseRepository.restore`."""
        return await self._run(BaseRepository.restore, entity_id, user_id)

    async def bulk_update(self, rows: Iterable[RowData[M]], user_id: str | None = None) -> int:
        """As `BaseRepository.bulk_update`."""
        return await self._run(BaseRepository.bulk_update, rows, user_id)

    async def update_where(
        self,
        filters: FiltersLike,
        data: RowData[M],
        user_id: str | None = None,
        *,
        allow_all: bool = False,
        at_most: int | None = None,
    ) -> int:
        """As `BaseRepository.update_where`."""
        return await self._run(
            BaseRepository.update_where, filters, data, user_id, allow_all=allow_all, at_most=at_most
        )

    async def delete_where(
        self,
        filters: FiltersLike,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        allow_all: bool = False,
        at_most: int | None = None,
    ) -> int:
        """As `BaseRepository.delete_where`."""
        return await self._run(
            BaseRepository.delete_where, filters, soft_delete, user_id, allow_all=allow_all, at_most=at_most
        )


class AsyncTenantRepository(AsyncRepository[M, AsyncDb]):
    """An `AsyncRepository` that is always confined to one tenant."""

    tenant_required: ClassVar[bool] = True
    twin_class: ClassVar[type[BaseRepository[Any]]] = BaseTenantRepository

    async def get_tenant_stats(self) -> dict[str, Any]:
        """As `BaseTenantRepository.get_tenant_stats`."""
        twin = self._twin
        assert isinstance(twin, BaseTenantRepository)
        return await self._async_session.run_sync(lambda _: BaseTenantRepository.get_tenant_stats(twin))


_TWINS: WeakKeyDictionary[type, type[BaseRepository[Any]]] = WeakKeyDictionary()


def _twin_class(face: type[AsyncRepository[M, AsyncDb]]) -> type[BaseRepository[M]]:
    """The class of the twins of an async repository class. It calls the methods and hooks that ``face`` overrides."""
    base = face.twin_class
    own = AsyncTenantRepository if issubclass(face, AsyncTenantRepository) else AsyncRepository
    members: dict[str, object] = {name: _called_back(name) for name in HOOKS if _overrides(face, own, name)}
    for name in dir(base):
        if not name.startswith("_") and name not in HOOKS and name in dir(own) and _overrides(face, own, name):
            members[name] = _awaited(name)
    return type(f"{face.__name__}Twin", (base,), members)


def _overrides(face: type, own: type, name: str) -> bool:
    return callable(getattr(own, name, None)) and getattr(face, name) is not getattr(own, name)


class _Twin(Protocol):
    """A sync twin, which knows its async repository."""

    _owner: object


def _called_back(name: str) -> Callable[..., object]:
    def hook(twin: _Twin, *args: object, **kwargs: object) -> object:
        return getattr(twin._owner, name)(*args, **kwargs)

    return hook


def _waited_for(callback: Callable[[T], object]) -> Callable[[T], object]:
    """A sync function that calls the callback, and awaits the result if that is awaitable."""

    def call(argument: T) -> object:
        result = callback(argument)
        return await_only(result) if isawaitable(result) else result

    return call


def _awaited(name: str) -> Callable[..., object]:
    def method(twin: _Twin, *args: object, **kwargs: object) -> object:
        result = getattr(twin._owner, name)(*args, **kwargs)
        return await_only(result) if isawaitable(result) else result

    return method
