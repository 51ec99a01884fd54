"""Sessions for tests whose commits are savepoints of one transaction, which is rolled back at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import Connection, Engine, MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from ..dialects.features import has_policies, refuses_some_tables
from ..tenancy import RowLevelSecurity, guard_tenants
from .memory import create_tables, every_table, warn_of


@contextmanager
def rolled_back_session(engine: Engine, *, rls: RowLevelSecurity | None = None) -> Iterator[Session]:
    """A `Session` whose changes, committed or not, are undone after the block. With ``rls`` it is guarded."""
    with engine.connect() as connection:
        transaction = connection.begin()
        maker = sessionmaker(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        with maker() if rls is None else guard_tenants(maker, rls=rls)() as session:
            yield session
        transaction.rollback()


@asynccontextmanager
async def async_rolled_back_session(
    engine: AsyncEngine, *, rls: RowLevelSecurity | None = None, metadata: MetaData | None = None
) -> AsyncIterator[AsyncSession]:
    """As `rolled_back_session`, an `AsyncSession`.

    A database in memory belongs to one engine: it gets the tables of ``metadata`` first (None: of all mapped classes).
    """
    async with engine.connect() as connection:
        transaction = await connection.begin()
        if engine.url.database in (None, "", ":memory:"):
            await connection.run_sync(create_schema, metadata)
        maker = async_sessionmaker(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        async with maker() if rls is None else guard_tenants(maker, rls=rls)() as session:
            yield session
        await transaction.rollback()


def create_schema(connection: Connection, metadata: MetaData | None, rls: RowLevelSecurity | None = None) -> None:
    """Create the tables of ``metadata`` (None: of all mapped classes), and on PostgreSQL the policies of ``rls``.

    Tables that SQLite can't have are omitted, with a warning that names them.
    """
    dialect = connection.dialect.name
    tables = every_table("a fixture dotmac_metadata") if metadata is None else list(metadata.tables.values())
    if refuses_some_tables(dialect):
        warn_of(create_tables(connection, tables))
    else:
        by_metadata: dict[MetaData, list[Table]] = {}
        for table in tables:
            by_metadata.setdefault(table.metadata, []).append(table)
        for owner, members in by_metadata.items():
            owner.create_all(connection, tables=members)
    if rls is not None and has_policies(dialect):
        rls.apply(connection)
