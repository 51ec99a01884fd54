"""The conditions in which telemetry listens to the engine's statements. It listens to both ways."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Engine, event

from ..schema import User
from .on_postgresql import ways_on
from .site import Site, async_engine
from .ways import Ways


def listen(engine: Engine, *, observes: bool = False) -> None:
    """Measure the time of each statement, by the recipe of SQLAlchemy's documentation.

    https://docs.sqlalchemy.org/en/21/faq/performance.html#query-profiling ``observes``: the listeners are marked, so
    that the toolkit knows that they only observe.
    """
    durations: deque[float] = deque(maxlen=1000)

    @event.listens_for(engine, "before_cursor_execute")
    def note_start(
        conn: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        conn.info.setdefault("query_start_time", []).append(time.perf_counter())

    @event.listens_for(engine, "after_cursor_execute")
    def note_end(
        conn: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        durations.append(time.perf_counter() - conn.info["query_start_time"].pop(-1))

    note_start.dotmac_observes = note_end.dotmac_observes = observes  # type: ignore[attr-defined]  # any attribute is allowed


@asynccontextmanager
async def with_listener(site: Site) -> AsyncIterator[Ways]:
    """A listener of the app's own."""
    site.tidied(User)
    async with async_engine(site.url("asyncpg")) as engine:
        listen(engine.sync_engine)
        yield ways_on(engine, site.main)


@asynccontextmanager
async def with_observer(site: Site) -> AsyncIterator[Ways]:
    """A listener of the app's own that is marked as an observer."""
    site.tidied(User)
    async with async_engine(site.url("asyncpg")) as engine:
        listen(engine.sync_engine, observes=True)
        yield ways_on(engine, site.main)


class NoExporter:
    """An exporter of spans that drops them."""

    def export(self, spans: Sequence[object]) -> Any:
        return import_module("opentelemetry.sdk.trace.export").SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


@contextmanager
def instrumented(engine: Engine) -> Iterator[None]:
    """OpenTelemetry instruments the engine in this block, and makes a span of each statement.

    The instrumentor does not name SQLAlchemy 2.1 as supported yet, so it must skip the check of versions.
    """
    instrumentor = import_module("opentelemetry.instrumentation.sqlalchemy").SQLAlchemyInstrumentor()
    provider = import_module("opentelemetry.sdk.trace").TracerProvider()
    processor = import_module("opentelemetry.sdk.trace.export").SimpleSpanProcessor
    provider.add_span_processor(processor(NoExporter()))
    instrumentor.instrument(engine=engine, tracer_provider=provider, skip_dep_check=True)
    try:
        yield
    finally:
        instrumentor.uninstrument()


@asynccontextmanager
async def with_opentelemetry(site: Site) -> AsyncIterator[Ways]:
    """OpenTelemetry's instrumentor. Raises `ImportError` if it is not installed."""
    site.tidied(User)
    async with async_engine(site.url("asyncpg")) as engine:
        with instrumented(engine.sync_engine):
            yield ways_on(engine, site.main)
