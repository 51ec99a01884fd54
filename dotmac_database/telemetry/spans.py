"""Spans of OpenTelemetry for statements. Needs ``opentelemetry-api``, of the extra ``telemetry``.

OpenTelemetry's own instrumentation of SQLAlchemy is not used. It gets each statement as SQLAlchemy's execution of it,
which the toolkit would have to make for each statement of the driver, it knows no model and no operation, and its
version 0.66 refuses SQLAlchemy 2.1. A span is made when the statement has ended, with the times of its begin and end.

The names are those of the semantic conventions for databases:
https://opentelemetry.io/docs/specs/semconv/database/database-spans/
"""

from __future__ import annotations

from time import time_ns
from typing import TypeAlias

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
from sqlalchemy import URL

from ..observers import Statement
from .context import REQUEST
from .subject import MAX_SUBJECTS, Subject

Attributes: TypeAlias = dict[str, str | int]


class Spans:
    """Makes the spans of one database. ``provider`` None: the global one of OpenTelemetry."""

    def __init__(self, provider: TracerProvider | None, url: URL) -> None:
        self._tracer = trace.get_tracer("dotmac_database", tracer_provider=provider)
        self._known: dict[Subject, tuple[str, Attributes]] = {}
        self._attributes: Attributes = {"db.system.name": url.get_backend_name()}
        for name, value in (("db.namespace", url.database), ("server.address", url.host), ("server.port", url.port)):
            if value is not None:
                self._attributes[name] = value

    def record(self, statement: Statement, subject: Subject, tenant: object) -> None:  # noqa: ARG002 - as metrics
        """Make the span of a statement that has ended, as a child of the current span."""
        end = time_ns()
        name, attributes = self._known.get(subject) or self._described(subject)
        request = REQUEST.get()
        if request is not None and request.request_id is not None:
            attributes = {**attributes, "dotmac.request_id": request.request_id}
        start = end - int(statement.seconds * 1e9)
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=start)
        if statement.error is not None and span.is_recording():
            # Neither the message nor the stack: the database's message may contain values of the row.
            span.set_attribute("error.type", type(statement.error).__qualname__)
            sqlstate = getattr(statement.error, "sqlstate", None)
            if isinstance(sqlstate, str):
                span.set_attribute("db.response.status_code", sqlstate)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def _described(self, subject: Subject) -> tuple[str, Attributes]:
        """The name of the spans of a subject, and their attributes, which are made once."""
        attributes = {
            **self._attributes,
            "db.operation.name": subject.verb,
            "db.query.text": subject.sql,
            "dotmac.operation": subject.operation,
        }
        if subject.table:
            attributes["db.collection.name"] = subject.table
        if subject.model:
            attributes["dotmac.model"] = subject.model
        described = (f"{subject.verb} {subject.table}" if subject.table else subject.verb), attributes
        if len(self._known) >= MAX_SUBJECTS:
            self._known.clear()
        self._known[subject] = described
        return described
