"""Reads of chosen columns as dicts, or as objects of a class, without entities."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Generic, Protocol, TypeVar, overload

from ..errors import MisuseError
from ..field_names import FieldName, name_for
from ..paging.pages import CursorPaginationResult, PaginationResult
from ..query import Count, NumberedOptions, OptionsLike, QueryOptions, options_of
from ..statements.paths import has_value, unknown
from ..statements.suggestions import shown, suggestion
from .core import AnySyncSession, RepositoryCore
from .reading import ReadMethods
from .row_classes import RowClass

C = TypeVar("C", bound=RepositoryCore[Any, Any])
R = TypeVar("R")
Row = dict[str, Any]


class _AsyncReads(Protocol[R]):
    """The reads of an async repository that `AsyncValueReads` uses. Each row is an ``R``."""

    async def first(self, options: OptionsLike = None) -> R | None: ...
    async def list(self, options: OptionsLike = None) -> builtins.list[R]: ...
    async def page(self, options: NumberedOptions = None) -> PaginationResult[R] | CursorPaginationResult[R]: ...
    async def list_paginated(self, options: OptionsLike = None) -> PaginationResult[R]: ...
    async def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[R]: ...
    def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> AsyncIterator[R]: ...


class ValueReads(Generic[R]):
    """The reads of a repository, with each row as a dict or as an object of a class. See `BaseRepository.values`."""

    def __init__(self, rows: ReadMethods[Any, AnySyncSession], make: Callable[[Row], R]) -> None:
        self._rows: ReadMethods[Row, AnySyncSession] = rows
        self._make = make

    def first(self, options: OptionsLike = None) -> R | None:
        """As `BaseRepository.first`."""
        row = self._rows.first(_plain(options))
        return None if row is None else self._make(row)

    def list(self, options: OptionsLike = None) -> builtins.list[R]:
        """As `BaseRepository.list`."""
        return [*map(self._make, self._rows.list(_plain(options)))]

    def page(self, options: OptionsLike = None) -> PaginationResult[R] | CursorPaginationResult[R]:
        """As `BaseRepository.page`."""
        return _converted(self._rows.page(_plain(options)), self._make)

    def list_paginated(self, options: OptionsLike = None) -> PaginationResult[R]:
        """As `BaseRepository.list_paginated`."""
        return _converted(self._rows.list_paginated(_plain(options)), self._make)

    def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[R]:
        """As `BaseRepository.cursor_paginate`. A cursor of that method can be used here, and the other way round."""
        return _converted(self._rows.cursor_paginate(_plain(options)), self._make)

    def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> Iterator[R]:
        """As `BaseRepository.stream`."""
        return map(self._make, self._rows.stream(_plain(options), batch_size))


class AsyncValueReads(Generic[R]):
    """As `ValueReads`, with coroutine methods."""

    def __init__(self, rows: _AsyncReads[Any], make: Callable[[Row], R]) -> None:
        self._rows: _AsyncReads[Row] = rows
        self._make = make

    async def first(self, options: OptionsLike = None) -> R | None:
        """As `BaseRepository.first`."""
        row = await self._rows.first(_plain(options))
        return None if row is None else self._make(row)

    async def list(self, options: OptionsLike = None) -> builtins.list[R]:
        """As `BaseRepository.list`."""
        return [*map(self._make, await self._rows.list(_plain(options)))]

    async def page(self, options: OptionsLike = None) -> PaginationResult[R] | CursorPaginationResult[R]:
        """As `BaseRepository.page`."""
        return _converted(await self._rows.page(_plain(options)), self._make)

    async def list_paginated(self, options: OptionsLike = None) -> PaginationResult[R]:
        """As `BaseRepository.list_paginated`."""
        return _converted(await self._rows.list_paginated(_plain(options)), self._make)

    async def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[R]:
        """As `ValueReads.cursor_paginate`."""
        return _converted(await self._rows.cursor_paginate(_plain(options)), self._make)

    async def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> AsyncIterator[R]:
        """As `BaseRepository.stream`."""
        async for row in self._rows.stream(_plain(options), batch_size):
            yield self._make(row)


def _plain(options: OptionsLike) -> QueryOptions:
    query = options_of(options)
    if query.relationships:
        raise MisuseError("A dict of columns has no relationships to load.", field="relationships")
    return query


@overload
def _converted(page: PaginationResult[Row], make: Callable[[Row], R]) -> PaginationResult[R]: ...
@overload
def _converted(page: CursorPaginationResult[Row], make: Callable[[Row], R]) -> CursorPaginationResult[R]: ...
def _converted(page: Any, make: Callable[[Row], R]) -> Any:
    """A copy of a page with the objects of its rows."""
    converted = copy(page)
    vars(converted).update(items=[*map(make, page.items)])
    return converted


def _as_it_is(row: Row) -> Row:
    return row


def projection(
    repository: C, fields: Sequence[FieldName], counts: Mapping[str, Count]
) -> tuple[C, Callable[[Row], Any]]:
    """The repository whose rows are dicts of the fields and counts, and the function that makes the result of a row.

    Raises `ValidationError` for a field of a class that is neither a column nor a count, and has no default.
    """
    classes: list[type[object]] = [each for each in fields if isinstance(each, type)]
    names = [name_for(repository.model_class, each) for each in fields if not isinstance(each, type)]
    if not classes:
        return repository._projected(names, counts), _as_it_is
    if len(fields) > 1:
        raise MisuseError("values() takes the names of fields, or one class, which names them.", field="fields")
    traits, row_class, rules = repository.traits, RowClass(classes[0]), repository._row_rules()
    hidden = frozenset[str]() if rules is None else rules.hidden(traits)
    for name in counts:
        if name not in row_class.fields:
            hint = suggestion(name, row_class.fields)
            raise MisuseError(f"{row_class.name} has no field {shown(name)!r} for the count{hint}", field=name)
    for name, is_required in row_class.fields.items():
        if name in counts:
            continue
        if has_value(traits, name, rules):
            names.append(name)
        elif is_required:
            unknown(traits, name, name, traits, f"column for {row_class.name}'s field", hidden)
    return repository._projected(names, counts), row_class.make
