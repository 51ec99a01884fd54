"""Reads of chosen columns as dicts, without entities."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol, TypeVar

from ..errors import MisuseError
from ..paging.pages import CursorPaginationResult, PaginationResult
from ..query import OptionsLike, QueryOptions, options_of
from .core import AnySyncSession
from .reading import ReadMethods

R = TypeVar("R")
Row = dict[str, Any]


class _AsyncReads(Protocol[R]):
    """The reads of an async repository that `AsyncValueReads` uses. Each row is an ``R``."""

    async def first(self, options: OptionsLike = None) -> R | None: ...
    async def list(self, options: OptionsLike = None) -> builtins.list[R]: ...
    async def page(self, options: OptionsLike = None) -> PaginationResult[R] | CursorPaginationResult[R]: ...
    async def list_paginated(self, options: OptionsLike = None) -> PaginationResult[R]: ...
    async def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[R]: ...
    def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> AsyncIterator[R]: ...


class ValueReads:
    """The reads of a repository, with each row as a dict of the named columns. See `BaseRepository.values`."""

    def __init__(self, rows: ReadMethods[Any, AnySyncSession]) -> None:
        self._rows: ReadMethods[Row, AnySyncSession] = rows

    def first(self, options: OptionsLike = None) -> Row | None:
        """As `BaseRepository.first`."""
        return self._rows.first(_plain(options))

    def list(self, options: OptionsLike = None) -> builtins.list[Row]:
        """As `BaseRepository.list`."""
        return self._rows.list(_plain(options))

    def page(self, options: OptionsLike = None) -> PaginationResult[Row] | CursorPaginationResult[Row]:
        """As `BaseRepository.page`."""
        return self._rows.page(_plain(options))

    def list_paginated(self, options: OptionsLike = None) -> PaginationResult[Row]:
        """As `BaseRepository.list_paginated`."""
        return self._rows.list_paginated(_plain(options))

    def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[Row]:
        """As `BaseRepository.cursor_paginate`. A cursor of that method can be used here, and the other way round."""
        return self._rows.cursor_paginate(_plain(options))

    def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> Iterator[Row]:
        """As `BaseRepository.stream`."""
        return self._rows.stream(_plain(options), batch_size)


class AsyncValueReads:
    """As `ValueReads`, with coroutine methods."""

    def __init__(self, rows: _AsyncReads[Any]) -> None:
        self._rows: _AsyncReads[Row] = rows

    async def first(self, options: OptionsLike = None) -> Row | None:
        """As `BaseRepository.first`."""
        return await self._rows.first(_plain(options))

    async def list(self, options: OptionsLike = None) -> builtins.list[Row]:
        """As `BaseRepository.list`."""
        return await self._rows.list(_plain(options))

    async def page(self, options: OptionsLike = None) -> PaginationResult[Row] | CursorPaginationResult[Row]:
        """As `BaseRepository.page`."""
        return await self._rows.page(_plain(options))

    async def list_paginated(self, options: OptionsLike = None) -> PaginationResult[Row]:
        """As `BaseRepository.list_paginated`."""
        return await self._rows.list_paginated(_plain(options))

    async def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[Row]:
        """As `ValueReads.cursor_paginate`."""
        return await self._rows.cursor_paginate(_plain(options))

    def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> AsyncIterator[Row]:
        """As `BaseRepository.stream`."""
        return self._rows.stream(_plain(options), batch_size)


def _plain(options: OptionsLike) -> QueryOptions:
    query = options_of(options)
    if query.relationships:
        raise MisuseError("A dict of columns has no relationships to load.", field="relationships")
    return query
