"""Health checks of a database."""

from .checker import DatabaseHealthChecker
from .result import HealthCheckResult, HealthStatus

__all__ = ["DatabaseHealthChecker", "HealthCheckResult", "HealthStatus"]
