"""Is the database there, and well?"""

from .checker import DatabaseHealthChecker
from .result import HealthCheckResult, HealthStatus

__all__ = ["DatabaseHealthChecker", "HealthCheckResult", "HealthStatus"]
