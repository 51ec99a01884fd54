"""Slow statements in the log."""

from __future__ import annotations

import logging

from ..observers import Statement
from .context import REQUEST
from .subject import Subject

log = logging.getLogger("dotmac_database.slow_statements")
"""The logger of slow statements. Its records have ``duration`` (seconds), ``route``, ``model`` and ``operation``."""


class SlowStatements:
    """Writes each statement that takes ``threshold`` seconds or more to the log, as a warning without parameters."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def record(self, statement: Statement, subject: Subject) -> None:
        """Write a slow statement to the log."""
        request = REQUEST.get()
        route = None if request is None else request.route
        what = f"{subject.model}.{subject.operation}" if subject.model else subject.operation
        log.warning(
            "Slow statement: %.3f s, %s%s: %s",
            statement.seconds,
            "" if route is None else f"{route}, ",
            what,
            subject.sql,
            extra={
                "duration": statement.seconds,
                "route": route,
                "model": subject.model or None,
                "operation": subject.operation,
            },
        )
