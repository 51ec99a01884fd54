"""The table of conditions, each with the ratio that it must not exceed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .in_requests import in_requests
from .of_models import (
    with_load_listener,
    with_many_columns,
    with_relationships,
    with_sqlmodel,
    with_validator,
)
from .on_postgresql import (
    behind_policies,
    guarded,
    in_open_transaction,
    in_two_databases,
    on_asyncpg,
    on_psycopg,
    on_sync_psycopg,
)
from .on_sqlite import on_aiosqlite, on_sqlite
from .site import Site
from .telemetry import with_listener, with_observer, with_opentelemetry
from .ways import Ways


@dataclass(frozen=True)
class Condition:
    """A condition, and a context manager that opens both ways under it.

    ``reach`` is the highest ratio of the toolkit's time to the time by hand. ``over_tcp``: a proxy can count what is
    sent.
    """

    name: str
    title: str
    reach: float
    open: Callable[[Site], AbstractAsyncContextManager[Ways]]
    over_tcp: bool = True


CONDITIONS = (
    Condition("plain", "asyncpg, nothing else", 0.5, on_asyncpg),
    Condition("guarded", "guarded sessions", 0.5, guarded),
    Condition("two-databases", "two databases in turn", 0.5, in_two_databases),
    Condition("listener", "a listener to statements", 0.6, with_listener),
    Condition("observer", "the same, marked as observer", 0.6, with_observer),
    Condition("opentelemetry", "OpenTelemetry", 0.6, with_opentelemetry),
    Condition("open-transaction", "inside an open transaction", 0.7, in_open_transaction),
    Condition("rls", "row-level security", 0.7, behind_policies),
    Condition("psycopg-sync", "psycopg, sync", 0.6, on_sync_psycopg),
    Condition("psycopg-async", "psycopg, async", 0.6, on_psycopg),
    Condition("sqlite", "SQLite, sync", 0.7, on_sqlite, over_tcp=False),
    Condition("aiosqlite", "aiosqlite", 0.7, on_aiosqlite, over_tcp=False),
    Condition("relationships", "a class with relationships", 0.7, with_relationships),
    Condition("validator", "a validator", 0.7, with_validator),
    Condition("load-listener", "a listener to loads", 0.7, with_load_listener),
    Condition("sqlmodel", "SQLModel", 0.7, with_sqlmodel),
    Condition("wide", "40 columns", 0.7, with_many_columns),
    Condition("plugin", "a request with the plugin", 0.7, in_requests),
)
