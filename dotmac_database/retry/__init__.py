"""Retries after transient failures: serialization failures, deadlocks, lost connections."""

from .decorator import with_retry
from .policy import RetryAttempt, RetryBudget, RetryHook, RetryPolicy, RetryStrategy
from .transient import is_transient

__all__ = [
    "RetryAttempt",
    "RetryBudget",
    "RetryHook",
    "RetryPolicy",
    "RetryStrategy",
    "is_transient",
    "with_retry",
]
