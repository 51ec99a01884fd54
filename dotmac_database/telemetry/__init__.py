"""What a team sees of a database: metrics, spans, log records, slow statements, and budgets of statements.

The packages of the extra ``telemetry`` are imported when `instrument` is called, and not before.
"""

from .budget import OnExceed, StatementBudget, StatementBudgetWarning
from .context import REQUEST, RequestContext, within
from .continuing import Continued
from .instrumentation import Instrumentation, instrument
from .logs import DatabaseLogFilter

__all__ = [
    "REQUEST",
    "Continued",
    "DatabaseLogFilter",
    "Instrumentation",
    "OnExceed",
    "RequestContext",
    "StatementBudget",
    "StatementBudgetWarning",
    "instrument",
    "within",
]
