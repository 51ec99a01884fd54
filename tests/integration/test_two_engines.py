"""What is kept for an engine is kept while others are used, and no longer than the engine is."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler

from dotmac_database import AsyncRepository, Database, QueryFilter, create_database, departures, known_methods
from dotmac_database.execution import compiling


class Local(DeclarativeBase):
    """The table that each database has."""


class Thing(Local):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


@contextmanager
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that are compiled in this block."""
    made: list[str] = []
    real = SQLCompiler.__init__

    def counted(self: Any, *given: Any, **options: Any) -> None:
        real(self, *given, **options)
        made.append(str(self))

    with monkeypatch.context() as patch:
        patch.setattr(SQLCompiler, "__init__", counted)
        yield made


async def used(database: Database, key: int) -> None:
    """Reads and writes of each kind, in sessions of their own."""
    async with database.async_sessions() as session:
        things = AsyncRepository(session, Thing)
        await things.create({"id": key, "name": "x"})
    async with database.async_sessions() as session:
        things = AsyncRepository(session, Thing)
        assert await things.get_by_id(key)
        assert await things.list({"filters": [QueryFilter("id", value=key)]})
        assert await things.count([QueryFilter("id", value=key)]) == 1
        assert await things.values("name").list({"filters": [QueryFilter("id", value=key)]}) == [{"name": "x"}]
    async with database.async_sessions() as session:
        things = AsyncRepository(session, Thing)
        await things.update(key, {"name": "y"})
        await things.update_where([QueryFilter("id", value=key)], {"name": "z"})
        await things.delete(key)


def opened(url: str) -> Database:
    # By the sync engine: SQLAlchemy keeps the last dialects that have asked for tables (an lru_cache of a method).
    database = create_database(url)
    Local.metadata.create_all(database.engine)
    database.dispose()
    return create_database(url)


def collected() -> None:
    """Free what nobody holds. SQLAlchemy's mapper has the dialects of the last hundred statements of its flushes."""
    cache: Any = getattr(Thing.__mapper__, "_compiled_cache")  # noqa: B009 - it is not typed
    cache.clear()
    gc.collect()


@pytest.mark.parametrize(
    "kinds",
    [
        ("asyncpg", "asyncpg"),
        ("asyncpg", "sqlite"),
        ("asyncpg", "psycopg", "sqlite", "asyncpg"),
    ],
    ids="-".join,
)
def test_nothing_is_compiled_anew_while_engines_are_used_in_turn(
    kinds: tuple[str, ...], postgres_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[str]:
        databases = [
            opened(
                f"sqlite:///{tmp_path}/{place}.db"
                if kind == "sqlite"
                else postgres_url.replace("postgresql:", f"postgresql+{kind}:")
            )
            for place, kind in enumerate(kinds)
        ]
        for key in range(2):
            for database in databases:
                await used(database, key)
        with compilations(monkeypatch) as made:
            for key in range(3):
                for database in databases:
                    await used(database, key)
        for database in databases:
            await database.dispose_async()
        return made

    assert asyncio.run(main()) == []


def test_what_is_kept_dies_with_its_engine(postgres_url: str, tmp_path: Any) -> None:
    """Each engine in a loop of its own, as a test run or a worker makes them."""
    urls = [postgres_url.replace("postgresql:", "postgresql+asyncpg:"), f"sqlite:///{tmp_path}/x.db"] * 4

    async def main(url: str) -> tuple[Any, Any, Any]:
        database = opened(url)
        await used(database, 1)
        engine = database.async_engine.sync_engine
        await database.dispose_async()
        return weakref.ref(engine), weakref.ref(engine.dialect), weakref.ref(engine.pool)

    alive = [asyncio.run(main(url)) for url in urls]
    collected()
    assert [ref for refs in alive for ref in refs if ref() is not None] == []


def test_nothing_grows_with_the_number_of_engines(postgres_url: str) -> None:
    async def main() -> None:
        database = opened(postgres_url.replace("postgresql:", "postgresql+asyncpg:"))
        await used(database, 1)
        await database.dispose_async()

    def kept() -> list[int]:
        collected()
        where: list[Any] = [departures._KNOWN_BY_CLASS, known_methods._DIALECTS, known_methods._CHECKED_CLASSES]
        return [len(each) for each in where]

    asyncio.run(main())
    before = kept()
    for _ in range(5):
        asyncio.run(main())
    # Fewer, where what other tests have left is collected meanwhile.
    assert all(now <= then for now, then in zip(kept(), before, strict=True))


@pytest.mark.fast_way("driver")
def test_a_plan_dies_with_its_statement(postgres_url: str) -> None:
    """Many shapes: what was dropped for others is not kept with the engine's dialect."""

    async def main() -> None:
        database = opened(postgres_url.replace("postgresql:", "postgresql+asyncpg:"))
        await used(database, 1)
        async with database.async_sessions() as session:
            things = AsyncRepository(session, Thing)
            plans = vars(database.async_engine.dialect)[compiling._DRIVER_STATEMENTS]
            before = len(plans)
            assert before
            things.traits.statements.clear()
            gc.collect()
            assert len(plans) < before
        await database.dispose_async()

    asyncio.run(main())
