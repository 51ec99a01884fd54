"""The result of a health check."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ..types import utc_now


class HealthStatus(StrEnum):
    """The state of a database. ``degraded``: it works, but something needs attention."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HealthCheckResult:
    """The result of one check. ``error`` is the exception's class and a message without parameters."""

    status: HealthStatus
    message: str
    duration_ms: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime = field(default_factory=utc_now)
    error: str | None = None

    @property
    def works(self) -> bool:
        """Whether the database works: it is healthy or degraded."""
        return self.status in (HealthStatus.HEALTHY, HealthStatus.DEGRADED)

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "status": self.status.value,
            "message": self.message,
            "duration_ms": round(self.duration_ms, 3),
            "details": self.details,
            "timestamp": self.timestamp.isoformat(),
            "error": self.error,
        }
