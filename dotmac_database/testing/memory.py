"""A database in memory, for a test that wants a session and nothing to set up."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from sqlalchemy import Engine, MetaData, Table, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import CompileError, SQLAlchemyError, UnsupportedCompilationError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from ..engines import make_async_engine, make_engine
from ..errors import ValidationError
from ..models.registered import mapped_tables


class InMemoryDatabase:
    """An SQLite database in memory: ``with`` gives a `Session`, ``async with`` an `AsyncSession`.

    ``metadata=None``: the tables of every mapped class exist. What SQLite can't create is left out with a warning
    that names it; two tables of one name raise `ValidationError`, and need ``metadata``. Foreign keys are enforced.
    """

    def __init__(self, metadata: MetaData | None = None) -> None:
        self.metadata = metadata
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        self._session: Session | None = None
        self._async_session: AsyncSession | None = None

    def __enter__(self) -> Session:
        self._engine = make_engine("sqlite://")
        create_tables(self._engine, self._tables())
        self._session = Session(self._engine, expire_on_commit=False)
        return self._session

    def __exit__(self, *_: object) -> None:
        assert self._session is not None
        assert self._engine is not None
        self._session.close()
        self._engine.dispose()

    async def __aenter__(self) -> AsyncSession:
        self._async_engine = make_async_engine("sqlite://")
        tables = self._tables()
        async with self._async_engine.connect() as connection:
            await connection.run_sync(lambda sync: create_tables(sync.engine, tables))
        self._async_session = AsyncSession(self._async_engine, expire_on_commit=False)
        return self._async_session

    async def __aexit__(self, *_: object) -> None:
        assert self._async_session is not None
        assert self._async_engine is not None
        await self._async_session.close()
        await self._async_engine.dispose()

    def _tables(self) -> list[Table]:
        if self.metadata is not None:
            return list(self.metadata.tables.values())
        tables = mapped_tables()
        names: dict[str, Table] = {}
        for table in tables:
            if table.name in names:
                raise ValidationError(
                    f"Two mapped classes have a table {table.name!r}; say which with InMemoryDatabase(metadata=…)."
                )
            names[table.name] = table
        return tables


def create_tables(engine: Engine, tables: Iterable[Table]) -> None:
    """Create the tables that SQLite can have; warn of each that it can't."""
    dialect = sqlite.dialect()
    possible: list[Table] = []
    for table in tables:
        try:
            CreateTable(table).compile(dialect=dialect)
            select(table).compile(dialect=dialect)
        except (CompileError, UnsupportedCompilationError) as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(f"SQLite can't have the table {table.name!r}, which is left out: {reason}", stacklevel=3)
            continue
        possible.append(table)
    by_metadata: dict[MetaData, list[Table]] = {}
    for table in possible:
        by_metadata.setdefault(table.metadata, []).append(table)
    for metadata, members in by_metadata.items():
        try:
            metadata.create_all(engine, tables=members)
        except SQLAlchemyError as error:
            names = ", ".join(table.name for table in members)
            warnings.warn(f"SQLite can't create all of {names}: {error}", stacklevel=3)
