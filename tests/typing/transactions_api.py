"""Calls that the type checkers must accept, with the types that they must see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dotmac_database.retry import RetryAttempt, RetryBudget, RetryPolicy, RetryStrategy, with_retry
from dotmac_database.retry.breaker import CircuitBreaker, CircuitState
from dotmac_database.transactions import (
    DatabaseTransaction,
    IdempotencyRecord,
    TransactionManager,
    TransactionOptions,
    async_once,
    on_commit,
    once,
)


def blocks(session: Session, scoped: scoped_session[Session]) -> None:
    with DatabaseTransaction.sync_transaction(session) as tx:
        assert_type(tx, Session)
    with DatabaseTransaction.sync_transaction(scoped, lazy=True) as scoped_tx:
        assert_type(scoped_tx, scoped_session[Session])
    options = TransactionOptions(isolation_level="SERIALIZABLE", read_only=True, lock_timeout=0.5)
    with DatabaseTransaction.sync_transaction(session, options) as tx:
        assert_type(once(tx, "key"), IdempotencyRecord)
        on_commit(tx, lambda: None)


async def async_blocks(session: AsyncSession, scoped: async_scoped_session[AsyncSession]) -> None:
    async with DatabaseTransaction.async_transaction(session) as tx:
        assert_type(tx, AsyncSession)
        assert_type(await async_once(tx, "key", fingerprint="sha"), IdempotencyRecord)
    async with DatabaseTransaction.async_transaction(scoped) as scoped_tx:
        assert_type(scoped_tx, async_scoped_session[AsyncSession])


async def managers(maker: sessionmaker[Session], async_maker: async_sessionmaker[AsyncSession]) -> None:
    def count(session: Session) -> int:
        return len(session.new)

    async def async_count(session: AsyncSession) -> int:
        return len(session.new)

    assert_type(TransactionManager(maker).execute_with_retry(count, idempotent=True), int)
    assert_type(await TransactionManager(async_maker).async_execute_with_retry(async_count), int)
    with TransactionManager(maker, 3, 1.0, 2.0).sync_transaction(maker()) as session:
        session.flush()


def log(attempt: RetryAttempt) -> None:
    assert_type(attempt.number, int)


POLICY = RetryPolicy(
    max_attempts=5, strategy=RetryStrategy.JITTERED, deadline=30.0, budget=RetryBudget(10), hooks=(log,)
)


@with_retry(POLICY)
def retried(session: Session, name: str) -> int:
    return len(name)


@with_retry
async def retried_async(session: AsyncSession) -> str:
    return "done"


@with_retry(POLICY, idempotent=True)
async def rows(session: AsyncSession) -> AsyncIterator[int]:
    yield 1


@CircuitBreaker(failure_threshold=5, recovery_timeout=60.0, expected_exception=(OSError, ValueError))
def protected(name: str) -> int:
    return len(name)


async def decorated(session: Session, async_session: AsyncSession) -> None:
    assert_type(retried(session, name="x"), int)
    assert_type(await retried_async(async_session), str)
    async for row in rows(async_session):
        assert_type(row, int)
    assert_type(protected("x"), int)
    breaker = CircuitBreaker()
    assert_type(breaker.state, CircuitState)
    with breaker:
        pass
    async with breaker:
        pass
