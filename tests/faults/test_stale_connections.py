"""A server that was started anew costs no user an error on a read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from dotmac_database import DatabaseUnavailableError, create_async_repository, create_repository
from tests.models import Base, Country
from tests.postgres import OwnServer


@pytest.fixture
def server() -> Iterator[OwnServer]:
    own = OwnServer(durable=True).start()
    engine = create_engine(own.url("psycopg"))
    Base.metadata.create_all(engine)
    engine.dispose()
    yield own
    own.stop()


def test_a_read_over_a_lost_connection_is_sent_again(server: OwnServer) -> None:
    engine = create_engine(server.url("psycopg"), pool_size=3)
    sessions = [Session(engine, expire_on_commit=False) for _ in range(3)]
    repositories = [create_repository(session, Country) for session in sessions]
    for repository in repositories:
        assert repository.count() == 0
    server.kill()
    with pytest.raises(DatabaseUnavailableError):
        repositories[0].count()
    server.start()
    for repository in repositories:
        assert repository.list() == []
    for session in sessions:
        session.close()
    engine.dispose()


def test_the_same_async(server: OwnServer) -> None:
    async def run() -> None:
        engine = create_async_engine(server.url("asyncpg"))
        async with AsyncSession(engine, expire_on_commit=False) as session:
            repository = create_async_repository(session, Country)
            assert await repository.count() == 0
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert await repository.list_paginated() is not None
            assert (await repository.create({"code": "IS", "name": "Iceland"})).code == "IS"
        await engine.dispose()

    asyncio.run(run())
