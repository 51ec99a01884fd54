"""Spans of OpenTelemetry for statements. Needs ``opentelemetry-api``, of the extra ``telemetry``.

OpenTelemetry's own instrumentation of SQLAlchemy is not used. It gets each statement as SQLAlchemy's execution of it,
which the toolkit would have to make for each statement of the driver, it knows no model and no operation, and its
version 0.66 refuses SQLAlchemy 2.1. A span is made when the statement has ended, with the times of its begin and end.

The names are those of the semantic conventions for databases:
https://opentelemetry.io/docs/specs/semconv/database/database-spans/
"""

from __future__ import annotations

from time import time_ns

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
from sqlalchemy import URL

from ..observers import Statement
from .subject import Subject
from .text import sanitised


class Spans:
    """Makes the spans of one database. ``provider`` None: the global one of OpenTelemetry."""

    def __init__(self, provider: TracerProvider | None, url: URL) -> None:
        self._tracer = trace.get_tracer("dotmac_database", tracer_provider=provider)
        self._attributes: dict[str, str | int] = {"db.system.name": url.get_backend_name()}
        for name, value in (("db.namespace", url.database), ("server.address", url.host), ("server.port", url.port)):
            if value is not None:
                self._attributes[name] = value

    def record(self, statement: Statement, subject: Subject) -> None:
        """Make the span of a statement that has ended, as a child of the current span."""
        end = time_ns()
        span = self._tracer.start_span(
            f"{subject.verb} {subject.table}" if subject.table else subject.verb,
            kind=SpanKind.CLIENT,
            start_time=end - int(statement.seconds * 1e9),
        )
        if span.is_recording():
            attributes = {
                **self._attributes,
                "db.operation.name": subject.verb,
                "db.query.text": sanitised(statement.sql),
                "dotmac.operation": subject.operation,
            }
            if subject.table:
                attributes["db.collection.name"] = subject.table
            if subject.model:
                attributes["dotmac.model"] = subject.model
            span.set_attributes(attributes)
            if statement.error is not None:
                # Neither the message nor the stack: the database's message may contain values of the row.
                span.set_attribute("error.type", type(statement.error).__qualname__)
                sqlstate = getattr(statement.error, "sqlstate", None)
                if isinstance(sqlstate, str):
                    span.set_attribute("db.response.status_code", sqlstate)
                span.set_status(Status(StatusCode.ERROR))
        span.end(end)
