"""Advice on the indexes that a read would use and that are missing: see `QueryPlan` and `IndexAdvice`."""

from .advising import Advisor
from .values import IndexAdvice, QueryPlan

__all__ = ["Advisor", "IndexAdvice", "QueryPlan"]
