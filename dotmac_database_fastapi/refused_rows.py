"""Which row of a request's array was refused: the ``index`` of the error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from dotmac_database import (
    AsyncRepository,
    AsyncTenantRepository,
    ConstraintViolationError,
    DatabaseError,
    DuplicateEntityError,
    MisuseError,
    ValidationError,
)

from .aliases import Data, Repository

T = TypeVar("T")

WriteSome: TypeAlias = Callable[[Sequence[Data]], Awaitable[object]]
"""Writes some rows."""

_OF_A_ROW = (DuplicateEntityError, ConstraintViolationError, ValidationError)
"""The errors that are about a row, and not about the transaction or the connection."""


@contextmanager
def row_at(index: int) -> Iterator[None]:
    """A block for the row at this position, which a `DatabaseError` then names."""
    try:
        yield
    except DatabaseError as refused:
        refused.index = index
        raise


@contextmanager
def rows_of(relationship: str, filled: Collection[str] = ()) -> Iterator[None]:
    """A block for the rows of a relationship. The fields of errors become paths, such as ``lines.sku``.

    ``filled`` are fields that the client did not send, which errors do not name.
    """
    try:
        yield
    except (DuplicateEntityError, ConstraintViolationError) as refused:
        sent = tuple(f"{relationship}.{field}" for field in refused.fields if field not in filled)
        refused.fields = sent or (relationship,)
        raise
    except MisuseError:
        raise  # its field is looked for in the request
    except ValidationError as refused:
        refused.field = f"{relationship}.{refused.field}" if refused.field else relationship
        raise


async def written_together(
    repository: Repository,
    rows: Sequence[Data],
    write: Callable[[], Awaitable[T]],
    again: WriteSome,
) -> T:
    """Write many rows by ``write``; if a row is refused, find out which one.

    ``again`` writes some of the first rows. It is called in savepoints that are rolled back, once for each time that
    the number of rows can be halved: ten times for 1,000 rows. So the error is that of the first row that can't be
    written after the rows before it. Its ``index`` stays None if the repository is of a class of the user's, whose
    methods must not be called again, or if the transaction can't go on.
    """
    try:
        return await write()
    except _OF_A_ROW as refused:
        if refused.index is not None or type(repository) not in (AsyncRepository, AsyncTenantRepository):
            raise
        first = await _first_refusal(repository, rows, again, refused)
        if first is None or first is refused:
            raise
        raise first from refused.__cause__


async def _first_refusal(
    repository: Repository, rows: Sequence[Data], again: WriteSome, first: DatabaseError
) -> DatabaseError | None:
    """The error of the first row that is refused. ``first`` is the error of all rows."""
    written, refused = 0, len(rows)
    while refused - written > 1:
        many = (written + refused) // 2
        refusal = await _refusal(repository, lambda: again(rows[:many]))  # noqa: B023 - called in this round
        if refusal is None:
            written = many
        elif isinstance(refusal, _OF_A_ROW):
            first, refused = refusal, many
        else:
            return None
    first.index = refused - 1
    return first


async def _refusal(repository: Repository, write: Callable[[], Awaitable[object]]) -> DatabaseError | None:
    """The error with which a write fails in a savepoint, which is rolled back; None: it succeeds."""
    try:
        savepoint = await repository.db.begin_nested()
        try:
            await write()
        finally:
            await savepoint.rollback()
    except DatabaseError as refused:
        return refused
    return None
