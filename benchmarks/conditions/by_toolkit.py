"""The operations by repositories of the toolkit, with a new repository for each call, as in a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ClassVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import (
    AsyncRepository,
    BaseRepository,
    DatabaseTransaction,
    PaginationParams,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    create_async_repository,
    create_repository,
)

from ..contenders import TENANT
from .ways import Subject, nothing


def newest() -> QueryOptions:
    """The 20 newest active users."""
    return QueryOptions(
        filters=[QueryFilter("status", value="active")],
        sorts=[SortField("created_at", SortOrder.DESC)],
        pagination=PaginationParams(page=1, per_page=20),
    )


class ByToolkit:
    """The operations on an `AsyncSession`.

    ``opened`` opens the session of a call. ``transaction`` opens the block of several writes. ``rest`` is called after
    a turn.
    """

    is_async: ClassVar[bool] = True

    def __init__(
        self,
        subject: Subject,
        opened: Callable[[], AbstractAsyncContextManager[AsyncSession]],
        transaction: Callable[
            [AsyncSession], AbstractAsyncContextManager[object]
        ] = DatabaseTransaction.async_transaction,
        rest: Callable[[], Awaitable[None]] = nothing,
    ) -> None:
        self.subject = subject
        self.opened = opened
        self.transaction = transaction
        self.rest = rest

    def users(self, session: AsyncSession) -> AsyncRepository[Any]:
        """A repository of the users."""
        return create_async_repository(session, self.subject.model, TENANT)

    async def get(self, n: int) -> Any:
        async with self.opened() as session:
            return self.subject.values(await self.users(session).get_by_id(self.subject.key(n)))

    async def listed(self, n: int) -> Any:
        async with self.opened() as session:
            return [self.subject.values(user) for user in await self.users(session).list(newest())]

    async def paged(self, n: int) -> Any:
        async with self.opened() as session:
            page = await self.users(session).list_paginated(newest())
            return [self.subject.values(user) for user in page.items], page.total

    async def create(self, n: int) -> Any:
        async with self.opened() as session:
            return self.subject.created(await self.users(session).create(self.subject.new(n)))

    async def update(self, n: int) -> Any:
        async with self.opened() as session:
            return self.subject.values(await self.users(session).update(self.subject.key(n), {"score": n}))

    async def five_writes(self, n: int) -> Any:
        async with self.opened() as session:
            users = self.users(session)
            async with self.transaction(session):
                created = [await users.create(self.subject.new(n + each)) for each in range(3)]
                updated = [await users.update(self.subject.key(n + each), {"score": n}) for each in range(2)]
            return [*map(self.subject.created, created), *map(self.subject.values, updated)]


class SyncByToolkit:
    """As `ByToolkit`, on a `Session`."""

    is_async: ClassVar[bool] = False

    def __init__(self, subject: Subject, opened: Callable[[], AbstractContextManager[Session]]) -> None:
        self.subject = subject
        self.opened = opened
        self.rest = nothing

    def users(self, session: Session) -> BaseRepository[Any]:
        """A repository of the users."""
        return create_repository(session, self.subject.model, TENANT)

    def get(self, n: int) -> Any:
        with self.opened() as session:
            return self.subject.values(self.users(session).get_by_id(self.subject.key(n)))

    def listed(self, n: int) -> Any:
        with self.opened() as session:
            return [self.subject.values(user) for user in self.users(session).list(newest())]

    def paged(self, n: int) -> Any:
        with self.opened() as session:
            page = self.users(session).list_paginated(newest())
            return [self.subject.values(user) for user in page.items], page.total

    def create(self, n: int) -> Any:
        with self.opened() as session:
            return self.subject.created(self.users(session).create(self.subject.new(n)))

    def update(self, n: int) -> Any:
        with self.opened() as session:
            return self.subject.values(self.users(session).update(self.subject.key(n), {"score": n}))

    def five_writes(self, n: int) -> Any:
        with self.opened() as session:
            users = self.users(session)
            with DatabaseTransaction.sync_transaction(session):
                created = [users.create(self.subject.new(n + each)) for each in range(3)]
                updated = [users.update(self.subject.key(n + each), {"score": n}) for each in range(2)]
            return [*map(self.subject.created, created), *map(self.subject.values, updated)]
