"""Transactions: blocks that commit or roll back, transactions with retries, and callbacks after them."""

from .block import DatabaseTransaction
from .hooks import on_commit, on_rollback
from .idempotency import (
    IdempotencyRecord,
    async_once,
    async_purge_idempotency_keys,
    idempotency_metadata,
    once,
    purge_idempotency_keys,
)
from .locks import advisory_lock, async_advisory_lock
from .manager import TransactionManager
from .options import TransactionOptions

__all__ = [
    "DatabaseTransaction",
    "IdempotencyRecord",
    "TransactionManager",
    "TransactionOptions",
    "advisory_lock",
    "async_advisory_lock",
    "async_once",
    "async_purge_idempotency_keys",
    "idempotency_metadata",
    "on_commit",
    "on_rollback",
    "once",
    "purge_idempotency_keys",
]
