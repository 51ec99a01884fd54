"""The operations on the ORM, written with care: nothing expires on commit, and nothing is refreshed after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ClassVar
from uuid import uuid4

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..contenders import TENANT
from .ways import Subject, nothing


class HandWritten:
    """The statements and objects of both faces. They are built anew for each call, as in a service's own functions."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.model = subject.model

    def own(self) -> ColumnElement[bool]:
        """The conditions of each statement."""
        return and_(self.model.tenant_id == TENANT, self.model.is_deleted.is_(False))

    def one(self, n: int) -> Select[Any]:
        """The row with the n-th key."""
        return select(self.model).where(self.model.id == self.subject.key(n), self.own())

    def active(self) -> Select[Any]:
        """All active users."""
        return select(self.model).where(self.own(), self.model.status == "active")

    def newest(self) -> Select[Any]:
        """The 20 newest active users."""
        return self.active().order_by(self.model.created_at.desc(), self.model.id.desc()).limit(20)

    def total(self) -> Select[Any]:
        """The number of active users."""
        return select(func.count()).select_from(self.active().subquery())

    def entity(self, n: int) -> Any:
        """A new user."""
        return self.model(tenant_id=TENANT, id=uuid4(), **self.subject.new(n))


class ByHand(HandWritten):
    """The operations on an `AsyncSession`.

    ``opened`` opens the session of a call. ``finish`` ends the writes of a call, with a commit or a flush. ``rest`` is
    called after a turn.
    """

    is_async: ClassVar[bool] = True

    def __init__(
        self,
        subject: Subject,
        opened: Callable[[], AbstractAsyncContextManager[AsyncSession]],
        finish: Callable[[AsyncSession], Awaitable[None]] = AsyncSession.commit,
        rest: Callable[[], Awaitable[None]] = nothing,
    ) -> None:
        super().__init__(subject)
        self.opened = opened
        self.finish = finish
        self.rest = rest

    async def get(self, n: int) -> Any:
        async with self.opened() as session:
            return self.subject.values((await session.execute(self.one(n))).scalar_one())

    async def listed(self, n: int) -> Any:
        async with self.opened() as session:
            return [self.subject.values(user) for user in (await session.execute(self.newest())).scalars()]

    async def paged(self, n: int) -> Any:
        async with self.opened() as session:
            total = await session.scalar(self.total())
            return [self.subject.values(user) for user in (await session.execute(self.newest())).scalars()], total

    async def create(self, n: int) -> Any:
        async with self.opened() as session:
            user = self.entity(n)
            session.add(user)
            await self.finish(session)
            return self.subject.created(user)

    async def update(self, n: int) -> Any:
        async with self.opened() as session:
            user = (await session.execute(self.one(n))).scalar_one()
            user.score = n
            await self.finish(session)
            return self.subject.values(user)

    async def five_writes(self, n: int) -> Any:
        async with self.opened() as session:
            created = [self.entity(n + each) for each in range(3)]
            for user in created:
                session.add(user)
                await session.flush()
            updated = []
            for each in range(2):
                user = (await session.execute(self.one(n + each))).scalar_one()
                user.score = n
                await session.flush()
                updated.append(user)
            await self.finish(session)
            return [*map(self.subject.created, created), *map(self.subject.values, updated)]


class SyncByHand(HandWritten):
    """As `ByHand`, on a `Session`."""

    is_async: ClassVar[bool] = False

    def __init__(self, subject: Subject, opened: Callable[[], AbstractContextManager[Session]]) -> None:
        super().__init__(subject)
        self.opened = opened
        self.rest = nothing

    def get(self, n: int) -> Any:
        with self.opened() as session:
            return self.subject.values(session.execute(self.one(n)).scalar_one())

    def listed(self, n: int) -> Any:
        with self.opened() as session:
            return [self.subject.values(user) for user in session.execute(self.newest()).scalars()]

    def paged(self, n: int) -> Any:
        with self.opened() as session:
            total = session.scalar(self.total())
            return [self.subject.values(user) for user in session.execute(self.newest()).scalars()], total

    def create(self, n: int) -> Any:
        with self.opened() as session:
            user = self.entity(n)
            session.add(user)
            session.commit()
            return self.subject.created(user)

    def update(self, n: int) -> Any:
        with self.opened() as session:
            user = session.execute(self.one(n)).scalar_one()
            user.score = n
            session.commit()
            return self.subject.values(user)

    def five_writes(self, n: int) -> Any:
        with self.opened() as session:
            created = [self.entity(n + each) for each in range(3)]
            for user in created:
                session.add(user)
                session.flush()
            updated = []
            for each in range(2):
                user = session.execute(self.one(n + each)).scalar_one()
                user.score = n
                session.flush()
                updated.append(user)
            session.commit()
            return [*map(self.subject.created, created), *map(self.subject.values, updated)]
