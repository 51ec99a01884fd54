"""Run an operation again when it failed for a passing reason: a lost race, a deadlock, a lost connection."""

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
