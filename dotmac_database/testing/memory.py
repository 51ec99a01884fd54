"""A database in memory, for tests that need only a session."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack

from sqlalchemy import Connection, Engine, MetaData, Table, event, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import CompileError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from ..engines import make_async_engine, make_engine
from ..errors import ValidationError
from ..history.tables import with_histories
from ..models.registered import mapped_tables


class InMemoryDatabase:
    """An SQLite database in memory: a ``with`` block gets a `Session`, an ``async with`` block an `AsyncSession`.

    With ``metadata=None`` it has the tables of all mapped classes. Tables that SQLite can't create are omitted, with a
    warning that names them. Two tables with the same name raise `ValidationError`; then pass ``metadata``. Foreign keys
    are enforced. Each schema is an attached database in memory.
    """

    def __init__(self, metadata: MetaData | None = None) -> None:
        self.metadata = metadata
        self._stack = ExitStack()
        self._async_stack = AsyncExitStack()

    def __enter__(self) -> Session:
        tables = self._tables()
        engine = make_engine("sqlite://")
        with ExitStack() as stack:
            stack.callback(engine.dispose)
            attach_schemas(engine, tables)
            with engine.begin() as connection:
                reasons = create_tables(connection, tables)
            warn_of(reasons)
            session = stack.enter_context(Session(engine, expire_on_commit=False))
            self._stack = stack.pop_all()
        return session

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def __aenter__(self) -> AsyncSession:
        tables = self._tables()
        engine = make_async_engine("sqlite://")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            attach_schemas(engine.sync_engine, tables)
            async with engine.begin() as connection:
                reasons = await connection.run_sync(create_tables, tables)
            warn_of(reasons)
            session = await stack.enter_async_context(AsyncSession(engine, expire_on_commit=False))
            self._async_stack = stack.pop_all()
        return session

    async def __aexit__(self, *_: object) -> None:
        await self._async_stack.aclose()

    def _tables(self) -> list[Table]:
        if self.metadata is not None:
            return list(self.metadata.tables.values())
        return every_table("InMemoryDatabase(metadata=…)")


def every_table(remedy: str) -> list[Table]:
    """The tables of all mapped classes. Raises `ValidationError` with the ``remedy`` if two have the same name."""
    tables: dict[str, Table] = {}
    for table in mapped_tables():
        if tables.setdefault(table.fullname, table) is not table:
            raise ValidationError(f"Two mapped classes have a table {table.fullname!r}; choose one with {remedy}.")
    return with_histories(tables.values())


def attach_schemas(engine: Engine, tables: Iterable[Table]) -> None:
    """Attach a database for each schema of ``tables`` to each new connection of an SQLite engine."""
    schemas = sorted({table.schema for table in tables if table.schema})
    quoted = [engine.dialect.identifier_preparer.quote_identifier(schema) for schema in schemas]

    def attach(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for schema in quoted:
            cursor.execute(f"ATTACH DATABASE ':memory:' AS {schema}")
        cursor.close()

    event.listen(engine, "connect", attach)


def create_tables(connection: Connection, tables: Iterable[Table]) -> dict[Table, str]:
    """Create the tables that SQLite supports. Returns the others, with the reason."""
    reasons: dict[Table, str] = {}
    for table in tables:
        try:
            # Some column types can be rendered in a CREATE TABLE, but not in a SELECT.
            CreateTable(table).compile(dialect=connection.dialect)
            select(table).compile(dialect=connection.dialect)
            with connection.begin_nested():
                table.create(connection, checkfirst=True)
        except CompileError as error:
            reasons[table] = _first_line(error)
        except SQLAlchemyError as error:
            reasons[table] = _first_line(getattr(error, "orig", None) or error)
    return reasons


def warn_of(reasons: Mapping[Table, str]) -> None:
    """Warn about each omitted table."""
    for table, reason in reasons.items():
        warnings.warn(f"SQLite can't have the table {table.fullname!r}, which is left out: {reason}", stacklevel=3)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
