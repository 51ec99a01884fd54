"""Advice on missing indexes: see `QueryPlan` and `IndexAdvice`."""

from .advising import Advisor
from .values import IndexAdvice, QueryPlan

__all__ = ["Advisor", "IndexAdvice", "QueryPlan"]
