"""The route as PostgreSQL's setting ``application_name``, by which transactions are found in ``pg_stat_activity``.

A comment in each statement would say the same, also for reads outside of a transaction. But each route would then have
statements of its own, and the caches of prepared statements would be useless. See docs/telemetry.md for the figures.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..execution.state import SettingsProvider
from .context import REQUEST
from .origin import origin

MAX_LENGTH = 63
"""The longest name, in bytes: https://www.postgresql.org/docs/current/runtime-config-logging.html."""


def _route() -> str | None:
    """The route of the request that runs; None: none does, or its route is unknown, and nothing is set."""
    request = REQUEST.get()
    return None if request is None else request.route


def _settings(route: object) -> Mapping[str, str]:
    """The name for a transaction that the repository's method that is running has begun."""
    sender = None if route is None else origin()
    what = "" if sender is None else f" {sender[1].model_class.__name__}.{sender[0]}"
    return {"application_name": name_of("" if route is None else str(route), what)}


def name_of(route: str, what: str) -> str:
    """The name of a transaction: the route and the operation, in ASCII. If it is too long, the route is cut."""
    route, what = (text.encode("ascii", "replace").decode() for text in (route, what))
    return f"{route[: max(MAX_LENGTH - len(what), 0)]}{what}"[:MAX_LENGTH]


APPLICATION_NAME = SettingsProvider(_route, _settings)
"""The provider of the transactions of instrumented engines."""
