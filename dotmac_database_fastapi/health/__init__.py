"""The health of an app's databases, for load balancers, orchestrators and people."""

from .router import health_router

__all__ = ["health_router"]
