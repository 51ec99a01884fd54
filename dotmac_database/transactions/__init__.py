"""Transactions: blocks that commit or roll back, whole transactions with retries, and what happens after them."""

from .block import DatabaseTransaction
from .hooks import on_commit, on_rollback
from .manager import TransactionManager
from .options import TransactionOptions

__all__ = [
    "DatabaseTransaction",
    "TransactionManager",
    "TransactionOptions",
    "on_commit",
    "on_rollback",
]
