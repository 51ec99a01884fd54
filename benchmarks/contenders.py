"""The contenders that need no other library: raw asyncpg, SQLAlchemy Core, the ORM by hand, and the toolkit.

Each contender does the same work: it filters by tenant, commits its writes and returns values that can be compared.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from dotmac_database import (
    AsyncTenantRepository,
    OutboxMessage,
    OutboxRelay,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    create_async_repository,
    create_database,
    publish,
)

from .schema import COLUMNS, User

TENANT = "tenant-7"
Values = tuple[Any, ...]
NAMES = ", ".join(COLUMNS)


def values_of(entity: Any) -> Values:
    """The values of all columns of ``entity``; reads each attribute, so that nothing stays unloaded."""
    return tuple(getattr(entity, name) for name in COLUMNS)


def new_rows(count: int) -> list[dict[str, Any]]:
    """``count`` new rows, with e-mail addresses that are not in the table yet."""
    return [
        {"name": f"New {n}", "email": f"{uuid4().hex}@example.org", "score": n, "bio": "fresh"} for n in range(count)
    ]


class Contender:
    """One library that does the cases. If it has no method for a case, it is left out of that case."""

    name: str


class Raw(Contender):
    """asyncpg with its own pool and hand-written SQL."""

    name = "asyncpg"

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def get(self, key: UUID) -> Values:
        sql = f"SELECT {NAMES} FROM bench_users WHERE id = $1 AND tenant_id = $2 AND NOT is_deleted"
        return tuple(await self.pool.fetchrow(sql, key, TENANT))

    async def listed(self, limit: int) -> list[Values]:
        sql = (
            f"SELECT {NAMES} FROM bench_users WHERE tenant_id = $1 AND NOT is_deleted AND status = $2"
            " ORDER BY created_at DESC, id DESC LIMIT $3"
        )
        return [tuple(row) for row in await self.pool.fetch(sql, TENANT, "active", limit)]

    async def paged(self, page: int) -> tuple[list[Values], int]:
        where = "tenant_id = $1 AND NOT is_deleted AND status = $2"
        sql = (
            f"SELECT {NAMES}, (SELECT count(*) FROM bench_users WHERE {where}) AS total FROM bench_users WHERE {where}"
            " ORDER BY created_at DESC, id DESC LIMIT 20 OFFSET $3"
        )
        rows = await self.pool.fetch(sql, TENANT, "active", (page - 1) * 20)
        return [tuple(row)[:-1] for row in rows], rows[0]["total"]

    async def after(self, position: tuple[datetime, UUID] | None) -> list[Values]:
        seek = "" if position is None else " AND (created_at, id) > ($2, $3)"
        sql = (
            f"SELECT {NAMES} FROM bench_users WHERE tenant_id = $1 AND NOT is_deleted{seek}"
            " ORDER BY created_at, id LIMIT 20"
        )
        return [tuple(row) for row in await self.pool.fetch(sql, TENANT, *(position or ()))]

    async def create(self, row: dict[str, Any]) -> str:
        sql = (
            "INSERT INTO bench_users (tenant_id, id, name, email, status, score, bio, created_at, is_deleted)"
            f" VALUES ($1, $2, $3, $4, 'active', $5, $6, now(), false) RETURNING {NAMES}"
        )
        record = await self.pool.fetchrow(sql, TENANT, uuid4(), row["name"], row["email"], row["score"], row["bio"])
        return str(record["email"])

    async def create_and_publish(self, row: dict[str, Any]) -> str:
        users = (
            "INSERT INTO bench_users (tenant_id, id, name, email, status, score, bio, created_at, is_deleted)"
            f" VALUES ($1, $2, $3, $4, 'active', $5, $6, now(), false) RETURNING {NAMES}"
        )
        values = TENANT, uuid4(), row["name"], row["email"], row["score"], row["bio"]
        async with self.pool.acquire() as connection, connection.transaction():
            record = await connection.fetchrow(users, *values)
            await self._publish(connection, 1)
        return str(record["email"])

    @staticmethod
    async def _publish(connection: Any, count: int) -> None:
        messages = (
            "INSERT INTO dotmac_outbox (id, topic, key, payload, created_at)"
            " SELECT gen_random_uuid(), 'users', n::text, to_json(n), now() FROM generate_series(1, $1) AS n"
        )
        await connection.execute(messages, count)

    async def relayed(self, count: int) -> int:
        """Without leases and order: each batch is locked until it is deleted."""
        batch = "SELECT position FROM dotmac_outbox ORDER BY position LIMIT 100 FOR UPDATE SKIP LOCKED"
        deleted = f"DELETE FROM dotmac_outbox WHERE position IN ({batch}) RETURNING payload"
        delivered = 0
        async with self.pool.acquire() as connection:
            await self._publish(connection, count)
            while rows := await connection.fetch(deleted):
                delivered += len(rows)
        return delivered

    async def update(self, key: UUID, score: int) -> int:
        sql = f"UPDATE bench_users SET score = $1 WHERE id = $2 AND tenant_id = $3 AND NOT is_deleted RETURNING {NAMES}"
        return int((await self.pool.fetchrow(sql, score, key, TENANT))["score"])

    async def create_many(self, rows: list[dict[str, Any]]) -> int:
        from dotmac_database.types import utc_now

        now = utc_now()
        names = ["tenant_id", "id", "name", "email", "status", "score", "bio", "created_at", "is_deleted"]
        records = [
            (TENANT, uuid4(), row["name"], row["email"], "active", row["score"], row["bio"], now, False) for row in rows
        ]
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.copy_records_to_table("bench_users", records=records, columns=names)
        return len(rows)

    async def create_returning(self, rows: list[dict[str, Any]]) -> int:
        """By an array for each column: COPY returns no rows, so it could not return what the database computes."""
        from dotmac_database.types import utc_now

        sql = (
            "INSERT INTO bench_users (tenant_id, id, name, email, status, score, bio, created_at, is_deleted)"
            " SELECT $1, u.id, u.name, u.email, 'active', u.score, u.bio, $7, false"
            " FROM unnest($2::uuid[], $3::text[], $4::text[], $5::int[], $6::text[]) AS u(id, name, email, score, bio)"
            f" RETURNING {NAMES}"
        )
        columns = [[row[name] for row in rows] for name in ("name", "email", "score", "bio")]
        return len(await self.pool.fetch(sql, TENANT, [uuid4() for _ in rows], *columns, utc_now()))

    async def update_many(self, rows: list[dict[str, Any]]) -> int:
        sql = (
            "UPDATE bench_users SET score = u.score FROM unnest($1::uuid[], $2::int[]) AS u(id, score)"
            " WHERE bench_users.id = u.id AND tenant_id = $3 AND NOT is_deleted"
        )
        done = await self.pool.execute(sql, [row["id"] for row in rows], [row["score"] for row in rows], TENANT)
        return int(done.split()[-1])

    async def upsert_many(self, rows: list[dict[str, Any]]) -> int:
        from dotmac_database.types import utc_now

        sql = (
            "INSERT INTO bench_users (tenant_id, id, name, email, status, score, bio, created_at, is_deleted)"
            " SELECT $1, u.id, u.name, u.email, 'active', u.score, u.bio, $7, false"
            " FROM unnest($2::uuid[], $3::text[], $4::text[], $5::int[], $6::text[]) AS u(id, name, email, score, bio)"
            " ON CONFLICT (tenant_id, email)"
            " DO UPDATE SET name = excluded.name, score = excluded.score, bio = excluded.bio"
            f" RETURNING {NAMES}"
        )
        columns = [[row[name] for row in rows] for name in ("name", "email", "score", "bio")]
        records = await self.pool.fetch(sql, TENANT, [uuid4() for _ in rows], *columns, utc_now())
        return len(records)


class ByHand(Contender):
    """The ORM as it is usually written by hand."""

    name = "SQLAlchemy ORM by hand"
    model: Any = User

    def __init__(self, engine: AsyncEngine) -> None:
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)

    def _own(self) -> Any:
        return and_(self.model.tenant_id == TENANT, self.model.is_deleted.is_(False))

    async def get(self, key: UUID) -> Values:
        async with self.sessions() as session:
            return values_of(
                (await session.execute(select(self.model).where(self.model.id == key, self._own()))).scalar_one()
            )

    async def listed(self, limit: int) -> list[Values]:
        async with self.sessions() as session:
            statement = (
                select(self.model)
                .where(self._own(), self.model.status == "active")
                .order_by(self.model.created_at.desc(), self.model.id.desc())
                .limit(limit)
            )
            return [values_of(user) for user in (await session.execute(statement)).scalars()]

    async def paged(self, page: int) -> tuple[list[Values], int]:
        async with self.sessions() as session:
            statement = select(self.model).where(self._own(), self.model.status == "active")
            total = await session.scalar(select(func.count()).select_from(statement.subquery()))
            ordered = (
                statement.order_by(self.model.created_at.desc(), self.model.id.desc()).limit(20).offset((page - 1) * 20)
            )
            return [values_of(user) for user in (await session.execute(ordered)).scalars()], int(total or 0)

    async def after(self, position: tuple[datetime, UUID] | None) -> list[Values]:
        async with self.sessions() as session:
            statement = select(self.model).where(self._own()).order_by(self.model.created_at, self.model.id).limit(20)
            if position is not None:
                moment, key = position
                later = or_(self.model.created_at > moment, and_(self.model.created_at == moment, self.model.id > key))
                statement = statement.where(later)
            return [values_of(user) for user in (await session.execute(statement)).scalars()]

    async def create(self, row: dict[str, Any]) -> str:
        async with self.sessions() as session:
            user = self.model(tenant_id=TENANT, id=uuid4(), **row)
            session.add(user)
            await session.commit()
            return str(values_of(user)[COLUMNS.index("email")])

    async def update(self, key: UUID, score: int) -> int:
        async with self.sessions() as session:
            user = (await session.execute(select(self.model).where(self.model.id == key, self._own()))).scalar_one()
            user.score = score
            await session.commit()
            return int(values_of(user)[COLUMNS.index("score")])

    async def create_many(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            await session.execute(insert(self.model), [{"tenant_id": TENANT, "id": uuid4(), **row} for row in rows])
            await session.commit()
            return len(rows)

    async def create_returning(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            returning = insert(self.model).returning(self.model, sort_by_parameter_order=True)
            data = [{"tenant_id": TENANT, "id": uuid4(), **row} for row in rows]
            users = (await session.scalars(returning, data)).all()
            await session.commit()
            return len(users)

    async def update_many(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            await session.execute(update(self.model), rows)
            await session.commit()
            return len(rows)

    async def upsert_many(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            statement = upsert(self.model)
            changes = {name: statement.excluded[name] for name in ("name", "score", "bio")}
            returning = statement.on_conflict_do_update(index_elements=["tenant_id", "email"], set_=changes).returning(
                self.model
            )
            data = [{"tenant_id": TENANT, "id": uuid4(), **row} for row in rows]
            users = (await session.scalars(returning, data, execution_options={"populate_existing": True})).all()
            await session.commit()
            return len(users)


class Core(ByHand):
    """SQLAlchemy Core on a connection; the rows are not made into objects."""

    name = "SQLAlchemy Core"

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.engine = engine
        self.table: Any = User.__table__

    async def _rows(self, statement: Any) -> list[Values]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(statement)]

    async def get(self, key: UUID) -> Values:
        return (await self._rows(select(self.table).where(User.id == key, self._own())))[0]

    async def listed(self, limit: int) -> list[Values]:
        where = (self._own(), User.status == "active")
        order = (User.created_at.desc(), User.id.desc())
        return await self._rows(select(self.table).where(*where).order_by(*order).limit(limit))

    async def create(self, row: dict[str, Any]) -> str:
        statement = insert(self.table).values(tenant_id=TENANT, id=uuid4(), **row).returning(self.table.c.email)
        async with self.engine.begin() as connection:
            return str((await connection.execute(statement)).scalar_one())

    async def update(self, key: UUID, score: int) -> int:
        statement = (
            update(self.table).where(User.id == key, self._own()).values(score=score).returning(self.table.c.score)
        )
        async with self.engine.begin() as connection:
            return int((await connection.execute(statement)).scalar_one())


async def _deliver(message: OutboxMessage) -> None:
    """Take no time, so that the relay alone is measured."""


class Toolkit(Contender):
    """The toolkit, with a new session and repository for each call, as in a request."""

    name = "toolkit"

    def __init__(self, engine: AsyncEngine) -> None:
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)
        self.database = create_database(engine.url)
        self.database.__dict__["async_engine"] = engine
        self.cursors: dict[Any, str | None] = {None: None}

    def _users(self, session: Any) -> AsyncTenantRepository[User]:
        repository = create_async_repository(session, User, TENANT)
        assert isinstance(repository, AsyncTenantRepository)
        return repository

    async def get(self, key: UUID) -> Values:
        async with self.sessions() as session:
            return values_of(await self._users(session).get_by_id(key))

    @staticmethod
    def _active(**more: Any) -> QueryOptions:
        return QueryOptions(
            filters=[QueryFilter("status", value="active")], sorts=[SortField("created_at", SortOrder.DESC)], **more
        )

    async def listed(self, limit: int) -> list[Values]:
        async with self.sessions() as session:
            users = await self._users(session).list(self._active(pagination={"per_page": limit}))
            return [values_of(user) for user in users]

    async def paged(self, page: int) -> tuple[list[Values], int]:
        async with self.sessions() as session:
            result = await self._users(session).list_paginated(self._active(pagination={"page": page, "per_page": 20}))
            return [values_of(user) for user in result.items], result.total

    async def after(self, position: tuple[datetime, UUID] | None) -> list[Values]:
        async with self.sessions() as session:
            users = self._users(session)
            parameters = {"limit": 20, "cursor_field": "created_at", "cursor": self._cursor(users, position)}
            page = await users.cursor_paginate({"cursor_pagination": parameters})
            return [values_of(user) for user in page.items]

    def _cursor(self, users: AsyncTenantRepository[User], position: Any) -> str | None:
        """The cursor that a client would have got for the row with these values of ``created_at`` and ``id``."""
        if position not in self.cursors:
            from dotmac_database.query import CursorPaginationParams
            from dotmac_database.statements.ordering import cursor_order

            order = cursor_order(users.traits, (), CursorPaginationParams(cursor_field="created_at"))
            twin = users._twin
            self.cursors[position] = twin._codec.encode(position, mode="after", binding=twin._binding(order))
        return self.cursors[position]

    async def create(self, row: dict[str, Any]) -> str:
        async with self.sessions() as session:
            return str(values_of(await self._users(session).create(row))[COLUMNS.index("email")])

    async def create_and_publish(self, row: dict[str, Any]) -> str:
        async with self.sessions() as session:
            publish(session, "users", row["score"], key="1")
            return str(values_of(await self._users(session).create(row))[COLUMNS.index("email")])

    async def relayed(self, count: int) -> int:
        async with self.sessions() as session:
            for number in range(count):
                publish(session, "users", number, key=str(number))
            await session.commit()
        relay, delivered = OutboxRelay(self.database, _deliver), 0
        while number := await relay.run_once():
            delivered += number
        return delivered

    async def update(self, key: UUID, score: int) -> int:
        async with self.sessions() as session:
            return int(values_of(await self._users(session).update(key, {"score": score}))[COLUMNS.index("score")])

    async def create_many(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            return await self._users(session).bulk_create(rows, returning=False)

    async def create_returning(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            return len(await self._users(session).bulk_create(rows))

    async def update_many(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            return await self._users(session).bulk_update(rows)

    async def upsert_many(self, rows: list[dict[str, Any]]) -> int:
        async with self.sessions() as session:
            return len(await self._users(session).bulk_upsert(rows, ["email"]))
