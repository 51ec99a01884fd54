"""A database and the same steps through the sync or the async face, for tests of transactions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, event, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dotmac_database.repositories import AsyncRepository, BaseRepository
from dotmac_database.transactions import DatabaseTransaction, TransactionManager, idempotency_metadata

DRIVERS = {"sync": "psycopg", "async": "asyncpg"}


class Base(DeclarativeBase):
    """The base class of the tables of these tests."""


class Account(Base):
    __tablename__ = "tx_accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tx_accounts.id", deferrable=True, initially="DEFERRED"))


class World:
    """A database, and the same steps through the sync or the async face."""

    Account = Account

    def __init__(self, engine: Any, runner: asyncio.Runner | None, maker: Any, urls: dict[str, str]) -> None:
        self.engine, self.runner, self.maker, self.urls = engine, runner, maker, urls

    @property
    def dialect(self) -> str:
        return str(self.engine.dialect.name)

    def do(self, result: Any) -> Any:
        """The result; on the async face, a coroutine is awaited."""
        return self.runner.run(result) if self.runner is not None and asyncio.iscoroutine(result) else result

    @contextmanager
    def session(self, **options: Any) -> Iterator[Any]:
        session = self.maker(**options)
        try:
            yield session
        finally:
            self.do(session.close())

    @contextmanager
    def entered(self, block: Any) -> Iterator[Any]:
        """Enter a sync or async context manager as a sync one."""
        if self.runner is None:
            with block as value:
                yield value
            return
        value = self.runner.run(block.__aenter__())
        try:
            yield value
        except BaseException as error:
            if not self.runner.run(block.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.runner.run(block.__aexit__(None, None, None))

    def transaction(self, session: Any, *args: Any, **options: Any) -> Any:
        kind = "sync_transaction" if self.runner is None else "async_transaction"
        return self.entered(getattr(DatabaseTransaction, kind)(session, *args, **options))

    def retrying(self, manager: TransactionManager, operation: Callable[[Any], Any], *args: Any, **options: Any) -> Any:
        """Call the manager's method of this face with ``operation``, which takes a sync session."""
        if self.runner is None:
            return manager.execute_with_retry(operation, *args, **options)

        async def async_operation(session: AsyncSession) -> Any:
            return await session.run_sync(operation)

        return self.runner.run(manager.async_execute_with_retry(async_operation, *args, **options))

    def call(self, session: Any, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function of the toolkit that takes a sync session, or its ``async_`` twin."""
        if self.runner is not None:
            module = sys.modules[function.__module__]
            function = getattr(module, f"async_{function.__name__}")
        return self.do(function(session, *args, **options))

    def repository(self, session: Any) -> Any:
        return (BaseRepository if self.runner is None else AsyncRepository)(session, Account)

    def add(self, session: Any, name: str, **values: Any) -> None:
        session.add(Account(name=name, **values))
        self.do(session.flush())

    def names(self) -> list[str]:
        """The committed names, read on another connection."""
        with self.session() as session:
            return list(self.do(session.scalars(select(Account.name).order_by(Account.id))))

    def checked_out(self) -> int:
        return int(self.engine.pool.checkedout())


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def urls(dialect: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if dialect == "sqlite":
        path = tmp_path_factory.mktemp("transactions") / "accounts.db"
        return {"sync": f"sqlite:///{path}", "async": f"sqlite+aiosqlite:///{path}"}
    plain = request.getfixturevalue("postgres_url").replace("postgresql+psycopg://", "postgresql://")
    return {face: plain.replace("postgresql://", f"postgresql+{driver}://") for face, driver in DRIVERS.items()}


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, dialect: str, urls: dict[str, str]) -> Iterator[World]:
    face = request.param
    options: dict[str, Any] = {"pool_size": 3, "max_overflow": 0, "pool_timeout": 60}
    if dialect == "sqlite":
        options["connect_args"] = {"timeout": 0.05}
    if face == "sync":
        engine: Any = create_engine(urls[face], **options)
        sync_engine, runner, maker = engine, None, sessionmaker(engine)
    else:
        engine = create_async_engine(urls[face], **options)
        sync_engine, runner = engine.sync_engine, asyncio.Runner()
        maker = async_sessionmaker(engine)
    if engine.dialect.name == "sqlite":
        event.listen(sync_engine, "connect", lambda c, _: c.execute("PRAGMA foreign_keys = ON").close())
    world = World(engine, runner, maker, urls)

    def reset(session: Session) -> None:
        for metadata in (Base.metadata, idempotency_metadata):
            metadata.drop_all(session.connection())
            metadata.create_all(session.connection())
        session.commit()

    with world.session() as session:
        reset(session) if runner is None else runner.run(session.run_sync(reset))
    yield world
    checked_out = world.checked_out()
    world.do(engine.dispose())
    if runner is not None:
        runner.close()
    assert checked_out == 0, "a connection was left checked out"
