"""The operations that `benchmarks.conditions` does not have, by hand on the ORM and by a repository of the toolkit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Select, insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine

from dotmac_database import (
    CursorPaginationParams,
    PaginationParams,
    QueryOptions,
    SortField,
)
from dotmac_database.types import utc_now

from ..conditions.by_hand import ByHand
from ..conditions.by_toolkit import ByToolkit
from ..conditions.on_postgresql import new_sessions
from ..conditions.ways import Ways
from ..contenders import TENANT
from .sizes import GrownSubject

MANY = 100
_STRIDE = 1000
_OLDEST = [SortField("created_at")]


@dataclass(frozen=True)
class Position:
    """The row before the deep page: the values by which it is ordered, and the cursor that a client would have."""

    created_at: datetime
    id: UUID
    cursor: str


class GrownByHand(ByHand):
    """The ORM by hand. The keyset page is read with a row comparison, for which PostgreSQL uses the index."""

    subject: GrownSubject
    position: Position

    def oldest(self) -> Select[Any]:
        """All users of the tenant."""
        return select(self.model).where(self.own()).order_by(self.model.created_at, self.model.id)

    async def _page(self, statement: Select[Any]) -> Any:
        async with self.opened() as session:
            return [self.subject.values(user) for user in (await session.execute(statement)).scalars()]

    async def after(self, n: int) -> Any:
        place = tuple_(self.model.created_at, self.model.id)
        later = place > (self.position.created_at, self.position.id)
        return await self._page(self.oldest().where(later).limit(20))

    async def offset(self, n: int) -> Any:
        return await self._page(self.oldest().offset(self.subject.depth).limit(20))

    async def streamed(self, n: int) -> Any:
        async with self.opened() as session:
            rows = await session.stream_scalars(self.oldest().execution_options(yield_per=self.subject.batch))
            values = [self.subject.values(user) async for user in first(rows, self.subject.least)]
            await rows.close()
            return values

    async def delete(self, n: int) -> Any:
        async with self.opened() as session:
            user = (await session.execute(self.one(n))).scalar_one()
            user.is_deleted, user.deleted_at = True, utc_now()
            await session.commit()
        async with self.opened() as session:
            gone = select(self.model).where(self.model.id == self.subject.key(n), self.model.tenant_id == TENANT)
            user = (await session.execute(gone)).scalar_one()
            user.is_deleted, user.deleted_at = False, None
            await session.commit()
            return self.subject.values(user)

    async def upserted(self, n: int) -> Any:
        rows = [{"tenant_id": TENANT, "id": uuid4(), **row} for row in self.subject.changed(n, MANY)]
        statement = upsert(self.model).values(rows)
        changes = {name: statement.excluded[name] for name in ("name", "score", "bio")}
        statement = statement.on_conflict_do_update(index_elements=["tenant_id", "email"], set_=changes)
        async with self.opened() as session:
            users = (await session.scalars(statement.returning(self.model))).all()
            await self.finish(session)
            return [*map(self.subject.created, users)]

    async def many(self, n: int) -> Any:
        rows = [{"tenant_id": TENANT, "id": uuid4(), **self.subject.new(n)} for _ in range(MANY)]
        async with self.opened() as session:
            users = (await session.scalars(insert(self.model).returning(self.model), rows)).all()
            await self.finish(session)
            return [*map(self.subject.created, users)]


class GrownByToolkit(ByToolkit):
    """The repositories of the toolkit."""

    subject: GrownSubject
    position: Position

    async def after(self, n: int) -> Any:
        return (await self._page(self.position.cursor, 20))[0]

    async def _page(self, cursor: str | None, limit: int) -> tuple[list[Any], str | None]:
        async with self.opened() as session:
            seek = CursorPaginationParams(limit=limit, cursor=cursor)
            page = await self.users(session).cursor_paginate(QueryOptions(sorts=_OLDEST, cursor_pagination=seek))
            return [self.subject.values(user) for user in page.items], page.next_cursor

    async def position_at(self, depth: int) -> Position:
        """The position after ``depth`` rows, by going through all pages before it."""
        cursor, rows = None, []
        while depth:
            limit = min(depth, _STRIDE)
            rows, cursor = await self._page(cursor, limit)
            depth -= limit
        assert cursor is not None
        last = dict(zip(self.subject.columns, rows[-1], strict=True))
        return Position(last["created_at"], last["id"], cursor)

    async def offset(self, n: int) -> Any:
        async with self.opened() as session:
            page = PaginationParams(page=self.subject.depth // 20 + 1, per_page=20)
            users = await self.users(session).list(QueryOptions(sorts=_OLDEST, pagination=page))
            return [self.subject.values(user) for user in users]

    async def streamed(self, n: int) -> Any:
        async with (
            self.opened() as session,
            aclosing(self.users(session).stream(QueryOptions(sorts=_OLDEST), self.subject.batch)) as rows,
        ):
            return [self.subject.values(user) async for user in first(rows, self.subject.least)]

    async def delete(self, n: int) -> Any:
        async with self.opened() as session:
            await self.users(session).delete(self.subject.key(n))
        async with self.opened() as session:
            return self.subject.values(await self.users(session).restore(self.subject.key(n)))

    async def upserted(self, n: int) -> Any:
        async with self.opened() as session:
            users = await self.users(session).bulk_upsert(self.subject.changed(n, MANY), ["email"])
            return [*map(self.subject.created, users)]

    async def many(self, n: int) -> Any:
        async with self.opened() as session:
            users = await self.users(session).bulk_create([self.subject.new(n) for _ in range(MANY)])
            return [*map(self.subject.created, users)]


async def first(rows: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    """The first rows of an iterator."""
    for _ in range(count):
        try:
            row = await anext(rows)
        except StopAsyncIteration:
            return
        yield row


async def ways_on(engine: AsyncEngine, subject: GrownSubject) -> Ways:
    """Both ways, with a new session for each call."""
    sessions = new_sessions(engine)
    by_hand, toolkit = GrownByHand(subject, sessions), GrownByToolkit(subject, sessions)
    by_hand.position = toolkit.position = await toolkit.position_at(subject.depth)
    return Ways(by_hand, toolkit)
