"""Which index a read lacks: see `QueryPlan` and `IndexAdvice`."""

from .advising import Advisor
from .values import IndexAdvice, QueryPlan

__all__ = ["Advisor", "IndexAdvice", "QueryPlan"]
