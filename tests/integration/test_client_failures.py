"""asyncpg's `InternalClientError`: its state machine fails, for example if the server ends while a statement begins.

It can't be produced at will, so it is raised after the server has done the work: that is the worst case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.transaction import Transaction
from sqlalchemy import exc as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    Database,
    DatabaseTransaction,
    DatabaseUnavailableError,
    RetryPolicy,
    TransactionError,
    TransactionManager,
    create_async_repository,
    create_database,
)
from dotmac_database.dialects import lost_connection, translate
from dotmac_database.retry.transient import is_transient
from tests.conftest import Face
from tests.fast_ways import OFF


class Base(DeclarativeBase):
    """The tables of this module."""


class Thing(Base):
    __tablename__ = "client_failure_things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture
def face(postgres_url: str) -> Iterator[Face]:
    database: Database = create_database(postgres_url)
    Base.metadata.create_all(database.engine)
    face = Face("async", database)
    yield face
    face.runner.run(database.async_engine.dispose())
    face.runner.close()
    Base.metadata.drop_all(database.engine)
    database.dispose()


@pytest.fixture
def fail_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], list[str]]:
    """A function that lets the next call of a driver's method fail after it has done its work."""

    def install(owner: type, method: str) -> list[str]:
        real = getattr(owner, method)
        failed: list[str] = []

        async def failing(*args: Any, **options: Any) -> Any:
            result = await real(*args, **options)
            if not failed:
                failed.append(method)
                raise asyncpg.InternalClientError("cannot switch to state 11")
            return result

        monkeypatch.setattr(owner, method, failing)
        return failed

    return install


@pytest.fixture(params=[pytest.param(asyncpg.Connection, marks=pytest.mark.fast_way("driver")), PreparedStatement])
def sender(request: pytest.FixtureRequest, face: Face, monkeypatch: pytest.MonkeyPatch) -> type:
    """The class whose ``fetch`` sends the statements: that of the driver's way, and that of SQLAlchemy's."""
    sender: type = request.param
    if sender is PreparedStatement:
        OFF["driver"](monkeypatch)
    with face.session() as session:
        face(create_async_repository(session, Thing).count)  # else the statements of a first connection would fail
    return sender


def test_it_is_a_lost_connection() -> None:
    error = sa.DBAPIError.instance(None, None, asyncpg.InternalClientError("cannot switch to state 11"), Exception)
    assert lost_connection(error)
    assert type(translate(error)) is DatabaseUnavailableError
    assert is_transient(asyncpg.InternalClientError("cannot switch to state 11"))
    assert not lost_connection(sa.DBAPIError.instance(None, None, ValueError("other"), Exception))


@pytest.mark.fast_way("autocommit", "update-statements")
def test_a_write_has_an_unknown_outcome(face: Face, fail_once: Any, sender: type) -> None:
    async def run() -> None:
        async with face.database.async_sessions() as session:
            things = create_async_repository(session, Thing)
            failed = fail_once(sender, "fetch")
            with pytest.raises(TransactionError) as caught:
                await things.create({"id": 1, "name": "a"})
            assert failed
            assert caught.value.outcome == "unknown"
            assert await things.count() == 1

    face(run)


def test_a_read_is_sent_again(face: Face, fail_once: Any, sender: type) -> None:
    async def run() -> None:
        async with face.database.async_sessions() as session:
            things = create_async_repository(session, Thing)
            await things.create({"id": 1, "name": "a"})
            failed = fail_once(sender, "fetch")
            assert [each.id for each in await things.list()] == [1]
            assert failed

    face(run)


def test_a_transaction_is_run_again_unless_its_commit_failed(face: Face, fail_once: Any, sender: type) -> None:
    manager: Any = TransactionManager(face.database.async_sessions, policy=RetryPolicy(max_attempts=3, base_delay=0.01))

    async def write(session: AsyncSession) -> None:
        await create_async_repository(session, Thing).create({"name": "a"})

    async def run() -> None:
        failed = fail_once(sender, "fetch")
        await manager.async_execute_with_retry(write)
        assert failed
        failed = fail_once(Transaction, "commit")
        with pytest.raises(TransactionError) as caught:
            await manager.async_execute_with_retry(write)
        assert failed
        assert caught.value.outcome == "unknown"
        async with face.database.async_sessions() as session, DatabaseTransaction.async_transaction(session):
            assert await create_async_repository(session, Thing).count() == 2

    face(run)
